//! More clients than a replica takes: each is told when to come again, in a way that it can read.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;

use std::time::Duration;

use common::{
    LONG, Replica,
    crowd::{Arrival, arrive, join},
    masked, settings, url,
};
use dashboard::admission::Limits;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use test_support::wait_until;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::Instant,
};

async fn replica(options: &PgConnectOptions, limits: Limits) -> Replica {
    let mut own = settings(url(options));
    own.limits = limits;
    Replica::start(own).await
}

async fn outcome(replica: &Replica, outcome: &str) -> f64 {
    replica.metric(&format!("tidemark_handshakes_total{{outcome=\"{outcome}\"}}")).await
}

/// A cursor of this replica. The handshake is new, as any without one.
async fn cursor(replica: &Replica) -> String {
    let (_, first) = replica.connect("feeds=texts").await.greeted().await;
    first["cursor"].as_str().unwrap().to_owned()
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_crowd_is_closed_with_1013_comes_again_as_told_and_is_served(_: PgPoolOptions, options: PgConnectOptions) {
    let replica = replica(&options, Limits { rate: 50, burst: 20, connections: 1_000 }).await;
    let (clients, began) = (100, Instant::now());
    let mut crowd = JoinSet::new();
    for _ in 0..clients {
        let addr = replica.addr;
        crowd.spawn(async move { join(addr, "feeds=texts").await });
    }
    let served = crowd.join_all().await;
    let took = began.elapsed();
    // Ten at once, half of the burst; the other ninety at fifty a second.
    assert!(took >= Duration::from_millis(1_750), "{took:?}: faster than the rate");
    assert_eq!(replica.metric("tidemark_connections").await, f64::from(clients));
    let handshakes: usize = served.iter().map(|(.., tries)| tries).sum();
    let refused = outcome(&replica, "rate").await;
    assert_eq!(refused, handshakes as f64 - f64::from(clients));
    assert!((80.0..=200.0).contains(&refused), "{refused} times somebody was sent away");
    replica.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn who_resumes_is_served_while_new_clients_storm(_: PgPoolOptions, options: PgConnectOptions) {
    let replica = replica(&options, Limits { rate: 20, burst: 40, connections: 1_000 }).await;
    let resuming = format!("feeds=texts&since={}", cursor(&replica).await);
    // New clients that do not wait as they are told, all the time.
    let mut storm = JoinSet::new();
    for _ in 0..20 {
        let addr = replica.addr;
        storm.spawn(async move {
            loop {
                if let Arrival::On { stream, .. } = arrive(addr, "feeds=texts").await {
                    std::mem::forget(stream);
                }
            }
        });
    }
    wait_until(LONG, "new clients are sent away", async || outcome(&replica, "rate").await > 50.0).await;
    for n in 0..20 {
        let arrival = arrive(replica.addr, &resuming).await;
        assert!(matches!(arrival, Arrival::On { .. }), "number {n} that resumes: {arrival:?}");
    }
    storm.abort_all();
    replica.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn above_the_cap_clients_are_told_to_come_again_and_above_the_hard_cap_they_are_not_even_upgraded(
    _: PgPoolOptions,
    options: PgConnectOptions,
) {
    // Four sockets beside the one that is served: a burst of 3, and a rate of 1 in the second that a closing handshake may take.
    let replica = replica(&options, Limits { rate: 1, burst: 3, connections: 1 }).await;
    let served = arrive(replica.addr, "feeds=texts").await;
    assert!(matches!(served, Arrival::On { .. }), "{served:?}");
    let Arrival::Later(wait) = arrive(replica.addr, "feeds=texts").await else { panic!("served above the cap") };
    assert!((1_100..=1_700).contains(&wait.as_millis()), "{wait:?}");
    assert_eq!(outcome(&replica, "full").await, 1.0);

    // Refused ones that do not close their half occupy their socket until the server gives up.
    let mut lingering = Vec::new();
    while outcome(&replica, "flood").await == 0.0 {
        let mut stream = TcpStream::connect(replica.addr).await.unwrap();
        let request = "GET /ws?feeds=texts HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
            sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        lingering.push((head, stream));
        assert!(lingering.len() < 100, "a hundred came, and all were upgraded");
    }
    assert_eq!(&lingering.pop().unwrap().0, b"HTTP/1.1 503");
    let Arrival::Rejected(answer) = arrive(replica.addr, "feeds=texts").await else { panic!("upgraded") };
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    // It is told to a client that makes a place, too.
    let Arrival::On { mut stream, .. } = served else { unreachable!("checked above") };
    stream.write_all(&masked(0x88, &1000_u16.to_be_bytes())).await.unwrap();
    drop((stream, lingering));
    wait_until(LONG, "there is room again", async || {
        matches!(arrive(replica.addr, "feeds=texts").await, Arrival::On { .. })
    })
    .await;
    replica.stop().await;
}
