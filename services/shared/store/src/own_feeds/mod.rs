//! Feeds of the user's own: the number of rows of any table, or of those that match a filter.
//!
//! Triggers on the table count in the writer's own transaction, and never make it fail. What runs in them belongs to the account that added the feed, with that
//! account's rights: writers need none, and cannot count by themselves (ADR 12). Each call is one transaction: it does all of it, or nothing.

mod change;
mod error;
mod filter;
mod problem;
mod statements;
mod sync;
mod triggers;
mod upgrade;

use std::str::FromStr;

use sqlx::Connection;

use crate::{DatabaseUrl, connection};

pub use change::{add_own_feed, remove_own_feed};
pub use error::{Obstacle, OwnFeedError};
pub use problem::FeedProblem;
pub(crate) use problem::ProblemWord;
pub use sync::{Change, sync_own_feeds};
pub(crate) use upgrade::upgrade_functions;

/// Longest name, bytes: that of its trigger `feed_NAME_truncated` is 15 longer, and has 63.
const MAX_NAME: usize = 48;

/// What a feed follows when tables are renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// The table that was counted when it was added, whatever it is called.
    Table,
    /// The name: a table that is put in the place of another is the one that is meant.
    Name,
}

impl Follow {
    const ALL: [Self; 2] = [Self::Table, Self::Name];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Name => "name",
        }
    }
}

impl FromStr for Follow {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        Self::ALL.into_iter().find(|follow| follow.as_str() == word).ok_or(UnknownWord)
    }
}

impl TryFrom<String> for Follow {
    type Error = UnknownWord;

    fn try_from(word: String) -> Result<Self, UnknownWord> {
        word.parse()
    }
}

/// A word that this code does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is neither `table` nor `name`")]
pub struct UnknownWord;

/// A feed as the user wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnFeed {
    name: String,
    table: String,
    filter: Option<String>,
    follow: Follow,
}

impl OwnFeed {
    /// Checks what can be checked without a database. The table is named as in SQL, with its schema; the filter is a condition over its columns.
    ///
    /// # Errors
    /// [`OwnFeedError::Name`], [`OwnFeedError::TableName`], [`OwnFeedError::Filter`].
    pub fn new(name: &str, table: &str, filter: Option<&str>, follow: Follow) -> Result<Self, OwnFeedError> {
        let filter = filter.map(str::trim);
        let is_name = name.len() <= MAX_NAME
            && name.starts_with(|first: char| first.is_ascii_lowercase())
            && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
        if !is_name {
            return Err(OwnFeedError::Name(name.to_owned()));
        }
        // The driver ends a text at a zero: what stands behind it would never be looked at.
        if table.contains('\0') || !table.contains('.') {
            return Err(OwnFeedError::TableName(table.to_owned()));
        }
        if filter.is_some_and(|filter| filter.is_empty() || filter.contains('\0')) {
            return Err(OwnFeedError::Filter("it is empty, or has a character that no text can have".into()));
        }
        Ok(Self { name: name.to_owned(), table: table.to_owned(), filter: filter.map(str::to_owned), follow })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// What was added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// The table, as SQL names it.
    pub table: String,
    /// The rows that are counted by now.
    pub count: u64,
    /// Whether changes are counted too in sessions that replay others' (`session_replication_role = replica`): only the owner of a table can have that.
    pub counts_replays: bool,
    /// Whether a limit of temporary files is set on the server: large statements on the table write more of them from now on.
    pub limits_temporary_files: bool,
}

/// A feed that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledFeed {
    /// Its name.
    pub name: String,
    /// The table as SQL names it, or as it was called when it is gone.
    pub table: String,
    /// The condition, as the user wrote it.
    pub filter: Option<String>,
    /// Whose list it is on; `None`: somebody added it by hand.
    pub owner: Option<String>,
    /// The rows counted. Below zero the count is wrong: something changed the table unseen.
    pub count: i64,
    /// Whether it follows its table or the table's name.
    pub follow: Follow,
    /// Why the count is not right any more.
    pub problem: Option<FeedProblem>,
    /// The SQLSTATE by which the filter failed.
    pub failure: Option<String>,
}

/// The feeds of users' tables in a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledFeeds {
    /// By name.
    pub feeds: Vec<InstalledFeed>,
    /// Whether transactions can be prepared on this server: then changes of these tables are not notified, and seen within 200 ms.
    pub prepares_transactions: bool,
}

/// All feeds of users' tables, and whether they are right.
///
/// # Errors
/// [`OwnFeedError`].
pub async fn own_feeds(database: &DatabaseUrl) -> Result<InstalledFeeds, OwnFeedError> {
    let mut connection = connection::connect_for_command(database, "tidemark feed").await?;
    let read = async {
        let mut transaction = connection.begin_with(statements::BEGIN).await?;
        let feeds = statements::list(&mut transaction).await?;
        let prepares_transactions = statements::prepares_transactions(&mut transaction).await?;
        transaction.commit().await?;
        Ok(InstalledFeeds { feeds, prepares_transactions })
    };
    let feeds = read.await.map_err(|error| OwnFeedError::of(error, "read the list"))?;
    connection::close(Some(connection)).await;
    Ok(feeds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_feed_is_refused_before_the_database_is_asked() {
        let longest = "x".repeat(MAX_NAME);
        let feed = OwnFeed::new(&longest, "public.orders", Some(" status = 'open' "), Follow::Name).unwrap();
        assert_eq!((feed.name(), feed.filter.as_deref()), (longest.as_str(), Some("status = 'open'")));
        for name in ["", "Orders", "1st", "-x", "or ders", "orders;", "\"x\"", &"x".repeat(MAX_NAME + 1)] {
            assert!(
                matches!(OwnFeed::new(name, "public.orders", None, Follow::Table), Err(OwnFeedError::Name(_))),
                "{name}"
            );
        }
        for table in ["orders", "", "public.or\0ders"] {
            assert!(
                matches!(OwnFeed::new("orders", table, None, Follow::Table), Err(OwnFeedError::TableName(_))),
                "{table}"
            );
        }
        for filter in ["", "  ", "true\0"] {
            let refused = OwnFeed::new("orders", "public.orders", Some(filter), Follow::Table);
            assert!(matches!(refused, Err(OwnFeedError::Filter(_))), "{filter:?}");
        }
    }
}
