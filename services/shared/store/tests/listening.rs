//! A doorbell that does not work is noticed, replaced by reads, and built anew.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has said what it found")]

mod common;

use std::time::Duration;

use common::{Stage, count_is, view_is};
use sqlx::{
    Executor,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use store::{Doorbell, ReaderConfig};
use tokio::time::Instant;

/// With a doorbell that is known to be lost, values come by reads every 200 ms; the rest is for a busy machine.
const SOON: Duration = Duration::from_secs(1);

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_reset_listen_connection_is_rebuilt_and_values_arrive_meanwhile(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let stage = Stage::new(pool, options);
    let (proxy, listen) = stage.proxy().await;
    let reader = stage.reader(ReaderConfig { listen, ..stage.config_without_poll() });
    stage.asleep(&reader).await;

    proxy.cut();
    let took = view_is(&reader, "the loss is noticed", |view| view.doorbell == Doorbell::Lost).await;
    assert!(took < SOON, "{took:?}");
    stage.insert("without a doorbell").await;
    let took = count_is(&reader, 1).await;
    assert!(took < SOON, "{took:?}");
    assert!(reader.subscribe().borrow().database_up);

    proxy.restore();
    let took = view_is(&reader, "the doorbell is back", |view| view.doorbell == Doorbell::Listening).await;
    assert!(took < Duration::from_secs(10), "{took:?}");
    stage.asleep(&reader).await;
    stage.insert("by the bell").await;
    count_is(&reader, 2).await;
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_listen_connection_that_the_server_ends_is_rebuilt(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let reader = stage.reader(stage.config_without_poll());
    stage.asleep(&reader).await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND application_name = 'reader-under-test listen'";
    stage.pool.execute(end).await.unwrap();
    view_is(&reader, "it is rebuilt", |view| {
        view.doorbell == Doorbell::Listening && stage.metric("tidemark_doorbell_rebuilds_total", "") == 1.0
    })
    .await;
    stage.insert("by the bell").await;
    count_is(&reader, 1).await;
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_half_open_listen_connection_is_noticed_by_the_first_change(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let (proxy, listen) = stage.proxy().await;
    let reader = stage.reader(ReaderConfig { listen, ..stage.config() });
    stage.asleep(&reader).await;

    proxy.freeze();
    let frozen = Instant::now();
    stage.insert("before anybody knows").await;
    let took = count_is(&reader, 1).await;
    assert!(took < Duration::from_secs(4), "the poll finds it: {took:?}");
    view_is(&reader, "the silence is noticed", |view| view.doorbell == Doorbell::Lost).await;
    assert!(frozen.elapsed() < Duration::from_secs(10), "{:?}", frozen.elapsed());
    stage.insert("without a doorbell").await;
    let took = count_is(&reader, 2).await;
    assert!(took < SOON, "{took:?}");

    proxy.thaw();
    view_is(&reader, "the doorbell is back", |view| view.doorbell == Doorbell::Listening).await;
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_half_open_listen_connection_is_noticed_within_10_seconds_though_nothing_changes(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let stage = Stage::new(pool, options);
    let (proxy, listen) = stage.proxy().await;
    let reader = stage.reader(ReaderConfig { listen, ..stage.config_without_poll() });
    stage.asleep(&reader).await;
    proxy.freeze();
    let took = view_is(&reader, "the silence is noticed", |view| view.doorbell == Doorbell::Lost).await;
    assert!(took < Duration::from_secs(10), "{took:?}");
    proxy.thaw();
    view_is(&reader, "the doorbell is back", |view| view.doorbell == Doorbell::Listening).await;
    stage.insert("by the bell").await;
    count_is(&reader, 1).await;
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_doorbell_that_hears_nothing_is_detected_and_replaced_by_reads(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let stage = Stage::new(pool, options);
    // LISTEN succeeds and nothing ever arrives, as behind a pooler: notifications stay within one database.
    let listen = stage.options.clone().database("postgres").into();
    let reader = stage.reader(ReaderConfig { listen, ..stage.config_without_poll() });
    view_is(&reader, "it is detected", |view| view.doorbell == Doorbell::Swallowed).await;
    assert_eq!(stage.metric("tidemark_doorbell_state", "swallowed"), 1.0);
    assert_eq!(stage.metric("tidemark_doorbell_state", ""), 1.0);
    for expected in 1..=3 {
        stage.insert("without a doorbell").await;
        let took = count_is(&reader, expected).await;
        assert!(took < SOON, "{took:?}");
    }
    stage.end().await;
}
