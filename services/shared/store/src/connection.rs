//! Opens connections, and sorts what the database answers when it refuses.

use std::time::Duration;

use sqlx::{
    ConnectOptions, Connection, PgConnection,
    postgres::{PgConnectOptions, PgPool, PgPoolOptions},
};
use tokio::time::timeout;

use crate::{DatabaseUrl, database_error::DatabaseError};

/// A connection within one data centre takes milliseconds; one that takes longer than this is dead or overloaded, and
/// callers have 5 s in all.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A command is given once: somebody would rather wait than repeat it while the machine is busy.
const COMMAND_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It took longer than this: one second for a service, five for a command.
    #[error("failed to connect to the database within {0:?}")]
    TimedOut(Duration),
    /// The server could not be reached, or refused.
    #[error("failed to connect to the database")]
    Refused(#[source] DatabaseError),
}

impl From<sqlx::Error> for ConnectError {
    fn from(error: sqlx::Error) -> Self {
        Self::Refused(error.into())
    }
}

/// Why an exchange of a task with the database failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("a statement failed")]
    Statement(#[from] DatabaseError),
}

impl From<sqlx::Error> for ExchangeError {
    fn from(error: sqlx::Error) -> Self {
        Self::Statement(error.into())
    }
}

/// The driver's options for a connection that says who it is.
pub(crate) fn options(database: &DatabaseUrl, name: &str) -> PgConnectOptions {
    let options = database.options().clone().application_name(name).disable_statement_logging();
    // Poolers refuse start-up parameters that they do not know, and floating point numbers come in binary.
    options.extra_float_digits(None)
}

/// Opens one connection. It sets nothing and prepares nothing for the session: behind a pooler in transaction mode the server
/// connection belongs to it for one transaction at a time. Limits and isolation are the transaction's
/// ([`crate::transaction`]).
pub(crate) async fn connect(database: &DatabaseUrl, name: &str) -> Result<PgConnection, ConnectError> {
    connect_within(CONNECT_TIMEOUT, database, name).await
}

/// The same for a command.
pub(crate) async fn connect_for_command(database: &DatabaseUrl, name: &str) -> Result<PgConnection, ConnectError> {
    connect_within(COMMAND_CONNECT_TIMEOUT, database, name).await
}

async fn connect_within(limit: Duration, database: &DatabaseUrl, name: &str) -> Result<PgConnection, ConnectError> {
    match timeout(limit, options(database, name).connect()).await {
        Ok(connection) => connection.map_err(ConnectError::from),
        Err(_) => Err(ConnectError::TimedOut(limit)),
    }
}

/// A pool for short reads on demand, opened when first used.
pub(crate) fn pool(database: &DatabaseUrl, name: &str, max_connections: u32, acquire_timeout: Duration) -> PgPool {
    PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(acquire_timeout)
        .connect_lazy_with(options(database, name))
}

/// The five characters by which Postgres names an error, if the error came from the database itself.
pub(crate) fn sqlstate(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(|code| code.into_owned())
}

/// Undefined table, function, schema: nobody has migrated this database so far.
pub(crate) fn is_undefined(error: &sqlx::Error) -> bool {
    matches!(sqlstate(error).as_deref(), Some("42P01" | "42883" | "3F000"))
}

/// The SQLSTATE, if the error is about the data: class 22 (data exception) or 23 (integrity constraint).
pub(crate) fn data_error(error: &sqlx::Error) -> Option<String> {
    sqlstate(error).filter(|code| code.starts_with("22") || code.starts_with("23"))
}

/// Whether the connection broke, or the server ended it (class 57: it stops, starts, or somebody cancelled), and not the statement.
pub(crate) fn is_lost(error: &sqlx::Error) -> bool {
    sqlstate(error)
        .map_or(matches!(error, sqlx::Error::Io(_) | sqlx::Error::Protocol(_)), |code| code.starts_with("57"))
}

/// Ends a connection of ours politely, in the time that a shutdown has for it.
pub(crate) async fn close(connection: Option<PgConnection>) {
    if let Some(connection) = connection {
        // If the server does not answer, dropping the socket tells it the same.
        let _ = timeout(Duration::from_millis(200), connection.close()).await;
    }
}
