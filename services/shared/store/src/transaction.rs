//! Transactions of ours. They run at READ COMMITTED and with their own limits whatever the defaults of the database and the role are, and what they set ends
//! with them: behind a pooler in transaction mode the next transaction on the same server connection may be somebody else's.
//!
//! For the same reason nothing is prepared under a name: every query of this crate is `.persistent(false)`, and runs inside a transaction, so that the
//! messages of one query reach one server connection.
//!
//! A default of `default_transaction_read_only` stays in force: administrators and hosting providers set it to stop writes, for example when a disk is almost
//! full, and on a standby it cannot be changed.

use sqlx::{
    Connection, FromRow, PgConnection, PgPool, Postgres, Transaction,
    pool::PoolConnection,
    postgres::{PgArguments, PgRow},
    query::QueryAs,
};

/// Settings of a transaction without a block of its own: several statements that are sent as one text.
///
/// The server ends a statement after 3 s. Without it, every attempt of ours that gave up while a lock was held would leave a backend waiting, until the
/// server had no connections left. A shorter `lock_timeout` would make reads fail while a migration holds a table for a moment.
macro_rules! one_transaction {
    ($statement:literal) => {
        concat!(
            "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = '3s'; SET LOCAL lock_timeout = 0; ",
            $statement
        )
    };
}
pub(crate) use one_transaction;

/// Takes away the limit that Postgres 17 and later have for a whole transaction, for one that may take any time: the last statement of its BEGIN.
macro_rules! no_transaction_timeout {
    () => {
        "SELECT pg_catalog.set_config('transaction_timeout', '0', true) WHERE pg_catalog.current_setting('transaction_timeout', true) IS NOT NULL"
    };
}
pub(crate) use no_transaction_timeout;

/// The same limits. Between two statements the server waits for 3 s: a client that is frozen keeps its locks for no longer. Functions of ours have string
/// constants with a backslash.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = '3s'; SET LOCAL lock_timeout = 0; \
    SET LOCAL idle_in_transaction_session_timeout = '3s'; SET LOCAL standard_conforming_strings = on";

/// Begins a transaction whose every statement has a new snapshot, and at most 3 s.
///
/// # Errors
/// Of the driver. The connection cannot be used again after one: the transaction may have begun.
pub(crate) async fn begin(connection: &mut PgConnection) -> Result<Transaction<'_, Postgres>, sqlx::Error> {
    connection.begin_with(BEGIN).await
}

/// Commits, or after an error of a statement rolls back, so that the connection can be used again and holds no locks: the driver alone would send the
/// ROLLBACK with the next statement.
///
/// # Errors
/// That of the statement, or of the commit.
pub(crate) async fn end<T>(
    transaction: Transaction<'_, Postgres>,
    result: Result<T, sqlx::Error>,
) -> Result<T, sqlx::Error> {
    match result {
        Ok(value) => transaction.commit().await.map(|()| value),
        Err(error) => {
            // If this fails, the next use of the connection fails too.
            let _ = transaction.rollback().await;
            Err(error)
        }
    }
}

/// All rows of one query, read in a transaction on a connection of the pool.
///
/// # Errors
/// Of the driver.
pub(crate) async fn fetch_all<T>(
    pool: &PgPool,
    query: QueryAs<'_, Postgres, T, PgArguments>,
) -> Result<Vec<T>, sqlx::Error>
where
    T: Send + Unpin + for<'r> FromRow<'r, PgRow>,
{
    let mut lease = Lease { connection: pool.acquire().await?, finished: false };
    let mut transaction = begin(&mut lease.connection).await?;
    let rows = query.persistent(false).fetch_all(&mut *transaction).await;
    let rows = end(transaction, rows).await;
    lease.finished = true;
    rows
}

/// A connection of a pool that goes back only after its transaction: a caller that gives up while one begins leaves it open, and the driver does not know.
struct Lease {
    connection: PoolConnection<Postgres>,
    finished: bool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.finished {
            self.connection.close_on_drop();
        }
    }
}
