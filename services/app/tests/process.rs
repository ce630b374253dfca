//! The program: what it says about its environment, and how it starts and ends.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;

use std::process::Output;

use common::program::{LONG, Running, app, request, url};
use sqlx::{
    Executor, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use test_support::wait_until;

#[tokio::test]
async fn a_wrong_or_missing_variable_ends_the_process_with_2_and_is_named() {
    let good = "postgres://user:s3cret@127.0.0.1:1/db";
    for (variable, environment) in [
        ("DATABASE_URL", vec![]),
        ("DATABASE_URL", vec![("DATABASE_URL", "")]),
        ("DATABASE_URL", vec![("DATABASE_URL", "mysql://user:s3cret@host/db")]),
        ("DATABASE_URL", vec![("DATABASE_URL", "postgres://user:s3cret@host:port/db")]),
        ("PORT", vec![("DATABASE_URL", good), ("PORT", "http")]),
        ("PORT", vec![("DATABASE_URL", good), ("PORT", "70000")]),
        ("ADMIN_PORT", vec![("DATABASE_URL", good), ("ADMIN_PORT", "-1")]),
        ("HOST", vec![("DATABASE_URL", good), ("HOST", "nowhere")]),
        ("PAGE_DIR", vec![("DATABASE_URL", good), ("PAGE_DIR", "/nonexistent")]),
        ("REPLICA_NAME", vec![("DATABASE_URL", good), ("REPLICA_NAME", "a\nb")]),
        ("LOG_FORMAT", vec![("DATABASE_URL", good), ("LOG_FORMAT", "xml")]),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            vec![("DATABASE_URL", good), ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector")],
        ),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            vec![("DATABASE_URL", good), ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318")],
        ),
        ("MIGRATE", vec![("DATABASE_URL", good), ("MIGRATE", "perhaps")]),
    ] {
        let output = tokio::time::timeout(LONG, app(&environment).output()).await.unwrap().unwrap();
        let Output { status, stdout, stderr } = output;
        let said = String::from_utf8([stdout, stderr].concat()).unwrap();
        assert_eq!(status.code(), Some(2), "{environment:?}: {said}");
        assert!(said.contains(variable), "{environment:?}: {said}");
        assert!(!said.contains("s3cret"), "{environment:?}: {said}");
    }
}

#[sqlx::test(migrations = false)]
async fn it_waits_for_the_database_migrates_and_becomes_ready(_: PgPoolOptions, options: PgConnectOptions) {
    let proxy = common::proxy(&options).await;
    proxy.cut();
    let app = Running::start(&[], &url(&options, proxy.addr().port())).await;
    let report = request(app.admin, "GET", "/readyz", "").await;
    assert!(report.starts_with("HTTP/1.1 503") && report.contains("schema: "), "{report}");
    assert!(request(app.admin, "GET", "/healthz", "").await.starts_with("HTTP/1.1 200"));
    assert!(request(app.public, "GET", "/", "").await.contains("<title>page</title>"), "the page needs no database");

    proxy.restore();
    wait_until(LONG, "the app is ready", async || app.ready().await).await;
    let saved = request(app.public, "POST", "/save", r#"{"text":"hello"}"#).await;
    assert!(saved.starts_with("HTTP/1.1 201"), "{saved}");
    let metrics = request(app.admin, "GET", "/metrics", "").await;
    assert!(metrics.contains("tidemark_text_batch_rows_count 1"), "{metrics}");
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn told_to_stop_it_finishes_what_it_has_begun_and_exits_0(pool: PgPool) {
    let options = PgConnectOptions::clone(&pool.connect_options());
    let mut app = Running::start(&[], &url(&options, options.get_port())).await;
    wait_until(LONG, "the app is ready", async || app.ready().await).await;

    // A save that is in flight, because somebody holds the table.
    let mut lock = pool.begin().await.unwrap();
    lock.execute("LOCK TABLE tidemark.texts IN EXCLUSIVE MODE").await.unwrap();
    let saving = tokio::spawn(request(app.public, "POST", "/save", r#"{"text":"in flight"}"#));
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    wait_until(LONG, "the save is in flight", async || {
        sqlx::query_scalar::<_, i64>(waiting).fetch_one(&pool).await.unwrap() == 1
    })
    .await;

    app.terminate().await;
    wait_until(LONG, "readiness fails", async || !app.ready().await).await;
    assert_eq!(request(app.public, "GET", "/", "").await, "", "nothing new is accepted");
    lock.rollback().await.unwrap();
    let answer = saving.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let status = tokio::time::timeout(LONG, app.child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
}
