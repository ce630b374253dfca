//! `app migrate`, and an app that waits for somebody else to migrate.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;

use std::process::Output;

use common::program::{LONG, Running, app, request, url};
use sqlx::{
    Executor, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use test_support::wait_until;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    time::timeout,
};

/// Runs `app migrate` without a page, to its end.
async fn migrate(url: &str) -> (Option<i32>, String) {
    let running = app(&[("DATABASE_URL", url), ("PAGE_DIR", "/nonexistent")]).arg("migrate").output();
    let Output { status, stdout: _, stderr } = timeout(LONG, running).await.unwrap().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

async fn texts(pool: &PgPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT count(*) FROM tidemark.texts").fetch_one(pool).await
}

#[sqlx::test(migrations = false)]
async fn migrate_waits_for_a_database_that_comes_later(pool: PgPoolOptions, options: PgConnectOptions) {
    let proxy = common::proxy(&options).await;
    proxy.cut();
    let url = url(&options, proxy.addr().port());
    let mut child = app(&[("DATABASE_URL", &url)]).arg("migrate").spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let said = timeout(LONG, lines.next_line()).await.unwrap().unwrap().unwrap();
    assert!(said.contains("waiting for the database"), "{said}");
    assert_eq!(child.try_wait().unwrap(), None);

    proxy.restore();
    let status = timeout(LONG, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(texts(&pool.connect_lazy_with(options)).await.unwrap(), 0);
}

#[sqlx::test(migrations = false)]
async fn two_that_migrate_at_once_both_succeed_and_so_does_one_that_comes_late(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let url = url(&options, options.get_port());
    let (one, two) = tokio::join!(migrate(&url), migrate(&url));
    assert_eq!((one.0, two.0), (Some(0), Some(0)), "{one:?} {two:?}");
    assert_eq!(migrate(&url).await.0, Some(0));
    assert_eq!(texts(&pool.connect_lazy_with(options)).await.unwrap(), 0);
}

#[sqlx::test(migrations = false)]
async fn a_migration_that_fails_ends_migrate_with_1_and_the_reason(pool: PgPoolOptions, options: PgConnectOptions) {
    let pool = pool.connect_lazy_with(options.clone());
    pool.execute("CREATE SCHEMA tidemark; CREATE TABLE tidemark.feeds (somebody_elses text)").await.unwrap();
    let (code, said) = migrate(&url(&options, options.get_port())).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("migration 1") && said.contains("\"feeds\" already exists"), "{said}");
}

#[sqlx::test(migrations = false)]
async fn an_account_that_the_database_does_not_know_ends_migrate_with_1(_: PgPoolOptions, options: PgConnectOptions) {
    let url = url(&options, options.get_port());
    let (scheme, rest) = url.split_once("://").unwrap();
    let stranger = format!("{scheme}://nobody-knows-me:s3cret@{}", rest.rsplit_once('@').unwrap().1);
    let (code, said) = migrate(&stranger).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("nobody-knows-me") && !said.contains("s3cret"), "{said}");
}

#[tokio::test]
async fn migrate_that_is_told_to_stop_does_not_wait_any_longer() {
    let mut child = app(&[("DATABASE_URL", "postgres://user@127.0.0.1:1/db")]).arg("migrate").spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    timeout(LONG, lines.next_line()).await.unwrap().unwrap().unwrap();
    common::program::terminate(&child).await;
    let status = timeout(LONG, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(1));
}

#[sqlx::test(migrations = false)]
async fn told_not_to_migrate_the_app_waits_for_the_schema_and_becomes_ready(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let url = url(&options, options.get_port());
    let app = Running::start(&[("MIGRATE", "false")], &url).await;
    wait_until(LONG, "the app says what it waits for", async || {
        request(app.admin, "GET", "/readyz", "").await.contains("schema: waiting for somebody else to migrate")
    })
    .await;
    assert!(!app.ready().await);
    let pool = pool.connect_lazy_with(options);
    assert!(texts(&pool).await.is_err(), "the app has made nothing");

    assert_eq!(migrate(&url).await.0, Some(0));
    wait_until(LONG, "the app is ready", async || app.ready().await).await;
    let saved = request(app.public, "POST", "/save", r#"{"text":"hello"}"#).await;
    assert!(saved.starts_with("HTTP/1.1 201"), "{saved}");
}
