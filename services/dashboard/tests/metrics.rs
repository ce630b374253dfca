//! The numbers of `/metrics` move with what happens.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;

use std::time::Duration;

use common::{LONG, Replica, save, settings, url};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use test_support::{Proxy, wait_until};
use tokio::{net::lookup_host, time::Instant};

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_save_moves_value_latency_and_path(pool: PgPoolOptions, options: PgConnectOptions) {
    let pool = pool.connect_lazy_with(options.clone());
    let replica = Replica::start(settings(url(&options))).await;
    let (mut one, mut two) = (replica.connect("feeds=texts").await, replica.connect("feeds=texts").await);
    one.greeted().await;
    two.greeted().await;
    let value = "tidemark_feed_value{feed=\"texts\",field=\"count\"}";
    assert_eq!(replica.metric(value).await, 0.0);
    assert_eq!(replica.metric("tidemark_push_latency_seconds_count").await, 0.0, "a greeting is no push");
    let began = Instant::now();
    save(&pool, 3).await;
    one.until_count(3).await;
    two.until_count(3).await;
    wait_until(LONG, "both frames are counted", async || {
        replica.metric("tidemark_push_latency_seconds_count").await == 2.0
    })
    .await;
    let (sum, most) = (replica.metric("tidemark_push_latency_seconds_sum").await, began.elapsed().as_secs_f64() * 2.0);
    assert!(sum > 0.0 && sum < most, "{sum} s for two frames in {most} s");
    assert_eq!(replica.metric(value).await, 3.0);
    let changes = ["bell", "poll"].map(|path| format!("tidemark_changes_total{{path=\"{path}\"}}"));
    assert_eq!(replica.metric(&changes[0]).await + replica.metric(&changes[1]).await, 1.0);
    assert_eq!(replica.metric("tidemark_handshakes_total{outcome=\"accepted\"}").await, 2.0);
    let (_, all) = replica.admin("/metrics").await;
    for there in [
        "tidemark_build_info{version=\"0.1.0\"} 1",
        "tidemark_handshakes_total{outcome=\"origin\"} 0",
        "tidemark_closes_total{code=\"1012\"} 0",
        "tidemark_moves_total 0",
    ] {
        assert!(all.lines().any(|line| line == there), "{there} in {all}");
    }
    let started = replica.metric("tidemark_start_time_seconds").await;
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    assert!(started > now - 60.0 && started <= now);
    replica.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn an_outage_shows_in_the_age_and_in_the_latency_of_what_was_written_meanwhile(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let pool = pool.connect_lazy_with(options.clone());
    let target = lookup_host((options.get_host(), options.get_port())).await.unwrap().next().unwrap();
    let proxy = Proxy::start(target).await.unwrap();
    let replica = Replica::start(settings(options.clone().host("127.0.0.1").port(proxy.addr().port()).into())).await;
    let mut client = replica.connect("feeds=texts").await;
    client.greeted().await;
    let age = async || replica.metric("tidemark_feed_age_seconds{feed=\"texts\"}").await;
    assert!(age().await < 3.0, "a poll every 2 s keeps it young");
    proxy.cut();
    save(&pool, 1).await;
    let saved = Instant::now();
    wait_until(LONG, "the value grows old", async || age().await > 3.0).await;
    let outage = saved.elapsed().as_secs_f64();
    proxy.restore();
    client.until_count(1).await;
    wait_until(LONG, "the frame is counted", async || {
        replica.metric("tidemark_push_latency_seconds_count").await == 1.0
    })
    .await;
    let latency = replica.metric("tidemark_push_latency_seconds_sum").await;
    assert!(latency >= outage, "{latency} s after an outage of {outage} s");
    assert!(age().await < 3.0);
    replica.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn clients_that_are_asked_to_move_are_counted(_: PgPoolOptions, options: PgConnectOptions) {
    let replica = Replica::start(settings(url(&options))).await;
    let (mut one, mut two) = (replica.connect("feeds=texts").await, replica.connect("feeds=texts").await);
    one.greeted().await;
    two.greeted().await;
    replica.signals.stop.cancel();
    one.until(|frame| frame["type"] == "move").await;
    two.until(|frame| frame["type"] == "move").await;
    // Both stay for now: two seconds are left for leaving.
    wait_until(Duration::from_secs(2), "both are counted", async || {
        replica.metric("tidemark_moves_total").await == 2.0
    })
    .await;
    replica.stop().await;
}
