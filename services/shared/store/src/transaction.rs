//! Transactions of ours. They run at READ COMMITTED whatever the database's default is, and what they set ends with them: behind a pooler in transaction mode
//! the next transaction on the same server connection may be somebody else's.
//!
//! For the same reason nothing is prepared under a name: every query of this crate is `.persistent(false)`, and runs inside a transaction, so that the
//! messages of one query reach one server connection.

use sqlx::{Connection, PgConnection, Postgres, Transaction};

/// Settings of a transaction without a block of its own: several statements that are sent as one text.
///
/// The server ends a statement after this time. Without it, every attempt of ours that gave up while a lock was held would leave a backend waiting, until the
/// server had no connections left.
macro_rules! one_transaction {
    ($statement:literal) => {
        concat!("SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = '3s'; ", $statement)
    };
}
pub(crate) use one_transaction;

/// Begins a transaction whose every statement has a new snapshot, and at most 3 s.
///
/// # Errors
/// Of the driver.
pub(crate) async fn begin(connection: &mut PgConnection) -> Result<Transaction<'_, Postgres>, sqlx::Error> {
    connection.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = '3s'").await
}
