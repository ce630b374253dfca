//! `tidemark postgres` as a program: what the command sees, and what is left afterwards.
#![expect(clippy::unwrap_used, reason = "a test that panics has said what it found")]

mod common;

use common::{LONG, Place, names};
use nix::sys::signal::Signal;
use sqlx::{Connection, PgConnection};
use test_support::{wait_until, with_database};
use tokio::io::AsyncWriteExt;

/// Tells the address and waits for a line.
const TELL: [&str; 3] = ["sh", "-c", r#"echo "$DATABASE_URL"; read line; exit 7"#];

fn arguments<'a>(flags: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
    [&["postgres"], flags, &["--"], command].concat()
}

async fn number(connection: &mut PgConnection, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(connection).await.unwrap()
}

#[tokio::test]
async fn the_command_gets_a_database_and_gives_the_exit_code_and_nothing_is_left() {
    let place = Place::new();
    let mut run = place.start(&arguments(&[], &TELL));
    let url = run.out.line("postgres://").await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::query("CREATE DATABASE another").execute(&mut connection).await.unwrap();
    let mut another = PgConnection::connect(&with_database(&url, "another")).await.unwrap();
    assert_eq!(number(&mut another, "SELECT 42::bigint").await, 42);
    assert_eq!(number(&mut another, "SELECT current_setting('max_connections')::bigint").await, 200);
    assert_eq!(names(&place.temporary).len(), 1);
    let wrong = url.replacen("postgres:", "postgres:x", 2);
    assert!(PgConnection::connect(&wrong).await.is_err(), "a wrong password opens nothing");
    run.input.as_mut().unwrap().write_all(b"\n").await.unwrap();
    assert_eq!(run.end().await, Some(7));
    assert!(PgConnection::connect(&url).await.is_err(), "the server has gone");
    assert!(place.is_clean(), "{:?}", names(&place.temporary));
    assert_eq!(run.err.text(), "");
}

#[tokio::test]
async fn data_is_kept_in_the_directory_that_was_named() {
    let place = Place::new();
    let data = place.work.join("kept");
    let flags = ["--data", data.to_str().unwrap()];
    for expected in 1..=2 {
        let mut run = place.start(&arguments(&flags, &TELL));
        let mut connection = PgConnection::connect(&run.out.line("postgres://").await).await.unwrap();
        sqlx::query("CREATE TABLE IF NOT EXISTS runs ()").execute(&mut connection).await.unwrap();
        sqlx::query("INSERT INTO runs DEFAULT VALUES").execute(&mut connection).await.unwrap();
        assert_eq!(number(&mut connection, "SELECT count(*) FROM runs").await, expected);
        drop(connection);
        assert_eq!(run.end().await, Some(7));
    }
    assert_eq!(names(&place.temporary), [""; 0]);
    assert_eq!(names(&place.work), ["kept"]);
}

#[tokio::test]
async fn a_directory_of_somebody_else_is_left_alone() {
    let place = Place::new();
    std::fs::write(place.work.join("photo.jpg"), "").unwrap();
    let mut run = place.start(&arguments(&["--data", "."], &["true"]));
    assert_eq!(run.end().await, Some(1));
    assert!(run.err.text().contains("not empty"), "{}", run.err.text());
    assert_eq!(names(&place.work), ["photo.jpg"]);
}

#[tokio::test]
async fn sigterm_is_passed_on_to_the_command() {
    let place = Place::new();
    let script = "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done";
    let mut run = place.start(&arguments(&[], &["sh", "-c", script]));
    run.out.line("up").await;
    run.signal(Signal::SIGTERM);
    assert_eq!(run.end().await, Some(3));
    assert!(place.is_clean());
}

#[tokio::test]
async fn a_sigkill_leaves_neither_server_nor_files() {
    let place = Place::new();
    let mut run = place.start(&arguments(&[], &TELL));
    let url = run.out.line("postgres://").await;
    assert!(PgConnection::connect(&url).await.is_ok());
    run.signal(Signal::SIGKILL);
    // The command is not ours to end; it reads the end of its input and goes.
    assert_eq!(run.end().await, None);
    wait_until(LONG, "the files have gone", async || place.is_clean()).await;
    assert!(PgConnection::connect(&url).await.is_err());
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let place = Place::new();
    let mut run = place.start(&arguments(&["--postgres-bin", "/nowhere"], &["true"]));
    assert_eq!(run.end().await, Some(1));
    assert!(run.err.text().contains("/nowhere has no initdb and postgres"), "{}", run.err.text());
    let mut run = place.start(&arguments(&[], &["/no/such/program"]));
    assert_eq!(run.end().await, Some(1));
    assert!(run.err.text().contains("failed to start /no/such/program"), "{}", run.err.text());
    assert!(place.is_clean());
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let place = Place::new();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port().to_string();
    let mut run = place.start(&arguments(&["--port", &port], &["true"]));
    assert_eq!(run.end().await, Some(1));
    assert!(run.err.text().contains(&port), "{}", run.err.text());
    assert!(place.is_clean());
}
