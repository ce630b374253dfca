//! Brings the feeds of one list into agreement with it.

use super::{OwnFeed, OwnFeedError, change, statements};
use crate::{DatabaseUrl, connection};

/// What was done with a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was missing.
    Added,
    /// It counted something else, or was not right any more.
    Replaced,
    /// It is as listed.
    Kept,
    /// It is no longer listed.
    Removed,
}

/// Adds what is missing, replaces what differs or is not right any more, and removes what this owner's earlier lists had and this one has not. What others added stays: by hand, or
/// from the list of another owner. Each feed is a transaction of its own, and one that fails does not hold up the rest. `tell` hears of each.
///
/// # Errors
/// [`OwnFeedError`] if the database cannot be worked with at all.
pub async fn sync_own_feeds(
    database: &DatabaseUrl,
    owner: &str,
    wanted: &[OwnFeed],
    mut tell: impl FnMut(&str, Result<Change, OwnFeedError>),
) -> Result<(), OwnFeedError> {
    let mut connection = connection::connect_for_command(database, "tidemark feed").await?;
    let known = {
        let mut transaction = change::begin(&mut connection).await?;
        let known = statements::owned_by(&mut transaction, owner).await;
        change::commit(transaction).await?;
        known.map_err(|error| OwnFeedError::of(error, "read the list"))?
    };
    // First, so that a name or a table is free.
    let unlisted = known.iter().filter(|name| !wanted.iter().any(|feed| feed.name == **name));
    for (name, feed) in unlisted.map(|name| (name, None)).chain(wanted.iter().map(|feed| (&feed.name, Some(feed)))) {
        let mut transaction = change::begin(&mut connection).await?;
        let outcome = match feed {
            None => change::remove(&mut transaction, name).await.map(|()| Change::Removed),
            Some(feed) => bring(&mut transaction, feed, owner).await,
        };
        match outcome {
            Ok(done) => {
                change::commit(transaction).await?;
                tell(name, Ok(done));
            }
            Err(error) if error.is_of_one_feed() => {
                transaction.rollback().await.map_err(|error| OwnFeedError::of(error, "roll back"))?;
                tell(name, Err(error));
            }
            Err(error) => return Err(error),
        }
    }
    connection::close(Some(connection)).await;
    Ok(())
}

/// Makes a feed be as it is listed.
async fn bring(connection: &mut sqlx::PgConnection, feed: &OwnFeed, owner: &str) -> Result<Change, OwnFeedError> {
    let recorded = statements::recorded(connection, &feed.name, Some(feed)).await;
    match recorded.map_err(|error| OwnFeedError::of(error, "look"))? {
        None => change::add(connection, feed, Some(owner)).await.map(|_| Change::Added),
        Some(recorded) if recorded.same => Ok(Change::Kept),
        Some(recorded) if recorded.owner.as_deref() != Some(owner) => Err(OwnFeedError::NotOurs(feed.name.clone())),
        Some(_) => {
            change::remove(connection, &feed.name).await?;
            change::add(connection, feed, Some(owner)).await.map(|_| Change::Replaced)
        }
    }
}
