//! Why a feed could not be added or removed, in words that help.

use std::fmt;

use sqlx::postgres::PgDatabaseError;

use crate::{
    DatabaseError,
    connection::{ConnectError, is_undefined, sqlstate},
};

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OwnFeedError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The tables of this version are not there.
    #[error(
        "the schema tidemark is missing, or older than this program: start an app of this version, or run `app migrate`"
    )]
    NotMigrated,
    /// No name of a feed.
    #[error(
        "{0:?} cannot be the name of a feed: it is 1 to {most} characters of a-z 0-9 _ -, and begins with a letter", most = super::MAX_NAME
    )]
    Name(String),
    /// The name belongs to another feed.
    #[error("the name {0} is in use; `tidemark feed list` shows your own feeds, and others have names too")]
    NameInUse(String),
    /// Another list, or somebody by hand, has a feed of this name that counts something else.
    #[error("{0} is not of this list, and counts something else: remove it, or choose another name")]
    NotOurs(String),
    /// Not the form `schema.table`.
    #[error("{0:?} is no table: write it as in SQL with its schema, SCHEMA.TABLE")]
    TableName(String),
    /// No such table.
    #[error("there is no table {name} in this database{similar}")]
    UnknownTable {
        /// As it was written.
        name: String,
        /// One whose name is nearly the same.
        similar: Similar,
    },
    /// The rows of this table cannot be counted.
    #[error("the rows of {table} cannot be counted: {obstacle}")]
    Obstacle {
        /// The table.
        table: String,
        /// Why.
        obstacle: Obstacle,
    },
    /// The condition cannot be used.
    #[error("the filter cannot be used: {0}")]
    Filter(String),
    /// Another transaction holds the table, or changed it at the same moment.
    #[error(
        "{0} is in use by another transaction, and those behind it shall not queue for longer than {limit:?}: try again when it has ended (pg_stat_activity shows it)",
        limit = super::statements::LOCK_TIMEOUT
    )]
    Busy(String),
    /// The account may not do it.
    #[error("the account may not do that: {0}; docs/operations.md lists the rights")]
    Denied(String),
    /// No such feed.
    #[error("there is no feed of your own called {0}; `tidemark feed list` shows them")]
    Unknown(String),
    /// The filter needs something that the version of Postgres has not.
    #[error("a filter needs Postgres 14 or later")]
    TooOld,
    /// Anything else.
    #[error("failed to {action}")]
    Query {
        /// What was being done.
        action: &'static str,
        /// What happened.
        #[source]
        source: DatabaseError,
    },
}

impl OwnFeedError {
    /// Whether it is the fault of how the call was written, and not of what was found.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Name(_) | Self::TableName(_))
    }

    /// Whether it is about one feed: others may be added all the same.
    pub(super) fn is_of_one_feed(&self) -> bool {
        !matches!(self, Self::Connect(_) | Self::NotMigrated | Self::Query { .. })
    }

    /// What the database said, if that needs no more words.
    pub(super) fn of(error: sqlx::Error, action: &'static str) -> Self {
        if is_undefined(&error) {
            return Self::NotMigrated;
        }
        match sqlstate(&error).as_deref() {
            Some("42501") => Self::Denied(message(&error)),
            _ => Self::Query { action, source: error.into() },
        }
    }

    /// The same, while this feed is changed.
    pub(super) fn of_feed(error: sqlx::Error, name: &str, table: &str, action: &'static str) -> Self {
        match sqlstate(&error).as_deref() {
            Some("55P03" | "40P01") => Self::Busy(table.to_owned()),
            // Unique violation; a function, trigger or table of that name.
            Some("23505" | "42723" | "42710" | "42P07") => Self::NameInUse(name.to_owned()),
            _ => Self::of(error, action),
        }
    }

    /// The same, while the function of a filter is made. What is undefined there is something of the user's, or a word that this server does not know.
    pub(super) fn of_filter_function(error: sqlx::Error, name: &str) -> Self {
        match sqlstate(&error).as_deref() {
            Some("23505" | "42723" | "42710" | "42P07") => Self::NameInUse(name.to_owned()),
            Some("42601") => Self::TooOld,
            _ => Self::of_filter(error),
        }
    }

    /// The same, of a statement that holds the user's filter.
    pub(super) fn of_filter(error: sqlx::Error) -> Self {
        // A statement that could not be sent, or is not answered, says nothing of the filter.
        let said = sqlstate(&error).filter(|code| !matches!(&code[..2], "53" | "55" | "57" | "58"));
        let Some(code) = said.filter(|code| code != "42501") else { return Self::of(error, "try the filter") };
        // "functions in index predicate must be marked IMMUTABLE"
        if code == "42P17" {
            return Self::Filter(
                "it calls a function, or a cast, whose result may change while the row does not: by now(), random() or a \
                 setting such as TimeZone. The count would drift"
                    .into(),
            );
        }
        // Postgres judges it as the predicate of an index. What follows a line break is our own text.
        let said = error.as_database_error().map_or("", |error| error.message()).lines().next().unwrap_or_default();
        let words = [("index predicates", "a filter"), ("index predicate", "a filter"), ("index creation", "a filter")];
        let said = words.iter().fold(said.to_owned(), |said, (theirs, ours)| said.replace(theirs, ours));
        // A function, an operator (none, or several that fit), a type, table or schema.
        if !matches!(code.as_str(), "42883" | "42725" | "42704" | "42P01" | "3F000") {
            return Self::Filter(said);
        }
        let inside = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>()?.r#where());
        let help = if inside.is_some() {
            "triggers have the search_path pg_catalog: give the function that the filter calls a search_path of its own, \
             ALTER FUNCTION … SET search_path"
        } else {
            "names without a schema are looked up in the search_path of this account"
        };
        Self::Filter(format!("{said} ({help})"))
    }
}

/// A hint at a table whose name differs in capital letters alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Similar(pub(super) Option<String>);

impl fmt::Display for Similar {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(table) => write!(formatter, ", but there is {table}: a name without quotes is read in small letters"),
            None => Ok(()),
        }
    }
}

/// The database's own words, with its hint.
fn message(error: &sqlx::Error) -> String {
    let Some(error) = error.as_database_error() else { return error.to_string() };
    let hint = error.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::hint);
    hint.map_or_else(|| error.message().to_owned(), |hint| format!("{} ({hint})", error.message()))
}

/// Why the rows of a table cannot be counted by its triggers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// A view, an index, a foreign table …
    NotATable,
    /// It has partitions.
    Partitioned,
    /// It is one.
    Partition,
    /// Other tables inherit from it, or it inherits.
    Inheritance,
    /// Of one session.
    Temporary,
    /// Emptied by a crash.
    Unlogged,
    /// Of Postgres itself.
    System,
    /// Of this project.
    Ours,
    /// Filled by logical replication.
    Subscribed,
    /// Row-level security hides rows from this account.
    HiddenRows,
    /// No right to create triggers.
    NoTrigger,
    /// No right to read it.
    NoSelect,
}

impl Obstacle {
    const ALL: [(&'static str, Self, &'static str); 12] = [
        (
            "not_a_table",
            Self::NotATable,
            "it is no table (a view, a materialized view, a foreign table …), and changes of its rows call no trigger",
        ),
        (
            "partitioned",
            Self::Partitioned,
            "it has partitions, and rows that are written to a partition, or come and go with one, call no trigger of the whole",
        ),
        (
            "partition",
            Self::Partition,
            "it is a partition, and rows that are written to the whole call no trigger of its parts",
        ),
        (
            "inheritance",
            Self::Inheritance,
            "it inherits, or is inherited from: rows would be counted on one way and missed on another",
        ),
        ("temporary", Self::Temporary, "it is temporary"),
        ("unlogged", Self::Unlogged, "it is unlogged: a crash empties it, and calls no trigger"),
        ("system", Self::System, "it belongs to Postgres"),
        ("ours", Self::Ours, "it belongs to the schema tidemark"),
        (
            "subscribed",
            Self::Subscribed,
            "logical replication fills it, and calls no statement trigger: add the feed where the rows are written",
        ),
        (
            "hidden_rows",
            Self::HiddenRows,
            "row-level security hides rows from this account: add the feed as the table's owner",
        ),
        ("no_trigger", Self::NoTrigger, "this account may not create triggers on it: GRANT SELECT, TRIGGER ON it"),
        ("no_select", Self::NoSelect, "this account may not read it: GRANT SELECT, TRIGGER ON it"),
    ];

    /// The reason in one word.
    pub(super) fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, obstacle, _)| *obstacle == self).map_or("unknown", |(word, ..)| word)
    }

    /// The word that `tidemark.table_obstacle()` and [`super::statements`] use.
    pub(super) fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, ..)| *known == word).map(|(_, obstacle, _)| *obstacle)
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Self::ALL.iter().find(|(_, obstacle, _)| obstacle == self).map(|(.., text)| *text);
        formatter.write_str(text.unwrap_or_default())
    }
}
