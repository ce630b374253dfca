//! A client gets the values, and takes up where it stood.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;

use std::time::Duration;

use common::{Client, Got, LONG, Replica, masked, save, settings, url};
use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use test_support::{Proxy, wait_until};
use tokio::{net::lookup_host, time::Instant};

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_save_reaches_every_client_without_a_word_from_them(pool: PgPoolOptions, options: PgConnectOptions) {
    let pool = pool.connect_lazy_with(options.clone());
    let replica = Replica::start(settings(url(&options))).await;
    let (mut one, mut two) = (replica.connect("feeds=texts").await, replica.connect("feeds=texts").await);
    let (hello, set) = one.greeted().await;
    assert_eq!(
        (&hello["type"], &hello["protocol"], &hello["replica"]),
        (&json!("hello"), &json!("tidemark.v1"), &json!("dashboard-test"))
    );
    assert_eq!((&hello["timeline"], &hello["beatMs"], &hello["resumed"]), (&json!(1), &json!(5000), &json!(false)));
    assert_eq!(
        (&set["type"], &set["items"][0]["feed"], &set["items"][0]["value"]),
        (&json!("set"), &json!("texts"), &json!({"count": 0}))
    );
    assert!(set["cursor"].as_str().unwrap().len() <= 128);
    two.greeted().await;
    let saved = Instant::now();
    save(&pool, 3).await;
    for client in [&mut one, &mut two] {
        let set = client.until_count(3).await;
        assert!(set["ageMs"]["texts"].as_u64().unwrap() < 1000);
    }
    // The bell, not the poll: the poll alone would take a second on average. Generous, because the machine may be busy.
    assert!(saved.elapsed() < Duration::from_millis(900), "{:?}", saved.elapsed());
    replica.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_cursor_of_one_replica_is_good_on_another(pool: PgPoolOptions, options: PgConnectOptions) {
    let pool = pool.connect_lazy_with(options.clone());
    let (one, two) = (Replica::start(settings(url(&options))).await, Replica::start(settings(url(&options))).await);
    save(&pool, 2).await;
    let mut client = one.connect("feeds=texts").await;
    let set = client.until_count(2).await;
    let cursor = set["cursor"].as_str().unwrap().to_owned();
    let (hello, first) = two.connect(&format!("feeds=texts&since={cursor}")).await.greeted().await;
    assert_eq!((&hello["resumed"], &first["type"]), (&json!(true), &json!("beat")), "nothing new: {first}");
    save(&pool, 1).await;
    // Until the other replica has read it too, the older cursor covers all that it knows.
    two.connect("feeds=texts").await.until_count(3).await;
    let (hello, first) = two.connect(&format!("feeds=texts&since={cursor}")).await.greeted().await;
    assert_eq!((&hello["resumed"], &first["items"][0]["value"]["count"]), (&json!(true), &json!(3)));
    one.stop().await;
    two.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_replica_that_is_behind_a_cursor_reads_the_database_first(pool: PgPoolOptions, options: PgConnectOptions) {
    let pool = pool.connect_lazy_with(options.clone());
    let up_to_date = Replica::start(settings(url(&options))).await;
    // No bell and no poll: this replica knows only what it read at its start.
    let mut slow = settings(url(&options));
    slow.reader.intervals.poll = LONG * 100;
    slow.reader.intervals.poll_without_doorbell = LONG * 100;
    slow.reader.listen = store::DatabaseUrl::parse("postgres://nobody@127.0.0.1:1/nothing").unwrap();
    let slow = Replica::start(slow).await;
    save(&pool, 5).await;
    let cursor = up_to_date.connect("feeds=texts").await.until_count(5).await["cursor"].as_str().unwrap().to_owned();
    let (hello, first) = slow.connect(&format!("feeds=texts&since={cursor}")).await.greeted().await;
    assert_eq!(
        (&hello["resumed"], &first["type"]),
        (&json!(true), &json!("beat")),
        "it read before it answered: {first}"
    );
    assert_eq!(slow.connect("feeds=texts").await.greeted().await.1["items"][0]["value"]["count"], 5);
    up_to_date.stop().await;
    slow.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_cursor_ahead_of_the_database_itself_is_reset(pool: PgPoolOptions, options: PgConnectOptions) {
    let pool = pool.connect_lazy_with(options.clone());
    let replica = Replica::start(settings(url(&options))).await;
    save(&pool, 1).await;
    let set = replica.connect("feeds=texts").await.until_count(1).await;
    let version = set["items"][0]["version"].as_u64().unwrap();
    let ahead = set["cursor"].as_str().unwrap().replace(&format!("texts.{version}"), "texts.999999");
    let (_, first) = replica.connect(&format!("feeds=texts&since={ahead}")).await.greeted().await;
    assert_eq!((&first["reset"], &first["items"][0]["version"]), (&json!(true), &json!(version)));
    replica.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn another_past_of_the_database_is_told_to_those_who_are_connected(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let pool = pool.connect_lazy_with(options.clone());
    let replica = Replica::start(settings(url(&options))).await;
    save(&pool, 4).await;
    let mut client = replica.connect("feeds=texts").await;
    client.until_count(4).await;
    // As after a restore of an older backup: the version falls.
    let backup = "WITH gone AS (DELETE FROM tidemark.deltas) UPDATE tidemark.bases SET version = 0, n = 0";
    sqlx::query(backup).execute(&pool).await.unwrap();
    assert_eq!(client.until(|frame| frame["type"] != "beat").await["type"], "hello");
    let set = client.next().await.json();
    assert_eq!((&set["reset"], &set["items"][0]["value"]["count"]), (&json!(true), &json!(0)));
    // As after a restore into a new database: another store.
    sqlx::query("UPDATE tidemark.store SET id = 'another'").execute(&pool).await.unwrap();
    assert_eq!(client.until(|frame| frame["type"] != "beat").await["store"], "another");
    assert_eq!(client.next().await.json()["reset"], true);
    replica.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_silent_feed_beats_and_says_how_old_it_is(_: PgPoolOptions, options: PgConnectOptions) {
    let mut quick = settings(url(&options));
    quick.beat = Duration::from_millis(100);
    let replica = Replica::start(quick).await;
    let mut client = replica.connect("feeds=texts").await;
    assert_eq!(client.greeted().await.0["beatMs"], 100);
    for _ in 0..3 {
        let beat = client.next().await.json();
        assert_eq!((&beat["type"], beat.get("database"), beat.get("cursor")), (&json!("beat"), None, None));
        assert!(beat["ageMs"]["texts"].as_u64().unwrap() <= 3000, "a poll every 2 s keeps the age small: {beat}");
    }
    replica.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_database_that_is_away_makes_values_old_and_closes_nothing(pool: PgPoolOptions, options: PgConnectOptions) {
    let pool = pool.connect_lazy_with(options.clone());
    let target = lookup_host((options.get_host(), options.get_port())).await.unwrap().next().unwrap();
    let proxy = Proxy::start(target).await.unwrap();
    let mut quick = settings(options.clone().host("127.0.0.1").port(proxy.addr().port()).into());
    quick.beat = Duration::from_millis(200);
    let replica = Replica::start(quick).await;
    let mut client = replica.connect("feeds=texts").await;
    client.greeted().await;

    proxy.cut();
    let down = client.until(|frame| frame["database"] == "down").await;
    assert_eq!(down["type"], "beat");
    let older = client.until(|frame| frame["ageMs"]["texts"].as_u64().unwrap() > 1000).await;
    assert_eq!(older["database"], "down");
    let (ready, text) = replica.ready().await;
    assert!(ready && text.contains("down, serving the last values"), "{text}");
    let (_, first) = replica.connect("feeds=texts").await.greeted().await;
    assert_eq!(
        (&first["database"], &first["items"][0]["value"]["count"]),
        (&json!("down"), &json!(0)),
        "new clients get the last values"
    );

    save(&pool, 7).await;
    proxy.restore();
    let restored = Instant::now();
    let set = client.until_count(7).await;
    assert_eq!(set.get("database"), None);
    assert!(restored.elapsed() < Duration::from_secs(3), "{:?}", restored.elapsed());
    replica.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_busy_feed_sends_at_most_twenty_sets_a_second_and_ends_with_the_newest(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let pool = pool.connect_lazy_with(options.clone());
    let replica = Replica::start(settings(url(&options))).await;
    let mut client = replica.connect("feeds=texts").await;
    client.greeted().await;
    let began = Instant::now();
    let writer = tokio::spawn(async move {
        for _ in 0..300 {
            save(&pool, 1).await;
        }
    });
    let (mut sets, mut versions) = (0_u32, Vec::new());
    loop {
        let set = client.until(|frame| frame["type"] == "set").await;
        sets += 1;
        versions.push(set["items"][0]["version"].as_u64().unwrap());
        if set["items"][0]["value"]["count"] == 300 {
            break;
        }
    }
    writer.await.unwrap();
    assert!(versions.is_sorted(), "versions only grow: {versions:?}");
    let allowed = began.elapsed().as_secs_f64() / 0.05 + 2.0;
    assert!(f64::from(sets) <= allowed, "{sets} sets in {:?}", began.elapsed());
    replica.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn pings_are_answered_and_a_close_is_echoed(_: PgPoolOptions, options: PgConnectOptions) {
    let replica = Replica::start(settings(url(&options))).await;
    let mut client = replica.connect("feeds=texts").await;
    client.greeted().await;
    client.send(&masked(0x89, b"are you there")).await;
    assert_eq!(client.next().await, Got::Pong(b"are you there".to_vec()));
    client.send(&masked(0x8A, b"a pong that nobody asked for")).await;
    client.send(&masked(0x88, &1000_u16.to_be_bytes())).await;
    assert_eq!(client.next().await, Got::Close(1000, String::new()));
    assert_eq!(client.next().await, Got::End);
    wait_until(LONG, "the connection is gone", async || replica.metric("tidemark_connections").await == 0.0).await;
    assert_eq!(replica.metric("tidemark_closes_total{code=\"1000\"}").await, 1.0);
    replica.stop().await;
}

#[tokio::test]
async fn until_the_first_reading_clients_are_told_to_wait() {
    let nowhere = store::DatabaseUrl::parse("postgres://nobody@127.0.0.1:1/nothing").unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let replica = Replica::start_unready(settings(nowhere), listener).await;
    assert!(!replica.ready().await.0);
    let mut client = Client::connect(replica.addr, "feeds=texts", &[]).await.unwrap();
    assert_eq!(client.next().await, Got::Close(1013, "retry=500".into()));
    replica.stop().await;
}
