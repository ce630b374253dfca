//! `tidemark feed`: feeds of the user's own tables.
//!
//! | variable | meaning |
//! |---|---|
//! | `DATABASE_URL` | `postgres://user:password@host:port/database`, where the table is |

use std::{
    fs,
    io::{self, Read},
    path::PathBuf,
};

use comfy_table::{CellAlignment, Table, presets::NOTHING};
use runtime::{Secret, invalid};
use serde::{Deserialize, Serialize};
use store::{Added, Change, DatabaseUrl, InstalledFeed, OwnFeed, OwnFeedError};

use crate::say;

/// Flags of `tidemark feed`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address of the database.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, global = true, value_name = "URL")]
    database_url: Option<Secret>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make the number of a table's rows a feed.
    Add {
        /// The feed's name: 1 to 48 characters of a-z 0-9 _ -, beginning with a letter.
        name: String,
        /// The table as in SQL, with its schema.
        #[arg(long, value_name = "SCHEMA.TABLE")]
        table: String,
        /// Count only rows that fulfil this condition over the table's columns, as "status = 'open'".
        #[arg(long = "where", value_name = "SQL")]
        filter: Option<String>,
    },
    /// Show the feeds that were added, and whether their counts are right.
    List {
        /// One JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Remove a feed with everything that was made for it; the table stays.
    Remove {
        /// The feed's name.
        name: String,
    },
    /// Bring feeds into agreement with a list: add, replace, and remove those that an earlier list had.
    Sync {
        /// The list, a JSON array of {"name","table","where"?}; `-` reads it from standard input.
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// Whose list it is. Feeds of other owners, and those added by hand, are left alone.
        #[arg(long, value_name = "NAME", default_value = "sync")]
        owner: String,
    },
}

/// Why it did not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What `store` says.
    #[error(transparent)]
    Feed(#[from] OwnFeedError),
    /// The list cannot be read.
    #[error("failed to read the list {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// The list is none.
    #[error("the list {} is no JSON array of {{\"name\",\"table\",\"where\"?}}", .0.display())]
    List(PathBuf, #[source] serde_json::Error),
    /// A name stands in the list twice.
    #[error("the list has the name {0} twice")]
    Twice(String),
    /// One feed is not as it is listed.
    #[error("{0}")]
    Listed(String, #[source] OwnFeedError),
    /// Some feeds are not as they are listed.
    #[error("{failed} of {listed} feeds are not as they are listed")]
    Differs {
        /// How many.
        failed: usize,
        /// Of how many.
        listed: usize,
    },
}

impl Error {
    /// Whether it is the fault of how the call was written.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Feed(error) => error.is_usage(),
            Self::Read(..) | Self::List(..) | Self::Twice(_) => true,
            Self::Listed(..) | Self::Differs { .. } => false,
        }
    }
}

/// A feed as a list has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    name: String,
    table: String,
    #[serde(rename = "where")]
    filter: Option<String>,
}

/// A feed as `list --json` prints it.
#[derive(Debug, PartialEq, Serialize)]
struct Shown<'a> {
    name: &'a str,
    table: &'a str,
    #[serde(rename = "where")]
    filter: Option<&'a str>,
    owner: Option<&'a str>,
    count: i64,
    state: String,
}

/// Does what the subcommand says.
///
/// # Errors
/// [`Error`].
pub async fn run(args: Args) -> Result<(), Error> {
    let Args { database_url, command } = args;
    let database = database(database_url.as_ref());
    match command {
        Command::Add { name, table, filter } => {
            let feed = OwnFeed::new(&name, &table, filter.as_deref())?;
            added(&name, &store::add_own_feed(&database, &feed).await?);
        }
        Command::List { json } => {
            let feeds = store::own_feeds(&database).await?;
            let shown: Vec<Shown<'_>> = feeds.iter().map(Shown::from).collect();
            if json {
                say::line(serde_json::json!(shown));
            } else {
                say::line(table(&shown).trim_fmt());
            }
        }
        Command::Remove { name } => {
            store::remove_own_feed(&database, &name).await?;
            say::line(format_args!("{name}: removed"));
        }
        Command::Sync { file, owner } => sync(&database, file, &owner).await?,
    }
    Ok(())
}

/// The address, or the end of the process with code 2.
fn database(url: Option<&Secret>) -> DatabaseUrl {
    let Some(url) = url else { invalid("DATABASE_URL", "it is missing; --database-url gives it too") };
    DatabaseUrl::parse(url.expose()).unwrap_or_else(|error| invalid("DATABASE_URL", error))
}

fn added(name: &str, added: &Added) {
    let Added { table, count, counts_replays } = added;
    say::line(format_args!("{name}: added, {count} rows of {table}"));
    if !counts_replays {
        say::note(
            "note: sessions that replay changes (session_replication_role = replica) are not counted; that takes the rights of the table's owner",
        );
    }
}

async fn sync(database: &DatabaseUrl, file: PathBuf, owner: &str) -> Result<(), Error> {
    let feeds = list(file)?;
    let mut failed = 0;
    let tell = |name: &str, outcome: Result<Change, OwnFeedError>| match outcome {
        Ok(change) => say::line(format_args!("{name}: {}", word(change))),
        Err(error) => {
            failed += 1;
            say::error(&Error::Listed(name.to_owned(), error));
        }
    };
    store::sync_own_feeds(database, owner, &feeds, tell).await?;
    if failed > 0 { Err(Error::Differs { failed, listed: feeds.len() }) } else { Ok(()) }
}

fn word(change: Change) -> &'static str {
    match change {
        Change::Added => "added",
        Change::Replaced => "replaced",
        Change::Kept => "as listed",
        Change::Removed => "removed",
    }
}

/// Reads the whole list before anything is done.
fn list(file: PathBuf) -> Result<Vec<OwnFeed>, Error> {
    let text = if file.as_os_str() == "-" {
        let mut text = String::new();
        io::stdin().lock().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(&file)
    };
    let text = match text {
        Ok(text) => text,
        Err(error) => return Err(Error::Read(file, error)),
    };
    let listed: Vec<Listed> = serde_json::from_str(&text).map_err(|error| Error::List(file, error))?;
    let mut feeds: Vec<OwnFeed> = Vec::with_capacity(listed.len());
    for Listed { name, table, filter } in listed {
        if feeds.iter().any(|feed| feed.name() == name) {
            return Err(Error::Twice(name));
        }
        feeds.push(OwnFeed::new(&name, &table, filter.as_deref())?);
    }
    Ok(feeds)
}

impl<'a> From<&'a InstalledFeed> for Shown<'a> {
    fn from(feed: &'a InstalledFeed) -> Self {
        let InstalledFeed { name, table, filter, owner, count, trouble } = feed;
        let (filter, owner) = (filter.as_deref(), owner.as_deref());
        Self { name, table, filter, owner, count: *count, state: trouble.to_string() }
    }
}

fn table(feeds: &[Shown<'_>]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["NAME", "TABLE", "WHERE", "OWNER", "COUNT", "STATE"]);
    for Shown { name, table: on, filter, owner, count, state } in feeds {
        let [filter, owner] = [filter, owner].map(|text| text.unwrap_or_default());
        table.add_row([name, on, filter, owner, &count.to_string(), state]);
    }
    if let Some(count) = table.column_mut(4) {
        count.set_cell_alignment(CellAlignment::Right);
    }
    table
}
