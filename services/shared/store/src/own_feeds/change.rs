//! Adds and removes feeds, each in one transaction.

use sqlx::{Connection, PgConnection, Postgres, Transaction};

use super::{Added, Obstacle, OwnFeed, OwnFeedError, error::Similar, filter, statements, triggers};
use crate::{
    DatabaseUrl,
    connection::{self, sqlstate},
};

/// Adds a feed, and counts what is there. Whoever writes to the table waits for the count, about 0.1 s for a million rows.
///
/// # Errors
/// [`OwnFeedError`]; nothing was changed then.
pub async fn add_own_feed(database: &DatabaseUrl, feed: &OwnFeed) -> Result<Added, OwnFeedError> {
    let mut connection = connection::connect_for_command(database, "tidemark feed").await?;
    let mut transaction = begin(&mut connection).await?;
    let added = add(&mut transaction, feed, None).await?;
    commit(transaction).await?;
    connection::close(Some(connection)).await;
    Ok(added)
}

/// Removes a feed, whoever added it. Its table may be gone.
///
/// # Errors
/// [`OwnFeedError`]; nothing was changed then.
pub async fn remove_own_feed(database: &DatabaseUrl, name: &str) -> Result<(), OwnFeedError> {
    let mut connection = connection::connect_for_command(database, "tidemark feed").await?;
    let mut transaction = begin(&mut connection).await?;
    remove(&mut transaction, name).await?;
    commit(transaction).await?;
    connection::close(Some(connection)).await;
    Ok(())
}

pub(super) async fn begin(connection: &mut PgConnection) -> Result<Transaction<'_, Postgres>, OwnFeedError> {
    connection.begin_with(statements::BEGIN).await.map_err(|error| OwnFeedError::of(error, "begin"))
}

pub(super) async fn commit(transaction: Transaction<'_, Postgres>) -> Result<(), OwnFeedError> {
    transaction.commit().await.map_err(|error| OwnFeedError::of(error, "commit"))
}

/// Adds a feed on the list of this owner.
pub(super) async fn add(
    connection: &mut PgConnection,
    feed: &OwnFeed,
    owner: Option<&str>,
) -> Result<Added, OwnFeedError> {
    let table = countable(connection, &feed.table).await?;
    let (name, on) = (feed.name.as_str(), table.name.as_str());
    let failed = |action| move |error| OwnFeedError::of_feed(error, name, on, action);
    statements::record(connection, feed, on, owner).await.map_err(failed("record the feed"))?;
    let condition = match &feed.filter {
        Some(filter) => Some(filter::judge(connection, name, on, filter).await?),
        None => None,
    };
    if let Some(condition) = &condition {
        let create = triggers::create_filter(connection, name, on, &condition.body()).await;
        create.map_err(|error| OwnFeedError::of_filter_function(error, name))?;
    }
    let install = async {
        triggers::create_function(connection, name, condition.is_some()).await?;
        triggers::install(connection, name, &table, condition.is_some()).await
    };
    install.await.map_err(failed("create the triggers"))?;
    // Once more under the lock: until then it could become another table.
    countable(connection, on).await?;
    let rows = statements::count(connection, name, on, condition.as_ref()).await.map_err(|error| match condition {
        // It fails on a row that is there.
        Some(_) => OwnFeedError::of_filter(error),
        None => OwnFeedError::of_feed(error, name, on, "count the rows"),
    })?;
    if rows.counted != rows.meant {
        return Err(OwnFeedError::Filter(format!(
            "triggers would count {} rows of {on} by it, and the table has {} for which it holds",
            rows.counted, rows.meant
        )));
    }
    let begin = async {
        statements::begin_with(connection, name, rows.counted).await?;
        statements::limits_temporary_files(connection).await
    };
    let limits_temporary_files = begin.await.map_err(failed("count the rows"))?;
    let count = rows.counted.unsigned_abs();
    Ok(Added { table: table.name, count, counts_replays: table.owned, limits_temporary_files })
}

/// Removes a feed.
pub(super) async fn remove(connection: &mut PgConnection, name: &str) -> Result<(), OwnFeedError> {
    let recorded =
        statements::recorded(connection, name, None).await.map_err(|error| OwnFeedError::of(error, "look"))?;
    let Some(recorded) = recorded else { return Err(OwnFeedError::Unknown(name.to_owned())) };
    let failed = |error| OwnFeedError::of_feed(error, name, &recorded.table, "remove the feed");
    statements::remove(connection, name).await.map_err(failed)
}

/// The table of this name, if its rows can be counted.
async fn countable(connection: &mut PgConnection, name: &str) -> Result<statements::Table, OwnFeedError> {
    let table = statements::table(connection, name).await.map_err(|error| match sqlstate(&error).as_deref() {
        // A name that is none, or one of another database.
        Some("42602" | "42601" | "0A000") => OwnFeedError::TableName(name.to_owned()),
        _ => OwnFeedError::of(error, "look for the table"),
    })?;
    let Some(table) = table else {
        let similar = statements::similar_table(connection, name).await;
        let similar = similar.map_err(|error| match sqlstate(&error).as_deref() {
            // Postgres 18 finds no table where earlier versions find that it is no name.
            Some("22023") => OwnFeedError::TableName(name.to_owned()),
            _ => OwnFeedError::of(error, "look for the table"),
        })?;
        return Err(OwnFeedError::UnknownTable { name: name.to_owned(), similar: Similar(similar) });
    };
    match table.obstacle.as_deref().and_then(Obstacle::parse) {
        Some(obstacle) => Err(OwnFeedError::Obstacle { table: table.name, obstacle }),
        None => Ok(table),
    }
}
