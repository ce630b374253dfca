//! What the tests of this crate share: the program on a database of its own.
#![allow(dead_code, reason = "each test file is a program of its own and uses a part of this")]

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chrono::DateTime;
use serde_json::Value;
use sqlx::{PgPool, postgres::PgConnectOptions};
use test_support::{Answer, Program, Proxy, through, with_database};

/// Long against anything that a healthy system does, also on a machine that compiles at the same time.
pub const LONG: Duration = Duration::from_secs(20);

pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_metric-generator"))
}

/// A generator on the pool's database that is not ready yet.
pub async fn start_unready(database: &str, extra: &[(&str, &str)]) -> Program {
    Program::start(program(), &[&[("DATABASE_URL", database)], extra].concat()).await
}

/// A ready generator on the pool's database.
pub async fn start(pool: &PgPool, extra: &[(&str, &str)]) -> Program {
    let running = start_unready(&url(pool, pool.connect_options().get_port()), extra).await;
    running.ready().await;
    running
}

/// A ready generator on the other side of a proxy.
pub async fn start_behind_proxy(pool: &PgPool, extra: &[(&str, &str)]) -> (Program, Proxy) {
    let options = PgConnectOptions::clone(&pool.connect_options());
    let mut targets = tokio::net::lookup_host((options.get_host(), options.get_port())).await.unwrap();
    let proxy = Proxy::start(targets.next().unwrap()).await.unwrap();
    let running = start_unready(&url(pool, proxy.addr().port()), extra).await;
    running.ready().await;
    (running, proxy)
}

/// The address of the test's own database on this port, with the password that the server wants.
pub fn url(pool: &PgPool, port: u16) -> String {
    let server = std::env::var("DATABASE_URL").unwrap();
    let database = with_database(&server, pool.connect_options().get_database().unwrap());
    through(&database, SocketAddr::from(([127, 0, 0, 1], port)))
}

pub fn json(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("no JSON: {answer:?}"))
}

/// The samples of an answer.
#[track_caller]
pub fn metrics(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{answer:?}");
    json(answer)["metrics"].as_array().unwrap().clone()
}

/// The second of a sample, since 1970.
pub fn second(sample: &Value) -> i64 {
    let text = sample["timestamp"].as_str().unwrap();
    assert!(text.len() == 20 && text.ends_with('Z'), "{text}");
    DateTime::parse_from_rfc3339(text).unwrap().timestamp()
}

pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// Checks that this is an error of the common shape.
#[track_caller]
pub fn is_error(answer: &Answer, status: u16, code: &str) {
    let body = json(answer);
    assert_eq!((answer.status, body["error"]["code"].as_str()), (status, Some(code)), "{answer:?}");
    assert!(body["error"]["message"].as_str().is_some_and(|message| !message.is_empty()));
    assert_eq!(answer.head.contains("retry-after:"), status == 503, "{answer:?}");
}

/// How often a server and second is stored twice, or a second of a server is missing between its first and its last.
pub async fn faults(pool: &PgPool) -> (i64, i64) {
    let faults = "
        SELECT coalesce(sum(count - seconds), 0)::bigint, coalesce(sum(span - seconds), 0)::bigint FROM (
          SELECT count(*), count(DISTINCT second) AS seconds, extract(epoch FROM max(second) - min(second))::bigint + 1 AS span
          FROM tidemark.metrics GROUP BY server_id) AS servers";
    sqlx::query_as(faults).fetch_one(pool).await.unwrap()
}

/// How many seconds of the first server are stored.
pub async fn seconds(pool: &PgPool) -> i64 {
    let seconds = "SELECT count(*) FROM tidemark.metrics WHERE server_id = 'server-1'";
    sqlx::query_scalar(seconds).fetch_one(pool).await.unwrap()
}
