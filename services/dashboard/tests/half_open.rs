//! Peers that are gone, or take nothing more, without a word: each is closed within 30 s, as the settings of production have it.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;

use std::time::Duration;

use common::{
    LONG, Replica,
    crowd::{Arrival, arrive},
    save, settings, url,
};
use socket2::{SockFilter, SockRef};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use test_support::wait_until;
use tokio::{net::TcpStream, time::Instant};

/// What the server may take to notice, and what this machine may take to do something.
const NOTICED: Duration = Duration::from_secs(30);
const SLACK: Duration = Duration::from_secs(2);

async fn connected(replica: &Replica) -> TcpStream {
    match arrive(replica.addr, "feeds=texts").await {
        Arrival::On { stream, .. } => stream,
        other => panic!("{other:?}"),
    }
}

async fn open(replica: &Replica, count: f64) -> bool {
    replica.metric("tidemark_connections").await == count
}

/// From now on the kernel throws away every segment that comes for this socket, before TCP sees it: nothing is acknowledged, as if a cable were cut. A
/// filter of one instruction, `BPF_RET | BPF_K` with 0, keeps no byte of any packet.
fn cut(stream: &TcpStream) {
    SockRef::from(stream).attach_filter(&[SockFilter::new(0x06, 0, 0, 0)]).unwrap();
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_peer_that_acknowledges_nothing_is_closed_within_thirty_seconds(_: PgPoolOptions, options: PgConnectOptions) {
    let replica = Replica::start(settings(url(&options))).await;
    let (gone, mut there) = (connected(&replica).await, replica.connect("feeds=texts").await);
    there.greeted().await;
    wait_until(LONG, "both are on", async || open(&replica, 2.0).await).await;
    cut(&gone);
    // Nothing changes meanwhile: the beats alone have to show it.
    let took = wait_until(NOTICED + SLACK, "the dead one is closed", async || open(&replica, 1.0).await).await;
    println!("a peer that acknowledges nothing was closed after {took:?}");
    assert!(took > Duration::from_secs(20), "{took:?}: a pause in the network is no loss");
    assert!(took < NOTICED, "{took:?}");
    assert_eq!(replica.metric("tidemark_stalled_total").await, 1.0);
    assert_eq!(there.until_within(Duration::from_secs(6), |frame| frame["type"] == "beat").await["type"], "beat");
    replica.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_peer_that_vanished_before_it_asked_for_anything_is_closed(_: PgPoolOptions, options: PgConnectOptions) {
    let replica = Replica::start(settings(url(&options))).await;
    let silent = TcpStream::connect(replica.addr).await.unwrap();
    let port = silent.local_addr().unwrap().port();
    // The server's end, as proc_net_tcp(5) lists it: local and remote address, and 01, which is established.
    let end = format!("0100007F:{:04X} 0100007F:{port:04X} 01", replica.addr.port());
    let established = async || std::fs::read_to_string("/proc/net/tcp").unwrap().contains(&end);
    wait_until(LONG, "the connection is there", async || established().await).await;
    cut(&silent);
    let took = wait_until(NOTICED + SLACK, "it is closed", async || !established().await).await;
    println!("a peer that vanished before its request was closed after {took:?}");
    assert!(took < NOTICED, "{took:?}");
    replica.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_peer_that_acknowledges_but_takes_nothing_is_closed_within_thirty_seconds_of_it(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let pool = pool.connect_lazy_with(options.clone());
    let mut own = settings(url(&options));
    // So that few frames fill it.
    own.sockets.send_buffer = Some(4_096);
    let replica = Replica::start(own).await;
    // Its kernel acknowledges until its buffer is full, and then says that there is no room.
    let stopped = common::Client::connect_small(replica.addr, "feeds=texts").await;
    wait_until(LONG, "it is on", async || open(&replica, 1.0).await).await;
    let sets = async || replica.metric("tidemark_frames_total{type=\"set\"}").await;
    // Changes until no frame can be sent for a second.
    let (mut sent, mut since) = (sets().await, Instant::now());
    while since.elapsed() < Duration::from_secs(1) {
        save(&pool, 1).await;
        let now = sets().await;
        if now != sent {
            (sent, since) = (now, Instant::now());
        }
    }
    wait_until(NOTICED + SLACK, "the stopped one is closed", async || open(&replica, 0.0).await).await;
    let took = since.elapsed();
    println!("a peer that takes nothing was closed {took:?} after the last frame");
    assert!(took > Duration::from_secs(15), "{took:?}: a pause is no end");
    assert!(took < NOTICED, "{took:?}");
    assert_eq!(replica.metric("tidemark_stalled_total").await, 1.0);
    drop(stopped);
    replica.stop().await;
}
