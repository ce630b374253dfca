//! Feeds of the user's own: the number of rows of any table, or of those that match a filter.
//!
//! Triggers on the table count in the writer's own transaction. What runs in them belongs to who added the feed, with that account's rights: writers need
//! none, and cannot count by themselves (ADR 12). Each call is one transaction: it does all of it, or nothing.

mod change;
mod error;
mod filter;
mod statements;
mod sync;

use std::fmt;

use crate::{DatabaseUrl, connection};

pub use change::{add_own_feed, remove_own_feed};
pub use error::{Obstacle, OwnFeedError};
pub use sync::{Change, sync_own_feeds};

/// Longest name, bytes: that of its trigger `feed_NAME_truncated` is 15 longer, and has 63.
const MAX_NAME: usize = 48;

/// A feed as the user wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnFeed {
    name: String,
    table: String,
    filter: Option<String>,
}

impl OwnFeed {
    /// Checks what can be checked without a database. The table is named as in SQL, with its schema; the filter is a condition over its columns.
    ///
    /// # Errors
    /// [`OwnFeedError::Name`], [`OwnFeedError::TableName`], [`OwnFeedError::Filter`].
    pub fn new(name: &str, table: &str, filter: Option<&str>) -> Result<Self, OwnFeedError> {
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
        Ok(Self { name: name.to_owned(), table: table.to_owned(), filter: filter.map(str::to_owned) })
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
}

/// A feed that is there.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
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
    /// Why the count is not right any more.
    #[sqlx(try_from = "Option<String>")]
    pub trouble: Trouble,
}

/// What is wrong with a feed, if anything is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    None,
    /// The table was dropped.
    Gone,
    /// A trigger is missing or disabled.
    SwitchedOff,
    /// The table became one whose rows cannot be counted.
    Uncounted(Obstacle),
}

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => formatter.write_str("ok"),
            Self::Gone => formatter.write_str("the table is gone"),
            Self::SwitchedOff => formatter.write_str("a trigger is missing or disabled"),
            Self::Uncounted(obstacle) => obstacle.fmt(formatter),
        }
    }
}

impl TryFrom<Option<String>> for Trouble {
    type Error = UnknownWord;

    fn try_from(word: Option<String>) -> Result<Self, UnknownWord> {
        Ok(match word.as_deref() {
            None => Self::None,
            Some("gone") => Self::Gone,
            Some("switched_off") => Self::SwitchedOff,
            Some(word) => Self::Uncounted(Obstacle::parse(word).ok_or(UnknownWord)?),
        })
    }
}

/// A statement of ours says what this code does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the statement answered with an unknown word")]
pub struct UnknownWord;

/// All feeds of the user's own, by name.
///
/// # Errors
/// [`OwnFeedError`].
pub async fn own_feeds(database: &DatabaseUrl) -> Result<Vec<InstalledFeed>, OwnFeedError> {
    let mut connection = connection::connect_limited(database, "tidemark feed").await?;
    let feeds = statements::list(&mut connection).await;
    connection::close(Some(connection)).await;
    feeds.map_err(|error| OwnFeedError::of(error, "read the list"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_feed_is_refused_before_the_database_is_asked() {
        let longest = "x".repeat(MAX_NAME);
        let feed = OwnFeed::new(&longest, "public.orders", Some(" status = 'open' ")).unwrap();
        assert_eq!((feed.name(), feed.filter.as_deref()), (longest.as_str(), Some("status = 'open'")));
        for name in ["", "Orders", "1st", "-x", "or ders", "orders;", "\"x\"", &"x".repeat(MAX_NAME + 1)] {
            assert!(matches!(OwnFeed::new(name, "public.orders", None), Err(OwnFeedError::Name(_))), "{name}");
        }
        for table in ["orders", "", "public.or\0ders"] {
            assert!(matches!(OwnFeed::new("orders", table, None), Err(OwnFeedError::TableName(_))), "{table}");
        }
        for filter in ["", "  ", "true\0"] {
            let refused = OwnFeed::new("orders", "public.orders", Some(filter));
            assert!(matches!(refused, Err(OwnFeedError::Filter(_))), "{filter:?}");
        }
    }
}
