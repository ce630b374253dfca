//! Brings the schema up to date.

use std::borrow::Cow;

use sqlx::{Connection, migrate::Migrator};

use crate::{
    DatabaseUrl,
    connection::{self, ConnectError, sqlstate},
};

/// All migrations, oldest first.
///
/// The table of applied migrations lives in the schema `tidemark`, so that the project leaves nothing else in a database
/// that it shares. Migrations that this build does not know are ignored: a rollback to an older build must start.
///
/// The driver has setters for both, but a constant needs the fields, which it may rename in a minor version.
pub static MIGRATOR: Migrator = Migrator {
    migrations: match &EMBEDDED.migrations {
        Cow::Borrowed(migrations) => Cow::Borrowed(migrations),
        Cow::Owned(_) => Cow::Borrowed(&[]),
    },
    ignore_missing: true,
    table_name: Cow::Borrowed("tidemark._sqlx_migrations"),
    create_schemas: Cow::Borrowed(&[Cow::Borrowed("tidemark")]),
    locking: true,
    no_tx: false,
};

static EMBEDDED: Migrator = sqlx::migrate!();

/// Why the schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database could not be reached or refused the connection.
    #[error("failed to connect to the database")]
    Connect(#[source] ConnectError),
    /// The table of applied migrations could not be read.
    #[error("failed to read which migrations are applied")]
    Look(#[source] sqlx::Error),
    /// A migration failed; the ones before it stay applied.
    #[error("failed to apply the migrations")]
    Apply(#[source] sqlx::migrate::MigrateError),
}

impl MigrateError {
    /// Whether the same call may succeed later although nobody repairs anything: the server is not there yet, starts, restarts or is full.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Connect(ConnectError::TimedOut) => true,
            // Any refusal but that of the account: whoever starts the database may still have to make it.
            Self::Connect(ConnectError::Refused(error)) => !sqlstate(error).is_some_and(|code| code.starts_with("28")),
            Self::Look(error)
            | Self::Apply(sqlx::migrate::MigrateError::Execute(error))
            | Self::Apply(sqlx::migrate::MigrateError::ExecuteMigration(error, _)) => connection::is_lost(error),
            Self::Apply(_) => false,
        }
    }
}

/// How many migrations of this build the database lacks. A database that nobody has migrated so far lacks all.
///
/// # Errors
/// [`MigrateError`]; it is safe to call again.
pub async fn pending_migrations(database: &DatabaseUrl) -> Result<usize, MigrateError> {
    let mut connection =
        connection::connect_limited(database, "tidemark schema").await.map_err(MigrateError::Connect)?;
    let applied: Result<Vec<i64>, _> =
        sqlx::query_scalar("SELECT version FROM tidemark._sqlx_migrations WHERE success")
            .fetch_all(&mut connection)
            .await;
    let _ = connection.close().await;
    let applied = match applied {
        Err(error) if connection::is_undefined(&error) => Vec::new(),
        applied => applied.map_err(MigrateError::Look)?,
    };
    Ok(MIGRATOR.iter().filter(|migration| !applied.contains(&migration.version)).count())
}

/// Applies the migrations that the database lacks. Replicas that start together wait for each other at an advisory lock.
///
/// # Errors
/// [`MigrateError`]; it is safe to call again.
pub async fn migrate(database: &DatabaseUrl) -> Result<(), MigrateError> {
    let mut connection = connection::connect(database, "tidemark migrate").await.map_err(MigrateError::Connect)?;
    MIGRATOR.run_direct(None, &mut connection, false).await.map_err(MigrateError::Apply)?;
    // Saying goodbye is a courtesy to the server's log; the work is done.
    let _ = connection.close().await;
    Ok(())
}
