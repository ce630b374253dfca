//! Brings the schema up to date.

use std::borrow::Cow;

use sqlx::{Connection, migrate::Migrator};

use crate::{DatabaseUrl, connection};

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
    Connect(#[source] connection::ConnectError),
    /// A migration failed; the ones before it stay applied.
    #[error("failed to apply the migrations")]
    Apply(#[source] sqlx::migrate::MigrateError),
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
