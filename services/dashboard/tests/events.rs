//! `GET /events`: the frames of a socket for those whom none reaches.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;

use std::time::Duration;

use common::{Got, LONG, Replica, save, settings, stream::Stream, url};
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use test_support::wait_until;
use tokio::{net::TcpSocket, time::Instant};
use uuid::Uuid;

const STREAMS: &str = "tidemark_connections{transport=\"sse\"}";

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_stream_has_the_frames_of_a_socket_and_nothing_may_hold_it_back(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let pool = pool.connect_lazy_with(options.clone());
    let replica = Replica::start(settings(url(&options))).await;
    let mut stream = Stream::open(replica.addr, "feeds=texts", &[]).await;
    assert!(stream.head.starts_with("HTTP/1.1 200"), "{}", stream.head);
    for header in [
        "content-type: text/event-stream",
        "cache-control: no-cache, no-store, no-transform",
        "x-accel-buffering: no",
        "transfer-encoding: chunked",
    ] {
        assert!(stream.head.contains(&format!("{header}\r\n")), "{header} in {}", stream.head);
    }
    assert!(!stream.head.contains("content-length") && !stream.head.contains("access-control"), "{}", stream.head);
    let (hello, set) = stream.greeted().await;
    assert_eq!((&hello["replica"], &hello["resumed"]), (&json!("dashboard-test"), &json!(false)));
    assert_eq!((&set["items"][0]["value"], set["cursor"].as_str()), (&json!({"count": 0}), Some(stream.id.as_str())));
    let mut socket = replica.connect("feeds=texts").await;
    socket.greeted().await;
    let saved = Instant::now();
    save(&pool, 3).await;
    let (over_stream, over_socket) = (stream.until_count(3).await, socket.until_count(3).await);
    assert!(saved.elapsed() < Duration::from_millis(900), "by the bell: {:?}", saved.elapsed());
    for field in ["type", "cursor", "items"] {
        assert_eq!(over_stream[field], over_socket[field]);
    }
    assert_eq!(over_stream["cursor"].as_str(), Some(stream.id.as_str()));
    replica.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_silent_stream_beats_and_an_old_proxy_gets_it_without_chunks(_: PgPoolOptions, options: PgConnectOptions) {
    let mut quick = settings(url(&options));
    quick.beat = Duration::from_millis(100);
    let replica = Replica::start(quick).await;
    let mut stream = Stream::open_old(replica.addr, "feeds=texts").await;
    assert!(!stream.head.contains("chunked"), "{}", stream.head);
    assert_eq!(stream.greeted().await.0["beatMs"], 100);
    for _ in 0..3 {
        assert_eq!(stream.next().await.json()["type"], "beat");
    }
    replica.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn where_the_stream_broke_off_counts_more_than_since(pool: PgPoolOptions, options: PgConnectOptions) {
    let pool = pool.connect_lazy_with(options.clone());
    let replica = Replica::start(settings(url(&options))).await;
    save(&pool, 2).await;
    let mut first = Stream::open(replica.addr, "feeds=texts", &[]).await;
    first.until_count(2).await;
    let cursor = first.id.as_str();
    let greeted = async |since: &str, headers: &[(&str, &str)]| -> (Value, Value) {
        Stream::open(replica.addr, &format!("feeds=texts&since={since}"), headers).await.greeted().await
    };
    for (since, headers, resumed, first) in [
        (cursor, [].as_slice(), true, "beat"),
        ("", &[("last-event-id", cursor)], true, "beat"),
        ("another.1~texts.1", &[("last-event-id", cursor)], true, "beat"),
        (cursor, &[("last-event-id", "nonsense")], false, "set"),
    ] {
        let (hello, frame) = greeted(since, headers).await;
        assert_eq!((&hello["resumed"], &frame["type"]), (&json!(resumed), &json!(first)), "{since} {headers:?}");
    }
    replica.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_refusal_is_a_stream_that_says_why_and_ends(_: PgPoolOptions, options: PgConnectOptions) {
    let replica = Replica::start(settings(url(&options))).await;
    for (query, origin, reason) in [
        ("feeds=nothing", None, "feeds: there is no feed nothing"),
        ("", None, "feeds: name at least one feed, as in ?feeds=texts"),
        ("feeds=texts&feeds=texts", None, "query: cannot be read"),
        ("feeds=texts", Some("http://evil.example"), "origin: not allowed, see ALLOWED_ORIGINS"),
        ("feeds=texts", Some("null"), "origin: not allowed, see ALLOWED_ORIGINS"),
    ] {
        let headers: Vec<_> = origin.map(|origin| ("origin", origin)).into_iter().collect();
        let mut stream = Stream::open(replica.addr, query, &headers).await;
        assert!(stream.head.starts_with("HTTP/1.1 200"), "{}", stream.head);
        assert!(stream.head.contains("content-type: text/event-stream\r\n"), "{}", stream.head);
        let readable = origin.map(|origin| format!("access-control-allow-origin: {origin}\r\n"));
        assert!(readable.is_none_or(|header| stream.head.contains(&header)), "{}", stream.head);
        assert_eq!(stream.next().await, Got::Close(1008, reason.to_owned()), "{query}");
        // What follows is nothing, and the connection serves the next request.
        assert!(stream.head.contains("content-length: "), "{}", stream.head);
    }
    assert_eq!(replica.metric("tidemark_handshakes_total{outcome=\"origin\"}").await, 2.0);
    assert_eq!(replica.metric("tidemark_handshakes_total{outcome=\"query\"}").await, 3.0);
    assert_eq!(replica.metric("tidemark_closes_total{code=\"1008\"}").await, 5.0);
    let id = Uuid::new_v4();
    let answer = Stream::open(replica.addr, &format!("feeds=texts&visit={id}&n=x"), &[("connection", "close")])
        .await
        .rest()
        .await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("\"code\":\"bad_visit\""), "{answer}");
    replica.stop().await;
}

#[tokio::test]
async fn until_the_first_reading_streams_are_told_to_wait() {
    let nowhere = store::DatabaseUrl::parse("postgres://nobody@127.0.0.1:1/nothing").unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let replica = Replica::start_unready(settings(nowhere), listener).await;
    let mut stream = Stream::open(replica.addr, "feeds=texts", &[]).await;
    assert_eq!(stream.next().await, Got::Close(1013, "retry=500".into()));
    replica.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn pages_of_allowed_origins_may_read_it(_: PgPoolOptions, options: PgConnectOptions) {
    let mut own = settings(url(&options));
    own.origins = "https://friend.example".parse().unwrap();
    let replica = Replica::start(own).await;
    for origin in ["https://friend.example", "http://board.example:3000"] {
        let mut stream = Stream::open(replica.addr, "feeds=texts", &[("origin", origin)]).await;
        let allowed = format!("access-control-allow-origin: {origin}\r\n");
        assert!(stream.head.contains(&allowed) && stream.head.contains("vary: origin\r\n"), "{}", stream.head);
        assert_eq!(stream.next().await.json()["type"], "hello");
    }
    replica.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_client_that_goes_away_is_counted_out_at_once(_: PgPoolOptions, options: PgConnectOptions) {
    let replica = Replica::start(settings(url(&options))).await;
    let mut stream = Stream::open(replica.addr, "feeds=texts", &[]).await;
    stream.greeted().await;
    let (socket, before) = (replica.connect("feeds=texts").await, Instant::now());
    let counted = async |number| replica.metric(STREAMS).await == number;
    wait_until(LONG, "it is counted beside the socket", async || {
        counted(1.0).await && replica.metric("tidemark_connections").await == 2.0
    })
    .await;
    drop(stream);
    wait_until(LONG, "it is counted no more", async || counted(0.0).await).await;
    assert!(before.elapsed() < Duration::from_secs(4), "before the next beat: {:?}", before.elapsed());
    assert_eq!(replica.metric("tidemark_closes_total{code=\"none\"}").await, 1.0);
    assert_eq!(replica.metric("tidemark_connections{transport=\"ws\"}").await, 1.0);
    drop(socket);
    replica.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_page_on_a_stream_is_a_visitor_and_takes_its_visit_along(_: PgPoolOptions, options: PgConnectOptions) {
    let mut quick = settings(url(&options));
    quick.visitors.timing.grace = Duration::from_millis(300);
    let replica = Replica::start(quick).await;
    let mut wall = replica.connect("feeds=visitors").await;
    wall.greeted().await;
    let says = |frame: &Value, online: u64, total: u64| {
        frame["items"][0]["value"] == json!({"online": online, "total": total})
    };
    let visit = Uuid::new_v4();
    let mut page = Stream::open(replica.addr, &format!("feeds=visitors&visit={visit}&n=1"), &[]).await;
    wall.until(|frame| says(frame, 1, 1)).await;
    page.until(|frame| says(frame, 1, 1)).await;
    let probe = replica.connect(&format!("feeds=visitors&visit={visit}&n=2")).await;
    drop(page);
    let mut another = Stream::open(replica.addr, &format!("feeds=visitors&visit={}&n=1", Uuid::new_v4()), &[]).await;
    another.until(|frame| says(frame, 2, 2)).await;
    wall.until(|frame| says(frame, 2, 2)).await;
    drop((probe, another));
    wall.until(|frame| says(frame, 0, 2)).await;
    replica.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_replica_that_ends_moves_its_streams_and_waits_for_nobody_longer(
    _: PgPoolOptions,
    options: PgConnectOptions,
) {
    let mut own = settings(url(&options));
    own.drain = common::fixed(Duration::from_millis(300));
    let replica = Replica::start(own).await;
    let mut stays = Stream::open(replica.addr, "feeds=texts", &[]).await;
    stays.greeted().await;
    replica.signals.stop.cancel();
    let began = Instant::now();
    assert!(stays.until(|frame| frame["type"] == "move").await["graceMs"].as_u64().unwrap() <= 2_300);
    assert_eq!(stays.next().await, Got::Close(1012, "the replica restarts".into()));
    assert_eq!(stays.next().await, Got::End);
    tokio::time::timeout(LONG, replica.task).await.unwrap().unwrap().unwrap();
    // Window 0.3 s, 2 s to leave, 1.5 s to stop.
    assert!(began.elapsed() < Duration::from_millis(3_800), "{:?}", began.elapsed());
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_replica_whose_streams_have_left_ends_at_once(_: PgPoolOptions, options: PgConnectOptions) {
    let mut own = settings(url(&options));
    own.drain = common::fixed(Duration::from_millis(100));
    let replica = Replica::start(own).await;
    let mut stream = Stream::open(replica.addr, "feeds=texts", &[]).await;
    stream.greeted().await;
    replica.signals.stop.cancel();
    stream.until(|frame| frame["type"] == "move").await;
    drop(stream);
    let left = Instant::now();
    tokio::time::timeout(LONG, replica.task).await.unwrap().unwrap().unwrap();
    assert!(left.elapsed() < Duration::from_millis(1_500), "{:?}", left.elapsed());
}

/// A replica whose connections have buffers so small that a few frames fill them.
async fn with_small_buffers(options: &PgConnectOptions, stall: Duration) -> Replica {
    let mut own = settings(url(options));
    own.stall = stall;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(4096).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let replica = Replica::start_unready(own, socket.listen(64).unwrap()).await;
    wait_until(LONG, "the replica is ready", async || replica.ready().await.0).await;
    replica
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_stream_that_is_not_read_is_cut_and_the_others_notice_nothing(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let pool = pool.connect_lazy_with(options.clone());
    let replica = with_small_buffers(&options, Duration::from_secs(2)).await;
    let mut witness = Stream::open(replica.addr, "feeds=texts", &[]).await;
    witness.greeted().await;
    let _stuck = Stream::open_small(replica.addr, "feeds=texts").await;
    wait_until(LONG, "both are connected", async || replica.metric(STREAMS).await == 2.0).await;
    replica.until_stalled(&pool, async |count| drop(witness.until_count(count).await)).await;
    wait_until(LONG, "the stuck client is gone", async || replica.metric(STREAMS).await == 1.0).await;
    replica.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_slow_reader_skips_values_and_ends_with_the_newest(pool: PgPoolOptions, options: PgConnectOptions) {
    let pool = pool.connect_lazy_with(options.clone());
    let replica = with_small_buffers(&options, LONG).await;
    let mut witness = Stream::open(replica.addr, "feeds=texts", &[]).await;
    witness.greeted().await;
    let mut slow = Stream::open_small(replica.addr, "feeds=texts").await;
    slow.greeted().await;
    let sent = async || replica.metric("tidemark_frames_total{type=\"set\"}").await;
    // It reads nothing until the frames of a second went to one of the two only. A frame of its own that is counted late is seen in the next round.
    let (mut saved, mut alone, mut counted) = (0_i64, 0, sent().await);
    while alone < 20 {
        save(&pool, 1).await;
        saved += 1;
        witness.until_count(saved).await;
        let now = sent().await;
        alone = if now == counted + 1.0 { alone + 1 } else { 0 };
        counted = now;
        assert!(saved < 2_000, "its buffers hold everything");
    }
    let mut counts = Vec::new();
    while counts.last() != Some(&saved) {
        let set = slow.until(|frame| frame["type"] == "set").await;
        counts.push(set["items"][0]["value"]["count"].as_i64().unwrap());
    }
    assert!(counts.is_sorted(), "{counts:?}");
    let held_back = counts.iter().rev().nth(1).unwrap();
    assert!(saved - held_back >= 20, "the newest follows on what the buffers held: {counts:?}");
    replica.stop().await;
}
