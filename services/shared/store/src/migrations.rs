//! Brings the schema up to date.

use std::{borrow::Cow, fmt, time::Duration};

use sqlx::{
    Connection, FromRow, PgConnection,
    migrate::{self, Migration, Migrator},
};
use tokio::time::Instant;
use tracing::warn;

use crate::{
    DatabaseError, DatabaseUrl,
    connection::{self, ConnectError, sqlstate},
    own_feeds::upgrade_functions,
    transaction::{self, no_transaction_timeout},
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

/// How long [`migrate`] waits while another session migrates. A migration may take longer; a caller that gets the error
/// reports it and tries again.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// The transaction in which all pending migrations are applied. The server ends it after 10 s without a statement: the
/// client is gone then, and its locks go too.
const BEGIN: &str = concat!(
    "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = '10s'; ",
    no_transaction_timeout!()
);

/// The settings of each migration, which may change them for itself. A statement may take as long as it needs, but it may
/// wait for a lock for 10 s only, because writers queue behind it.
const SETTINGS: &str = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '10s'; \
    SET LOCAL standard_conforming_strings = on; SET LOCAL search_path = pg_catalog, pg_temp";

/// SQLSTATE of a lock that was not granted within `lock_timeout`.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// The table as the driver makes it. Its own `Migrator::run` migrates in tests, and did in version 0.1.
const CREATE_TABLE: &str = "
CREATE SCHEMA IF NOT EXISTS tidemark;
CREATE TABLE tidemark._sqlx_migrations (
  version bigint PRIMARY KEY,
  description text NOT NULL,
  installed_on timestamptz NOT NULL DEFAULT now(),
  success boolean NOT NULL,
  checksum bytea NOT NULL,
  execution_time bigint NOT NULL
)";

/// A query of the catalogue sees a table that another session has just made; `to_regclass` may not, in the same transaction.
const DATABASE: &str = "
SELECT current_database()::text,
  EXISTS (SELECT FROM pg_catalog.pg_tables WHERE schemaname = 'tidemark' AND tablename = '_sqlx_migrations')";

const INSERT: &str = "
INSERT INTO tidemark._sqlx_migrations (version, description, success, checksum, execution_time)
VALUES ($1, $2, true, $3, $4)";

/// The session that holds an advisory lock. The key is one bigint, which `pg_locks` shows as two halves.
const HOLDER: &str = "
SELECT pid, coalesce(application_name, '') AS application, coalesce(state, '') = 'idle' AS idle
FROM pg_locks LEFT JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND objsubid = 1
  AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND classid::bigint = ($1::bigint >> 32) & 4294967295 AND objid::bigint = $1::bigint & 4294967295
LIMIT 1";

/// Why the schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database could not be reached or refused the connection.
    #[error(transparent)]
    Connect(ConnectError),
    /// The table of applied migrations could not be read.
    #[error("failed to read which migrations are applied")]
    Read(#[source] DatabaseError),
    /// Another session holds the lock. Nothing was applied.
    #[error("could not lock the migrations within {LOCK_TIMEOUT:?} because {0}")]
    Locked(LockHolder),
    /// A migration failed, or one that was applied has another content in this build. Nothing was applied.
    #[error("failed to apply the migrations")]
    Apply(#[source] DatabaseError),
}

impl MigrateError {
    /// Whether the same call may succeed later although nobody repairs anything: the server is not there yet, starts, restarts or is full.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Connect(ConnectError::TimedOut(_)) => true,
            // Any refusal but that of the account: whoever starts the database may still have to make it.
            Self::Connect(ConnectError::Refused(error)) => !sqlstate(error).is_some_and(|code| code.starts_with("28")),
            Self::Read(error) | Self::Apply(error) => connection::is_lost(error),
            Self::Locked(_) => false,
        }
    }

    fn read(error: sqlx::Error) -> Self {
        Self::Read(error.into())
    }

    fn apply(error: impl Into<DatabaseError>) -> Self {
        Self::Apply(error.into())
    }
}

/// The session that holds the lock of the migrations, as far as the server shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default, FromRow)]
pub struct LockHolder {
    /// Process of the server; 0 if the session has just ended.
    pid: i32,
    application: String,
    /// It is in no transaction. [`migrate`] holds the lock only within one.
    idle: bool,
}

impl fmt::Display for LockHolder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, application, idle } = self;
        match (pid, idle) {
            (0, _) => write!(formatter, "another session held it; retry"),
            (_, false) => write!(
                formatter,
                "another migration is running (process {pid} of the server, application {application:?}); \
                 retry when it has ended"
            ),
            (_, true) => write!(
                formatter,
                "an idle session holds the lock (process {pid} of the server, application {application:?}), as after a \
                 migration of version 0.1 through a transaction pooler; SELECT pg_terminate_backend({pid}) releases it"
            ),
        }
    }
}

/// A row of the table of applied migrations.
#[derive(FromRow)]
struct Applied {
    version: i64,
    success: bool,
    checksum: Vec<u8>,
}

/// What a database has.
struct State {
    database: String,
    has_table: bool,
    applied: Vec<Applied>,
}

impl State {
    async fn read(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let (database, has_table) = sqlx::query_as(DATABASE).persistent(false).fetch_one(&mut *connection).await?;
        let mut applied = Vec::new();
        if has_table {
            let list = "SELECT version, success, checksum FROM tidemark._sqlx_migrations ORDER BY version";
            applied = sqlx::query_as(list).persistent(false).fetch_all(connection).await?;
        }
        Ok(Self { database, has_table, applied })
    }

    /// The migrations that are not applied, oldest first.
    ///
    /// # Errors
    /// If one that is applied has another content in this build, or was applied in part.
    fn pending(&self) -> Result<Vec<&'static Migration>, migrate::MigrateError> {
        if let Some(partial) = self.applied.iter().find(|applied| !applied.success) {
            return Err(migrate::MigrateError::Dirty(partial.version));
        }
        let mut pending = Vec::new();
        for migration in MIGRATOR.iter() {
            match self.applied.iter().find(|applied| applied.version == migration.version) {
                None => pending.push(migration),
                Some(applied) if applied.checksum == *migration.checksum => {}
                Some(_) => return Err(migrate::MigrateError::VersionMismatch(migration.version)),
            }
        }
        Ok(pending)
    }
}

/// How many migrations of this build the database lacks. A database that nobody has migrated so far lacks all.
///
/// # Errors
/// [`MigrateError`]; it is safe to call again.
pub async fn pending_migrations(database: &DatabaseUrl) -> Result<usize, MigrateError> {
    let connection = connection::connect_for_command(database, "tidemark schema");
    let mut connection = connection.await.map_err(MigrateError::Connect)?;
    let state = read_state(&mut connection).await.map_err(MigrateError::read)?;
    connection::close(Some(connection)).await;
    let has = |version| state.applied.iter().any(|applied| applied.success && applied.version == version);
    Ok(MIGRATOR.iter().filter(|migration| !has(migration.version)).count())
}

/// Applies the migrations that the database lacks: all of them, or none. Replicas that start together wait for each other at
/// an advisory lock. This only reads if nothing is to be applied.
///
/// # Errors
/// [`MigrateError`]; it is safe to call again.
pub async fn migrate(database: &DatabaseUrl) -> Result<(), MigrateError> {
    let connection = connection::connect_for_command(database, "tidemark migrate");
    let mut connection = connection.await.map_err(MigrateError::Connect)?;
    migrate_within(&mut connection, LOCK_TIMEOUT).await?;
    if let Err(error) = upgrade_functions(&mut connection).await {
        warn!(error = &error as &dyn std::error::Error, "could not look for filters that have the form of version 0.1");
    }
    connection::close(Some(connection)).await;
    Ok(())
}

async fn migrate_within(connection: &mut PgConnection, lock_timeout: Duration) -> Result<(), MigrateError> {
    let state = read_state(connection).await.map_err(MigrateError::read)?;
    if state.pending().map_err(MigrateError::apply)?.is_empty() {
        return Ok(());
    }
    let mut transaction = connection.begin_with(BEGIN).await.map_err(MigrateError::apply)?;
    let key = lock_key(&state.database);
    match lock(&mut transaction, key, lock_timeout).await {
        Ok(()) => {}
        Err(error) if sqlstate(&error).as_deref() == Some(LOCK_NOT_AVAILABLE) => {
            transaction.rollback().await.map_err(MigrateError::apply)?;
            return Err(MigrateError::Locked(holder(connection, key).await.map_err(MigrateError::read)?));
        }
        Err(error) => return Err(MigrateError::apply(error)),
    }
    // Another session may have applied them while this one waited.
    let state = State::read(&mut transaction).await.map_err(MigrateError::read)?;
    let pending = state.pending().map_err(MigrateError::apply)?;
    if !state.has_table {
        sqlx::raw_sql(CREATE_TABLE).execute(&mut *transaction).await.map_err(MigrateError::apply)?;
    }
    for migration in pending {
        apply(&mut transaction, migration)
            .await
            .map_err(|error| MigrateError::apply(migrate::MigrateError::ExecuteMigration(error, migration.version)))?;
    }
    transaction.commit().await.map_err(MigrateError::apply)
}

async fn read_state(connection: &mut PgConnection) -> Result<State, sqlx::Error> {
    let mut transaction = transaction::begin(connection).await?;
    let state = State::read(&mut transaction).await;
    transaction::end(transaction, state).await
}

async fn lock(connection: &mut PgConnection, key: i64, timeout: Duration) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(SETTINGS).execute(&mut *connection).await?;
    sqlx::query("SELECT set_config('lock_timeout', $1, true)")
        .bind(timeout.as_millis().to_string())
        .persistent(false)
        .execute(&mut *connection)
        .await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(key).persistent(false).execute(connection).await?;
    Ok(())
}

async fn apply(connection: &mut PgConnection, migration: &Migration) -> Result<(), sqlx::Error> {
    let began = Instant::now();
    sqlx::raw_sql(SETTINGS).execute(&mut *connection).await?;
    sqlx::raw_sql(migration.sql.clone()).execute(&mut *connection).await?;
    sqlx::query(INSERT)
        .bind(migration.version)
        .bind(&*migration.description)
        .bind(&*migration.checksum)
        .bind(i64::try_from(began.elapsed().as_nanos()).unwrap_or(i64::MAX))
        .persistent(false)
        .execute(connection)
        .await?;
    Ok(())
}

async fn holder(connection: &mut PgConnection, key: i64) -> Result<LockHolder, sqlx::Error> {
    let mut transaction = transaction::begin(connection).await?;
    let holder = sqlx::query_as(HOLDER).bind(key).persistent(false).fetch_optional(&mut *transaction).await;
    transaction::end(transaction, holder).await.map(Option::unwrap_or_default)
}

/// The driver's key for this database: a migration of version 0.1, which the driver ran, and one of today exclude each other.
fn lock_key(database: &str) -> i64 {
    0x3d32_ad9e * i64::from(crc32(database.as_bytes()))
}

/// CRC-32 as in gzip.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use sqlx::{
        ConnectOptions,
        migrate::Migrate,
        postgres::{PgConnectOptions, PgPoolOptions},
    };

    use super::*;

    #[test]
    fn each_migration_can_run_in_the_transaction_of_all() {
        for migration in MIGRATOR.iter() {
            assert!(!migration.no_tx && !migration.migration_type.is_down_migration(), "{}", migration.version);
        }
    }

    #[test]
    fn the_checksum_of_the_lock_key_is_that_of_gzip() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[sqlx::test(migrations = false)]
    async fn a_migration_of_version_0_1_that_runs_or_was_left_in_a_pooler_is_named(
        _: PgPoolOptions,
        options: PgConnectOptions,
    ) {
        let mut old = options.clone().application_name("old migrate").connect().await.unwrap();
        let mut new = options.connect().await.unwrap();
        Migrate::lock(&mut old).await.unwrap();
        let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut old).await.unwrap();

        let refused = async |connection: &mut PgConnection| {
            let began = Instant::now();
            let error = migrate_within(connection, Duration::from_millis(100)).await.unwrap_err();
            assert!(!error.is_passing() && began.elapsed() < Duration::from_secs(10), "{error}");
            error.to_string()
        };
        let idle = refused(&mut new).await;
        assert!(
            idle.contains(r#"application "old migrate""#) && idle.contains(&format!("pg_terminate_backend({pid})")),
            "{idle}"
        );
        let mut transaction = old.begin().await.unwrap();
        sqlx::query("SELECT 1").execute(&mut *transaction).await.unwrap();
        let running = refused(&mut new).await;
        assert!(running.contains(&format!("another migration is running (process {pid}")), "{running}");
        transaction.commit().await.unwrap();

        Migrate::unlock(&mut old).await.unwrap();
        migrate_within(&mut new, Duration::from_millis(100)).await.unwrap();
        Migrate::lock(&mut old).await.unwrap();
        migrate_within(&mut new, Duration::from_millis(100)).await.unwrap();
    }
}
