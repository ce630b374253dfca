//! Visitors of replicas that die, sleep, or have nothing to do: real processes, real leases, real time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;

use std::time::Duration;

use common::{Client, LONG, process::Running, queries::Queries};
use serde_json::{Value, json};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use test_support::wait_until;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

/// A replica sweeps others only after it has held its own lease for so long.
const TRUSTED: Duration = Duration::from_secs(20);
/// Within this time the number is right again.
const RIGHT_AGAIN: Duration = Duration::from_secs(20);

async fn visit(replica: &Running) -> Client {
    let mut client =
        Client::connect(replica.public, &format!("feeds=visitors&visit={}&n=1", Uuid::new_v4()), &[]).await.unwrap();
    client.greeted().await;
    client
}

/// Reads until so many are online, and gives the total and how long that took.
async fn until_online(client: &mut Client, online: u64) -> (u64, Duration) {
    let began = Instant::now();
    let online = |frame: &Value| frame["items"][0]["value"]["online"] == json!(online);
    let frame = client.until_within(2 * RIGHT_AGAIN, online).await;
    (frame["items"][0]["value"]["total"].as_u64().unwrap(), began.elapsed())
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn visitors_of_a_killed_replica_are_gone_within_20_s(_pool: PgPoolOptions, options: PgConnectOptions) {
    let (dying, living) =
        (Running::start("dashboard", &options, &[]).await, Running::start("dashboard", &options, &[]).await);
    let trusted = Instant::now() + TRUSTED;
    let _gone = visit(&dying).await;
    let mut watcher = visit(&living).await;
    until_online(&mut watcher, 2).await;
    sleep_until(trusted).await;
    dying.signal("-KILL").await;
    let (total, took) = until_online(&mut watcher, 1).await;
    assert!(took <= RIGHT_AGAIN, "{took:?}");
    assert_eq!(total, 2, "who went was counted once and stays counted");
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_replica_that_slept_for_a_minute_counts_its_visitors_again_under_a_new_id(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let pool = pool.connect_lazy_with(options.clone());
    let (sleeper, awake) = (
        Running::start("dashboard", &options, &[("REPLICA_NAME", "sleeper")]).await,
        Running::start("dashboard", &options, &[]).await,
    );
    let mut asleep = visit(&sleeper).await;
    let mut watcher = visit(&awake).await;
    until_online(&mut watcher, 2).await;
    let before = instance(&pool, "sleeper").await;
    sleeper.signal("-STOP").await;
    let wakes = Instant::now() + Duration::from_secs(60);
    // Not trusted before 20 s of its own; the lease has ended by then.
    let (total, took) = until_online(&mut watcher, 1).await;
    assert!(took <= TRUSTED + Duration::from_secs(5), "{took:?}");
    sleep_until(wakes).await;
    sleeper.signal("-CONT").await;
    let (total_after, took) = until_online(&mut watcher, 2).await;
    assert!(took <= RIGHT_AGAIN, "{took:?}");
    assert_eq!((total, total_after), (2, 2), "nobody new has come");
    until_online(&mut asleep, 2).await;
    assert_ne!(instance(&pool, "sleeper").await, before);
    assert_eq!(sleeper.said("taken for dead"), 1);
}

async fn instance(pool: &PgPool, name: &str) -> Uuid {
    sqlx::query_scalar("SELECT id FROM tidemark.instances WHERE name = $1").bind(name).fetch_one(pool).await.unwrap()
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_replica_with_nothing_to_do_asks_the_database_seven_times_in_ten_seconds(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let pool = pool.connect_lazy_with(options.clone());
    let (queries, way) = Queries::between(&options);
    let replica = Running::start("dashboard", &way, &[]).await;
    let _visitor = visit(&replica).await;
    // The bell of that visit has the reader read more often for a while; what it does last is to fold the change.
    wait_until(LONG, "the change is folded", async || {
        sqlx::query_scalar("SELECT NOT EXISTS (SELECT FROM tidemark.deltas)").fetch_one(&pool).await.unwrap()
    })
    .await;
    queries.reset();
    let seconds = 30;
    sleep_until(Instant::now() + Duration::from_secs(seconds)).await;
    // Every 2 s the poll, every 5 s the lease: 15 + 6, and one more of each if it falls on the edge.
    let asked = queries.count_of_work();
    assert!((20..=23).contains(&asked), "{asked} in {seconds} s: {:#?}", queries.all());
}
