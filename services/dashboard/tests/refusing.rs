//! Bad input: each gets its answer, and the others on the replica notice nothing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;

use std::time::Duration;

use common::{Client, Got, LONG, Replica, masked, save, settings, url};
use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use test_support::wait_until;
use tokio::{net::TcpSocket, time::timeout};

async fn refused(replica: &Replica, query: &str, headers: &[(&str, &str)]) -> Got {
    Client::connect(replica.addr, query, headers).await.unwrap().next().await
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_bad_query_or_a_foreign_page_is_closed_with_the_reason(_: PgPoolOptions, options: PgConnectOptions) {
    let mut own = settings(url(&options));
    own.origins = "https://friend.example".parse().unwrap();
    let replica = Replica::start(own).await;
    let policy = |reason: &str| Got::Close(1008, reason.to_owned());
    assert_eq!(refused(&replica, "feeds=nothing", &[]).await, policy("feeds: there is no feed nothing"));
    assert_eq!(
        refused(&replica, "feeds=texts,No", &[]).await,
        policy("feeds: a name is 1 to 63 characters of a-z 0-9 _ -")
    );
    let none = policy("feeds: name at least one feed, as in ?feeds=texts");
    assert_eq!(refused(&replica, "", &[]).await, none);
    assert_eq!(refused(&replica, "feeds=", &[]).await, none);
    assert_eq!(refused(&replica, "feeds=texts&feeds=texts", &[]).await, policy("query: cannot be read"));
    let foreign = policy("origin: not allowed, see ALLOWED_ORIGINS");
    for origin in ["http://evil.example", "http://board.example:3001", "null"] {
        assert_eq!(refused(&replica, "feeds=texts", &[("origin", origin)]).await, foreign);
    }
    for origin in ["http://board.example:3000", "https://friend.example"] {
        assert_eq!(refused(&replica, "feeds=texts", &[("origin", origin)]).await.json()["type"], "hello");
    }
    assert_eq!(replica.metric("tidemark_handshakes_total{outcome=\"origin\"}").await, 3.0);
    replica.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_bad_cursor_is_no_cursor(_: PgPoolOptions, options: PgConnectOptions) {
    let replica = Replica::start(settings(url(&options))).await;
    let long = "x".repeat(4000);
    for cursor in ["", "nonsense", "%00", "a.b~c", long.as_str()] {
        let (hello, first) = replica.connect(&format!("feeds=texts&since={cursor}")).await.greeted().await;
        assert_eq!((&hello["resumed"], &first["type"]), (&json!(false), &json!("set")), "{cursor}");
    }
    replica.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn the_sub_protocol_is_ours_or_none(_: PgPoolOptions, options: PgConnectOptions) {
    let replica = Replica::start(settings(url(&options))).await;
    let offer =
        async |value: &str| Client::connect(replica.addr, "feeds=texts", &[("sec-websocket-protocol", value)]).await;
    for ours in ["tidemark.v1", "graphql-ws, tidemark.v1"] {
        assert!(offer(ours).await.unwrap().head.contains("sec-websocket-protocol: tidemark.v1\r\n"), "{ours}");
    }
    assert!(!replica.connect("feeds=texts").await.head.contains("sec-websocket-protocol"));
    for unknown in ["graphql-ws", "tidemark.v2", ""] {
        assert!(offer(unknown).await.err().unwrap().starts_with("HTTP/1.1 400"), "{unknown}");
    }
    replica.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_plain_request_is_told_what_to_do(_: PgPoolOptions, options: PgConnectOptions) {
    let replica = Replica::start(settings(url(&options))).await;
    let get = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let mut stream = tokio::net::TcpStream::connect(replica.addr).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            text
        }
    };
    let answer = get("/ws?feeds=texts").await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("\"code\":\"no_websocket\""), "{answer}");
    let answer = get("/").await;
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("\"code\":\"not_found\""), "{answer}");
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_client_that_breaks_the_rules_is_closed_and_the_others_notice_nothing(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let pool = pool.connect_lazy_with(options.clone());
    let replica = Replica::start(settings(url(&options))).await;
    let mut witness = replica.connect("feeds=texts").await;
    witness.greeted().await;
    let oversized_header = [0x82, 0x80 | 127, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4];
    let cases: [(&str, Vec<u8>, u16); 12] = [
        ("a text frame", masked(0x81, b"hello"), 1008),
        ("a binary frame", masked(0x82, &[0, 159, 146, 150]), 1008),
        ("an empty text frame", masked(0x81, b""), 1008),
        ("the first fragment of a message", masked(0x01, b"hel"), 1008),
        ("a continuation of nothing", masked(0x80, b"lo"), 1008),
        ("an oversized frame", masked(0x82, &[7; 70_000]), 1008),
        ("the header of a frame of 4 GiB", oversized_header.to_vec(), 1008),
        ("an unmasked text frame", b"\x81\x02hi".to_vec(), 1002),
        ("an unmasked ping", b"\x89\x00".to_vec(), 1002),
        ("reserved bits", masked(0xF1, b"x"), 1002),
        ("a reserved opcode", masked(0x83, b"x"), 1002),
        ("a fragmented ping", masked(0x09, b"x"), 1002),
    ];
    for (what, bytes, code) in cases {
        let mut client = replica.connect("feeds=texts").await;
        client.greeted().await;
        client.send(&bytes).await;
        match client.next().await {
            Got::Close(got, reason) => assert_eq!((got, reason.is_empty()), (code, false), "{what}: {reason}"),
            other => panic!("{what}: {other:?}"),
        }
        assert_eq!(client.next().await, Got::End, "{what}");
    }
    save(&pool, 1).await;
    witness.until_count(1).await;
    wait_until(LONG, "only the witness is left", async || replica.metric("tidemark_connections").await == 1.0).await;
    replica.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_client_that_stops_reading_is_cut_and_the_others_get_every_change_on_time(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let pool = pool.connect_lazy_with(options.clone());
    let mut strict = settings(url(&options));
    strict.stall = Duration::from_secs(2);
    // Accepted sockets inherit the small send buffer, so that a few frames fill it.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(4096).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let replica = Replica::start_unready(strict, socket.listen(64).unwrap()).await;
    wait_until(LONG, "the replica is ready", async || replica.ready().await.0).await;

    let mut witness = replica.connect("feeds=texts").await;
    witness.greeted().await;
    let _stuck = Client::connect_small(replica.addr, "feeds=texts").await;
    wait_until(LONG, "both are connected", async || replica.metric("tidemark_connections").await == 2.0).await;
    replica.until_stalled(&pool, async |count| drop(witness.until_count(count).await)).await;
    wait_until(LONG, "the stuck client is gone", async || replica.metric("tidemark_connections").await == 1.0).await;
    replica.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_flood_of_pings_slows_down_only_who_sends_it(pool: PgPoolOptions, options: PgConnectOptions) {
    let pool = pool.connect_lazy_with(options.clone());
    let replica = Replica::start(settings(url(&options))).await;
    let mut witness = replica.connect("feeds=texts").await;
    witness.greeted().await;
    let flood = replica.connect("feeds=texts").await;
    let pings = masked(0x89, &[9; 125]).repeat(100);
    let mut write = flood.write;
    let flooding = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        // It never reads its pongs, so at some time nothing more is taken from it.
        while let Ok(Ok(())) = timeout(Duration::from_secs(1), write.write_all(&pings)).await {}
    });
    timeout(LONG, flooding).await.expect("the flood meets its limit").unwrap();
    save(&pool, 1).await;
    witness.until_count(1).await;
    replica.stop().await;
}
