//! A replica that is told to end moves its clients away, one after the other.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;

use std::{process::Stdio, time::Duration};

use common::{Client, Got, LONG, Replica, fixed, settings, url};
use dashboard::drain::Window;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use test_support::wait_until;
use tokio::{
    process::Command,
    task::JoinSet,
    time::{Instant, timeout},
};

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn clients_are_moved_over_the_window_and_new_ones_are_refused(_: PgPoolOptions, options: PgConnectOptions) {
    let mut own = settings(url(&options));
    own.drain = fixed(Duration::from_secs(2));
    let replica = Replica::start(own).await;
    let mut clients = Vec::new();
    for _ in 0..40 {
        let mut client = replica.connect("feeds=texts").await;
        client.greeted().await;
        clients.push(client);
    }
    replica.signals.stop.cancel();
    let began = Instant::now();
    wait_until(LONG, "readiness fails", async || !replica.ready().await.0).await;
    wait_until(LONG, "new sockets are refused", async || {
        Client::connect(replica.addr, "feeds=texts", &[]).await.is_err()
    })
    .await;
    let moved: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            tokio::spawn(async move {
                let frame = client.until(|frame| frame["type"] == "move").await;
                let at = began.elapsed();
                client.send(&common::masked(0x88, &1000_u16.to_be_bytes())).await;
                (at, frame["graceMs"].as_u64().unwrap())
            })
        })
        .collect();
    let mut at = Vec::new();
    for task in moved {
        let (moved, grace) = task.await.unwrap();
        assert!(grace <= 4_000, "within window and leave: {grace}");
        at.push(moved);
    }
    at.sort();
    assert!(at[39] - at[0] > Duration::from_millis(1_000), "spread over the window: {at:?}");
    assert!(at[39] < Duration::from_millis(2_500), "all within the window: {at:?}");
    // Everybody left, so it does not wait for the end of the window.
    timeout(Duration::from_secs(2), replica.task).await.expect("it ends at once").unwrap().unwrap();
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn many_clients_move_no_faster_than_another_replica_takes_them(_: PgPoolOptions, options: PgConnectOptions) {
    let mut own = settings(url(&options));
    own.limits.rate = 20;
    own.drain = Window { least: Duration::from_millis(200), most: Duration::from_secs(10) };
    let replica = Replica::start(own).await;
    let mut clients = JoinSet::new();
    for _ in 0..60 {
        let mut client = replica.connect("feeds=texts").await;
        client.greeted().await;
        clients.spawn(async move {
            let grace = client.until(|frame| frame["type"] == "move").await["graceMs"].as_u64().unwrap();
            (Instant::now(), Duration::from_millis(grace))
        });
    }
    replica.signals.stop.cancel();
    let began = Instant::now();
    let mut moved = clients.join_all().await;
    moved.sort();
    // 60 clients at 20 a second; nobody else holds a lease, and one replica is counted on.
    let (first, last) = (moved[0].0 - began, moved[59].0 - began);
    assert!(last - first > Duration::from_secs(2), "spread over 3 s: {first:?} to {last:?}");
    assert!(last < Duration::from_millis(3_500), "all within 3 s: {last:?}");
    // 3 s and 2 s to leave, less what has passed.
    for (at, grace) in moved {
        let end = at - began + grace;
        assert!(end.abs_diff(Duration::from_secs(5)) < Duration::from_millis(500), "{end:?}");
    }
    replica.signals.hurry.cancel();
    timeout(LONG, replica.task).await.unwrap().unwrap().unwrap();
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn who_does_not_leave_is_closed_with_1012_and_the_end_comes_in_time(_: PgPoolOptions, options: PgConnectOptions) {
    let mut own = settings(url(&options));
    own.drain = fixed(Duration::from_millis(300));
    let replica = Replica::start(own).await;
    let mut client = replica.connect("feeds=texts").await;
    client.greeted().await;
    replica.signals.stop.cancel();
    let began = Instant::now();
    assert_eq!(client.until(|frame| frame["type"] == "move").await["type"], "move");
    assert_eq!(client.next().await, Got::Close(1012, "the replica restarts".into()));
    drop(client);
    timeout(LONG, replica.task).await.unwrap().unwrap().unwrap();
    // Window 0.3 s, 2 s to leave, 2 s to stop.
    assert!(began.elapsed() < Duration::from_millis(4_500), "{:?}", began.elapsed());
}

/// The real binary on a database that cannot be reached: enough for what concerns the process itself.
fn dashboard() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dashboard"));
    command.env_clear().envs([
        ("DATABASE_URL", "postgres://user:hunter2@127.0.0.1:1/nothing"),
        ("HOST", "127.0.0.1"),
        ("PORT", "0"),
        ("ADMIN_PORT", "0"),
        ("DRAIN_SECONDS", "0"),
    ]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

#[tokio::test]
async fn a_wrong_or_missing_variable_ends_the_process_with_2_and_is_named() {
    for (variable, value) in [
        ("DATABASE_URL", None),
        ("DATABASE_URL", Some("mysql://user:hunter2@host/db")),
        ("DATABASE_URL", Some("")),
        ("LISTEN_DATABASE_URL", Some("hunter2")),
        ("PORT", Some("many")),
        ("ADMIN_PORT", Some("70000")),
        ("HOST", Some("not an address")),
        ("ALLOWED_ORIGINS", Some("friend.example")),
        ("DRAIN_SECONDS", Some("-1")),
        ("DRAIN_MAX_SECONDS", Some("-1")),
        ("HANDSHAKE_RATE", Some("0")),
        ("HANDSHAKE_BURST", Some("0")),
        ("MAX_CONNECTIONS", Some("many")),
        ("UNSENT_BYTES", Some("-1")),
        ("SEND_BUFFER_BYTES", Some("16k")),
        ("LOG_FORMAT", Some("xml")),
        ("RUST_LOG", Some("=,=")),
    ] {
        let mut command = dashboard();
        match value {
            Some(value) => command.env(variable, value),
            None => command.env_remove(variable),
        };
        let output = timeout(LONG, command.output()).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{variable}={value:?}: {said}");
        assert!(said.contains(variable), "{variable}={value:?}: {said}");
        assert!(!said.contains("hunter2"), "a secret is printed: {said}");
    }
}

#[tokio::test]
async fn sigterm_ends_the_process_with_0() {
    let mut child = dashboard().spawn().unwrap();
    let mut log = tokio::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    timeout(LONG, tokio::io::AsyncBufReadExt::read_line(&mut log, &mut line)).await.unwrap().unwrap();
    assert!(line.contains("listening") && !line.contains("hunter2"), "{line}");
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    let status = timeout(LONG, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
}
