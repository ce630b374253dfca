//! The schema arrives once, whoever brings it, and a reader waits for it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has said what it found")]

mod common;

use common::{LONG, Stage, migrated, view_is};
use sqlx::{
    Executor,
    postgres::{PgConnectOptions, PgPoolOptions},
};

#[sqlx::test(migrations = false)]
async fn replicas_that_start_together_migrate_once_and_a_reader_waits_for_them(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let stage = Stage::new(pool, options);
    let reader = stage.reader(stage.config());
    let failures = async || stage.metric("tidemark_read_failures_total", "") > 0.0;
    test_support::wait_until(LONG, "a read without a schema has failed", failures).await;
    assert!(!reader.subscribe().borrow().database_up);

    let database = stage.database();
    tokio::join!(migrated(&database), migrated(&database), migrated(&database));
    view_is(&reader, "the reader sees the schema", |view| view.database_up).await;
    let reading = reader.reread().await.unwrap();
    assert_eq!(reading.history.store.len(), 16);
    assert_eq!(reading.feeds.len(), 2);
    let outside: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE nspname = 'public'",
    )
    .fetch_one(&stage.pool)
    .await
    .unwrap();
    assert_eq!(outside, 0, "everything lives in the schema tidemark");
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn an_older_build_starts_on_a_newer_schema(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    stage
        .pool
        .execute(
            "INSERT INTO tidemark._sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (999999, 'from the future', true, '', 0)",
        )
        .await
        .unwrap();
    migrated(&stage.database()).await;
    stage.end().await;
}
