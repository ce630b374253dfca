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
use store::{Added, Change, DatabaseUrl, FeedProblem, Follow, InstalledFeed, InstalledFeeds, OwnFeed, OwnFeedError};

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
        /// What to follow when tables are renamed: this table, or whichever has the name.
        #[arg(long, value_name = "table|name", default_value = "table")]
        follow: Follow,
    },
    /// Show the feeds that were added, and whether their counts are right: exit code 1 if one is not.
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
        /// The list, a JSON array of {"name","table","where"?,"follow"?}; `-` reads it from standard input.
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
    #[error("the list {} is no JSON array of {{\"name\",\"table\",\"where\"?,\"follow\"?}}", .0.display())]
    List(PathBuf, #[source] serde_json::Error),
    /// A name stands in the list twice.
    #[error("the list has the name {0} twice")]
    Twice(String),
    /// One feed is not as it is listed.
    #[error("{0}")]
    Listed(String, #[source] OwnFeedError),
    /// Some feeds are not right.
    #[error("{wrong} of {feeds} feeds are not right")]
    Wrong {
        /// How many.
        wrong: usize,
        /// Of how many.
        feeds: usize,
    },
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
            Self::Listed(..) | Self::Wrong { .. } | Self::Differs { .. } => false,
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
    /// A list names tables, so that its feeds follow the names.
    #[serde(default)]
    follow: ListedFollow,
}

/// What a feed of a list follows.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ListedFollow {
    Table,
    #[default]
    Name,
}

impl From<ListedFollow> for Follow {
    fn from(follow: ListedFollow) -> Self {
        match follow {
            ListedFollow::Table => Self::Table,
            ListedFollow::Name => Self::Name,
        }
    }
}

/// A feed as `list --json` prints it.
#[derive(Debug, PartialEq, Serialize)]
struct Shown<'a> {
    name: &'a str,
    table: &'a str,
    #[serde(rename = "where")]
    filter: Option<&'a str>,
    owner: Option<&'a str>,
    follow: &'static str,
    count: i64,
    /// One word, as the label `reason` of the metric `tidemark_feed_problem`.
    problem: Option<&'static str>,
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
        Command::Add { name, table, filter, follow } => {
            let feed = OwnFeed::new(&name, &table, filter.as_deref(), follow)?;
            added(&name, &store::add_own_feed(&database, &feed).await?);
        }
        Command::List { json } => list(&store::own_feeds(&database).await?, json)?,
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
    let Added { table, count, counts_replays, limits_temporary_files } = added;
    say::line(format_args!("{name}: added, {count} rows of {table}"));
    if !counts_replays {
        say::note(
            "note: sessions that replay changes (session_replication_role = replica) are not counted; that takes the rights of the table's owner",
        );
    }
    if *limits_temporary_files {
        say::note(
            "note: temp_file_limit is set on this server: large statements on this table (UPDATE only with a filter) write their rows to temporary files too from \
             now on, and fail above the limit (docs/operations.md, \"What is not covered\")",
        );
    }
}

/// Prints the feeds; an error if one of them is not right.
fn list(InstalledFeeds { feeds, prepares_transactions }: &InstalledFeeds, json: bool) -> Result<(), Error> {
    let shown: Vec<Shown<'_>> = feeds.iter().map(Shown::from).collect();
    if json {
        say::line(serde_json::json!(shown));
    } else {
        say::line(table(&shown).trim_fmt());
    }
    if *prepares_transactions && !feeds.is_empty() {
        say::note(
            "note: transactions can be prepared on this server (max_prepared_transactions): changes of these tables are seen within 200 ms, not immediately",
        );
    }
    let wrong = feeds.iter().filter(|feed| feed.problem.is_some()).count();
    if wrong > 0 { Err(Error::Wrong { wrong, feeds: feeds.len() }) } else { Ok(()) }
}

async fn sync(database: &DatabaseUrl, file: PathBuf, owner: &str) -> Result<(), Error> {
    let feeds = read_list(file)?;
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
fn read_list(file: PathBuf) -> Result<Vec<OwnFeed>, Error> {
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
    for Listed { name, table, filter, follow } in listed {
        if feeds.iter().any(|feed| feed.name() == name) {
            return Err(Error::Twice(name));
        }
        feeds.push(OwnFeed::new(&name, &table, filter.as_deref(), follow.into())?);
    }
    Ok(feeds)
}

impl<'a> From<&'a InstalledFeed> for Shown<'a> {
    fn from(feed: &'a InstalledFeed) -> Self {
        let InstalledFeed { name, table, filter, owner, follow, count, problem, failure } = feed;
        let state = match (problem, failure) {
            (None, _) => "ok".to_owned(),
            (Some(problem), Some(code)) => format!("{problem} (SQLSTATE {code})"),
            (Some(problem), None) => problem.to_string(),
        };
        let (filter, owner, problem) = (filter.as_deref(), owner.as_deref(), problem.map(FeedProblem::as_str));
        Self { name, table, filter, owner, follow: follow.as_str(), count: *count, problem, state }
    }
}

fn table(feeds: &[Shown<'_>]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["NAME", "TABLE", "WHERE", "OWNER", "COUNT", "STATE"]);
    for Shown { name, table: on, filter, owner, count, state, .. } in feeds {
        let [filter, owner] = [filter, owner].map(|text| text.unwrap_or_default());
        table.add_row([name, on, filter, owner, &count.to_string(), state]);
    }
    if let Some(count) = table.column_mut(4) {
        count.set_cell_alignment(CellAlignment::Right);
    }
    table
}
