//! Visitors: a handshake with a visit is a row and a push to everybody; its end takes the row away and leaves the total.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;

use std::time::Duration;

use common::{Client, LONG, Replica, settings, url};
use dashboard::Settings;
use serde_json::{Value, json};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use store::VisitorTiming;
use test_support::wait_until;
use tokio::time::Instant;
use uuid::Uuid;

/// A tenth of the real times.
fn quick(options: &PgConnectOptions) -> Settings {
    let mut settings = settings(url(options));
    settings.visitors.timing = VisitorTiming {
        beat: Duration::from_millis(500),
        lease: Duration::from_millis(1_500),
        trusted: Duration::from_millis(2_000),
        grace: Duration::from_millis(300),
        audit: Duration::from_secs(3_600),
    };
    settings
}

fn page(visit: Uuid, n: u32) -> String {
    format!("feeds=visitors&visit={visit}&n={n}")
}

fn says(frame: &Value, online: u64, total: u64) -> bool {
    frame["items"][0]["value"] == json!({"online": online, "total": total})
}

async fn rows(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM tidemark.connections").fetch_one(pool).await.unwrap()
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_connect_is_counted_and_pushed_and_a_disconnect_only_takes_the_row(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let pool = pool.connect_lazy_with(options.clone());
    let (one, two) = (Replica::start(quick(&options)).await, Replica::start(quick(&options)).await);
    // A wall board: it sees the number and is not in it.
    let mut wall = one.connect("feeds=visitors").await;
    assert!(says(&wall.greeted().await.1, 0, 0));
    let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
    let mut a = one.connect(&page(first, 1)).await;
    wall.until(|frame| says(frame, 1, 1)).await;
    assert_eq!(rows(&pool).await, 1);
    let b = two.connect(&page(second, 1)).await;
    for client in [&mut wall, &mut a] {
        client.until(|frame| says(frame, 2, 2)).await;
    }
    drop(b);
    wall.until(|frame| says(frame, 1, 2)).await;
    // The same visit again is no new one.
    let _b = two.connect(&page(second, 2)).await;
    wall.until(|frame| says(frame, 2, 2)).await;
    one.stop().await;
    two.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn others_see_a_connect_at_once(_: PgPoolOptions, options: PgConnectOptions) {
    let (one, two) = (Replica::start(quick(&options)).await, Replica::start(quick(&options)).await);
    let mut wall = one.connect("feeds=visitors").await;
    let mut took = Vec::new();
    for number in 1..=10 {
        let began = Instant::now();
        let _page = two.connect(&page(Uuid::new_v4(), 1)).await;
        wall.until(|frame| frame["items"][0]["value"]["total"] == number).await;
        took.push(began.elapsed());
    }
    took.sort();
    assert!(took[5] < Duration::from_millis(100), "half of them within 100 ms: {took:?}");
    one.stop().await;
    two.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn rows_and_open_sockets_agree_on_every_replica(pool: PgPoolOptions, options: PgConnectOptions) {
    let pool = pool.connect_lazy_with(options.clone());
    let replicas = [Replica::start(quick(&options)).await, Replica::start(quick(&options)).await];
    let mut pages: Vec<(Uuid, usize, Client)> = Vec::new();
    for number in 0..30 {
        let (visit, place) = (Uuid::new_v4(), number % 3 % 2);
        pages.push((visit, place, replicas[place].connect(&page(visit, 1)).await));
    }
    // Some move, make before break; some leave.
    for (visit, place, client) in pages.iter_mut().take(10) {
        *place = 1 - *place;
        *client = replicas[*place].connect(&page(*visit, 2)).await;
    }
    pages.truncate(22);
    let sockets = [0, 1].map(|place| pages.iter().filter(|page| page.1 == place).count() as i64);
    let agree = async || {
        let query = "SELECT count(*) FROM tidemark.connections GROUP BY instance ORDER BY count(*)";
        let mut wanted = sockets;
        wanted.sort_unstable();
        sqlx::query_scalar::<_, i64>(query).fetch_all(&pool).await.unwrap() == wanted
    };
    wait_until(LONG, &format!("the rows are {sockets:?}"), agree).await;
    for (replica, sockets) in replicas.iter().zip(sockets) {
        assert_eq!(replica.metric("tidemark_connections").await, sockets as f64);
    }
    for replica in replicas {
        replica.stop().await;
    }
    assert_eq!(rows(&pool).await, 0, "a replica that ends takes its rows along");
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_change_by_another_program_is_pushed_as_well(pool: PgPoolOptions, options: PgConnectOptions) {
    let pool = pool.connect_lazy_with(options.clone());
    let replica = Replica::start(quick(&options)).await;
    let mut wall = replica.connect("feeds=visitors").await;
    wall.greeted().await;
    sqlx::query("INSERT INTO tidemark.visits SELECT gen_random_uuid() FROM generate_series(1, 41)")
        .execute(&pool)
        .await
        .unwrap();
    wall.until(|frame| says(frame, 0, 41)).await;
    replica.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_malformed_visit_is_400_and_counts_nothing(pool: PgPoolOptions, options: PgConnectOptions) {
    let pool = pool.connect_lazy_with(options.clone());
    let replica = Replica::start(quick(&options)).await;
    let id = Uuid::new_v4();
    for query in ["visit=me&n=1", "visit=&n=1", &format!("visit={id}&n=-1"), &format!("visit={id}"), "n=1"] {
        let Err(answer) = Client::connect(replica.addr, &format!("feeds=visitors&{query}"), &[]).await else {
            panic!("{query} was accepted");
        };
        assert!(answer.starts_with("HTTP/1.1 400"), "{query}: {answer}");
    }
    let (_, first) = replica.connect("feeds=visitors").await.greeted().await;
    assert!(says(&first, 0, 0), "{first}");
    assert_eq!(rows(&pool).await, 0);
    assert_eq!(replica.metric("tidemark_handshakes_total{outcome=\"query\"}").await, 5.0);
    replica.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_visit_with_a_socket_on_each_of_two_replicas_is_one_visitor_all_the_time(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let pool = pool.connect_lazy_with(options.clone());
    let (one, two) = (Replica::start(quick(&options)).await, Replica::start(quick(&options)).await);
    let mut wall = two.connect("feeds=visitors").await;
    wall.greeted().await;
    let visit = Uuid::new_v4();
    let old = one.connect(&page(visit, 1)).await;
    wall.until(|frame| says(frame, 1, 1)).await;
    // Make before break: the new socket first, and then the old one goes.
    let mut moved = two.connect(&page(visit, 2)).await;
    wait_until(LONG, "the new socket owns the row", async || rows_of(&pool, visit, 2).await == 1).await;
    drop(old);
    // Past the grace of the old one's farewell and two heartbeats of both replicas.
    let watched = tokio::time::timeout(Duration::from_secs(2), wall.until(|frame| frame["type"] == "set")).await;
    assert!(watched.is_err(), "nobody came and nobody went: {watched:?}");
    assert_eq!((rows(&pool).await, rows_of(&pool, visit, 2).await), (1, 1));
    assert!(says(&moved.greeted().await.1, 1, 1));
    one.stop().await;
    two.stop().await;
}

async fn rows_of(pool: &PgPool, visit: Uuid, n: i64) -> i64 {
    let rows = "SELECT count(*) FROM tidemark.connections WHERE visit = $1 AND n = $2";
    sqlx::query_scalar(rows).bind(visit).bind(n).fetch_one(pool).await.unwrap()
}
