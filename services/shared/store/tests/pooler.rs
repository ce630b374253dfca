//! Everything works through a real PgBouncer, and a program that gets the server connection next finds nothing of ours on it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has said what it found")]

mod common;
#[path = "common/load.rs"]
mod load;

use std::time::Duration;

use common::{LONG, Stage, a_backend_waits, count_is, migrated, view_is};
use load::Load;
use sqlx::{
    Connection, Executor, PgConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use store::{DatabaseUrl, Doorbell, ReaderConfig, migrate, pending_migrations};
use test_support::{PgBouncer, PoolMode, Proxy};
use tokio::time::{Instant, timeout};

/// A migration that is dead without the server's knowing of it is ended by the server within this time.
const ABANDONED: Duration = Duration::from_secs(10);

async fn pooler(mode: PoolMode) -> PgBouncer {
    PgBouncer::start(&std::env::var("DATABASE_URL").unwrap(), mode).await
}

impl Stage {
    /// The address of the database through the pooler.
    fn behind(&self, pooler: &PgBouncer) -> PgConnectOptions {
        self.options.clone().host("127.0.0.1").port(pooler.addr().port())
    }

    /// Checks the server connections of the pooler, all of them at the same time.
    async fn nothing_of_ours_is_left(&self, pooler: &PgBouncer) {
        // What the pooler itself sets for each client is left out, and the isolation, which each transaction sets.
        const LEFT: &str = "
            SELECT 'setting ' || name || ' = ' || setting FROM pg_settings WHERE source = 'session'
              AND name NOT IN ('application_name', 'client_encoding', 'DateStyle', 'TimeZone', 'standard_conforming_strings', 'transaction_isolation')
            UNION ALL SELECT 'prepared statement ' || name FROM pg_prepared_statements
            UNION ALL SELECT 'advisory lock ' || objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
            UNION ALL SELECT 'listens on ' || channel FROM pg_listening_channels() AS channel
            UNION ALL SELECT 'cursor ' || name FROM pg_cursors WHERE name <> ''
            UNION ALL SELECT 'temporary ' || relname FROM pg_class WHERE relnamespace = pg_my_temp_schema()";
        let mut pinned = Vec::new();
        for _ in 0..PgBouncer::POOL_SIZE {
            let mut client = PgConnection::connect_with(&self.behind(pooler).extra_float_digits(None)).await.unwrap();
            client.execute("BEGIN").await.unwrap();
            pinned.push(client);
        }
        let mut pids = Vec::new();
        for client in &mut pinned {
            let left: Vec<String> = sqlx::query_scalar(LEFT).persistent(false).fetch_all(&mut *client).await.unwrap();
            assert_eq!(left, Vec::<String>::new());
            let own = "SELECT pg_backend_pid(), current_setting('transaction_isolation')";
            let (pid, isolation): (i32, String) =
                sqlx::query_as(own).persistent(false).fetch_one(client).await.unwrap();
            assert_eq!(isolation, "read committed");
            pids.push(pid);
        }
        pids.dedup();
        assert_eq!(pids.len(), PgBouncer::POOL_SIZE, "each is another connection");
    }

    /// Uncommitted, so that a migration from an empty database waits in the middle.
    async fn schema_in_another_transaction(&self) -> PgConnection {
        let mut other = PgConnection::connect_with(&self.options).await.unwrap();
        other.execute("BEGIN; CREATE SCHEMA tidemark").await.unwrap();
        other
    }
}

async fn everything(pool: PgPoolOptions, options: PgConnectOptions, mode: PoolMode) {
    let stage = Stage::new(pool, options);
    let pooler = pooler(mode).await;
    let database: DatabaseUrl = stage.behind(&pooler).into();
    assert_ne!(pending_migrations(&database).await.unwrap(), 0);
    tokio::join!(migrated(&database), migrated(&database), migrated(&database));
    assert_eq!(pending_migrations(&database).await.unwrap(), 0);
    Load { database, listen: stage.database(), users: 0 }.run(&stage, 800).await;
    if mode == PoolMode::Transaction {
        stage.nothing_of_ours_is_left(&pooler).await;
    }
    stage.end().await;
}

#[sqlx::test(migrations = false)]
async fn all_parts_share_two_server_connections_and_leave_nothing_on_them(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    everything(pool, options, PoolMode::Transaction).await;
}

#[sqlx::test(migrations = false)]
async fn a_pooler_that_keeps_sessions_changes_nothing(pool: PgPoolOptions, options: PgConnectOptions) {
    everything(pool, options, PoolMode::Session).await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_reader_that_listens_through_a_pooler_says_so_and_reads_often(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let stage = Stage::new(pool, options);
    let pooler = pooler(PoolMode::Transaction).await;
    let database: DatabaseUrl = stage.behind(&pooler).into();
    let reader = stage.reader(ReaderConfig { listen: database.clone(), database, ..stage.config_without_poll() });
    view_is(&reader, "the pooler is detected", |view| view.doorbell == Doorbell::Swallowed).await;
    stage.insert("without a notification").await;
    let took = count_is(&reader, 1).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    stage.nothing_of_ours_is_left(&pooler).await;
    stage.end().await;
}

#[sqlx::test(migrations = false)]
async fn a_migration_whose_client_dies_in_the_middle_leaves_no_lock(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let pooler = pooler(PoolMode::Transaction).await;
    let behind: DatabaseUrl = stage.behind(&pooler).into();
    for cut in [true, false] {
        let proxy = Proxy::start(pooler.addr()).await.unwrap();
        let through = stage.behind(&pooler).port(proxy.addr().port()).into();
        let mut other = stage.schema_in_another_transaction().await;
        let dying = tokio::spawn(async move { migrate(&through).await });
        a_backend_waits(&stage.pool).await;
        if cut {
            proxy.cut();
        } else {
            proxy.freeze();
        }
        other.execute("ROLLBACK").await.unwrap();

        // It waits for a client that the server has to give up, and no longer.
        let began = Instant::now();
        timeout(LONG, migrate(&behind)).await.expect("it does not hang").unwrap();
        let limit = if cut { Duration::from_secs(5) } else { ABANDONED + Duration::from_secs(5) };
        assert!(began.elapsed() < limit, "{:?}", began.elapsed());
        assert_eq!(pending_migrations(&behind).await.unwrap(), 0);
        dying.abort();
        stage.pool.execute("DROP SCHEMA tidemark CASCADE").await.unwrap();
    }
    stage.end().await;
}
