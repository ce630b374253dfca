//! A feed of a user's own table appears on a running dashboard, and goes again.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;

use std::time::Duration;

use common::{Got, LONG, Replica, settings, url};
use sqlx::{
    Executor,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use store::{Follow, OwnFeed, add_own_feed, remove_own_feed};
use test_support::wait_until;
use tokio::time::Instant;

/// A replica that reads only when a bell rings.
async fn replica(options: &PgConnectOptions) -> Replica {
    let mut settings = settings(url(options));
    settings.reader.intervals.poll = LONG * 100;
    settings.beat = Duration::from_millis(100);
    Replica::start(settings).await
}

/// Waits until the replica serves the feed, or until it does not.
async fn is_served(replica: &Replica, served: bool) {
    wait_until(LONG, &format!("orders are served: {served}"), async || {
        let refusal = Got::Close(1008, "feeds: there is no feed orders".into());
        (replica.connect("feeds=orders").await.next().await != refusal) == served
    })
    .await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_feed_comes_goes_and_comes_back_without_a_restart(pool: PgPoolOptions, options: PgConnectOptions) {
    let pool = pool.connect_lazy_with(options.clone());
    let orders = "CREATE TABLE orders (status text); INSERT INTO orders VALUES ('open'), ('open'), ('closed')";
    pool.execute(orders).await.unwrap();
    let replica = replica(&options).await;
    is_served(&replica, false).await;

    let feed = OwnFeed::new("orders", "public.orders", Some("status = 'open'"), Follow::Table).unwrap();
    add_own_feed(&url(&options), &feed).await.unwrap();
    is_served(&replica, true).await;
    let mut client = replica.connect("feeds=orders,texts").await;
    assert_eq!(client.greeted().await.1["items"][0]["value"]["count"], 2);
    let written = Instant::now();
    pool.execute("INSERT INTO orders VALUES ('open'), ('closed')").await.unwrap();
    client.until_count(3).await;
    assert!(written.elapsed() < Duration::from_millis(900), "{:?}", written.elapsed());
    pool.execute("UPDATE orders SET status = 'closed'").await.unwrap();
    let last = client.until_count(0).await["items"][0]["version"].as_u64().unwrap();

    // Whoever watches keeps the last value, of which nobody says any more that it is true; the other feeds go on.
    remove_own_feed(&url(&options), "orders").await.unwrap();
    is_served(&replica, false).await;
    let beat = client.until(|frame| frame["type"] == "beat" && frame["ageMs"].get("orders").is_none()).await;
    assert!(beat["ageMs"]["texts"].is_u64(), "{beat}");

    // It is the same feed to whoever watched it all the time: only a greater version is taken.
    pool.execute("INSERT INTO orders VALUES ('open')").await.unwrap();
    add_own_feed(&url(&options), &feed).await.unwrap();
    let back = client.until_count(1).await;
    assert!(back["items"][0]["version"].as_u64().unwrap() > last, "{back}");
    replica.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_feed_whose_table_was_swapped_grows_old_on_every_page_until_it_is_added_again(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let pool = pool.connect_lazy_with(options.clone());
    pool.execute("CREATE TABLE orders (status text); INSERT INTO orders VALUES ('open')").await.unwrap();
    let feed = OwnFeed::new("orders", "public.orders", None, Follow::Name).unwrap();
    add_own_feed(&url(&options), &feed).await.unwrap();
    let mut settings = settings(url(&options));
    settings.reader.intervals.poll = Duration::from_millis(200);
    settings.beat = Duration::from_millis(100);
    let replica = Replica::start(settings).await;
    let mut client = replica.connect("feeds=orders,texts").await;
    assert_eq!(client.greeted().await.1["items"][0]["value"]["count"], 1);

    pool.execute(
        "CREATE TABLE orders__tmp (status text); INSERT INTO orders__tmp VALUES ('new'), ('newer');
         BEGIN; ALTER TABLE orders RENAME TO orders__old; ALTER TABLE orders__tmp RENAME TO orders; COMMIT; DROP TABLE orders__old",
    )
    .await
    .unwrap();
    let age = |frame: &serde_json::Value, feed: &str| frame["ageMs"][feed].as_u64().unwrap();
    // Older than any poll allows, while the texts beside it are not.
    let old = client.until(|frame| frame["type"] == "beat" && age(frame, "orders") > 2_000).await;
    assert!(age(&old, "texts") < 1_500, "{old}");
    let series = "tidemark_feed_problem{feed=\"orders\",reason=\"swapped\"}";
    assert_eq!(replica.metric(series).await, 1.0);
    // A page that connects now gets the value with that age, and no younger one.
    let (_, set) = replica.connect("feeds=orders").await.greeted().await;
    assert!(set["items"][0]["value"]["count"] == 1 && age(&set, "orders") > 2_000, "{set}");

    remove_own_feed(&url(&options), "orders").await.unwrap();
    add_own_feed(&url(&options), &feed).await.unwrap();
    let right = client.until_count(2).await;
    assert!(age(&right, "orders") < 1_500, "{right}");
    replica.stop().await;
}
