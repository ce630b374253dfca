//! One trace from the request that saves to the frames that tell of it, through two processes and a database.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;

use std::time::Duration;

use common::{
    Client, LONG,
    collector::{Collector, Received},
    process::Running,
};
use futures_util::future::join_all;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use test_support::wait_for;
use tokio::{net::TcpListener, time::Instant};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// Between two batches of spans; five seconds by default.
const QUICK: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "50");

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{CALLER}-{flags}")
}

async fn texts(dashboard: &Running) -> Client {
    let mut client = Client::connect(dashboard.public, "feeds=texts", &[]).await.unwrap();
    client.greeted().await;
    client
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_save_is_one_trace_from_the_request_through_the_commit_to_the_push(
    _: PgPoolOptions,
    options: PgConnectOptions,
) {
    let collector = Collector::start().await;
    let url = collector.url();
    let app = Running::start("app", &options, &[(ENDPOINT, &url), QUICK, ("OTEL_SERVICE_NAME", "the-app")]).await;
    let mut dashboard = Running::start("dashboard", &options, &[(ENDPOINT, &url), QUICK]).await;
    let (mut one, mut two) = (texts(&dashboard).await, texts(&dashboard).await);

    app.save(&[("traceparent", &traceparent("01"))]).await;
    one.until_count(1).await;
    two.until_count(1).await;

    let save = collector.span("the request", |got| got.span.name == "POST /save").await;
    let commit = collector.span("the commit", |got| got.span.name == "commit").await;
    let push = collector.span("the push", |got| got.span.name == "push").await;
    assert_eq!((save.service.as_str(), push.service.as_str()), ("the-app", "dashboard"));
    assert_eq!(save.place(), (TRACE.into(), CALLER.into()), "the caller's trace goes on");
    assert_eq!(commit.place(), (TRACE.into(), save.id()));
    assert_eq!(push.place(), (TRACE.into(), save.id()));
    assert_eq!(save.number("http.response.status_code"), Some(201.0));
    assert_eq!((push.text("tidemark.feed"), push.number("tidemark.frames")), (Some("texts".into()), Some(2.0)));
    assert_eq!(push.number("tidemark.version"), Some(1.0));
    let latency = push.number("tidemark.latency_ms").unwrap();
    assert!((0.0..1_000.0).contains(&latency), "{latency}");
    // Two processes of one machine: their clocks are one.
    let (begin, end) = (save.span.start_time_unix_nano, push.span.end_time_unix_nano);
    assert!(begin < push.span.start_time_unix_nano && push.span.start_time_unix_nano < end);
    assert!(Duration::from_nanos(end - begin) < Duration::from_secs(1), "the span ends with the last frame");

    // Whoever brings no trace begins one; whoever wants none gets none, and what it changed is not followed.
    app.save(&[]).await;
    let own = collector.span("a trace of its own", |got| got.span.name == "push" && got.place().0 != TRACE).await;
    let root = collector.span("its root", |got| got.id() == own.place().1).await;
    assert_eq!((root.span.name.as_str(), root.place().1.as_str()), ("POST /save", ""));
    let before = collector.spans().len();
    app.save(&[("traceparent", &traceparent("00"))]).await;
    one.until_count(3).await;
    dashboard.stop().await;
    assert_eq!(collector.spans().len(), before, "{:?}", collector.spans().last());
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_batch_is_in_the_trace_of_one_request_and_links_to_the_others(_: PgPoolOptions, options: PgConnectOptions) {
    let collector = Collector::start().await;
    let mut app = Running::start("app", &options, &[(ENDPOINT, &collector.url()), QUICK]).await;
    // While one commit is in flight the others wait, and are the next batch.
    let is_batch = |got: &Received| got.span.name == "commit" && !got.span.links.is_empty();
    let some_batch = async || {
        join_all((0..8).map(|_| app.save(&[]))).await;
        collector.spans().into_iter().find(is_batch)
    };
    let (batch, _) = wait_for(LONG, "a commit for several requests", some_batch).await;
    // The spans of its requests end after it.
    app.stop().await;

    let spans = collector.spans();
    let saves = || spans.iter().filter(|got| got.span.name == "POST /save");
    assert_eq!(batch.number("rows"), Some(batch.span.links.len() as f64 + 1.0), "{batch:?}");
    assert_eq!(saves().filter(|save| save.place().0 == batch.place().0 && save.id() == batch.place().1).count(), 1);
    for link in &batch.span.links {
        assert!(saves().any(|save| save.span.span_id == link.span_id && save.span.trace_id == link.trace_id));
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn without_an_endpoint_nothing_is_traced(pool: PgPool) {
    let collector = Collector::start().await;
    let options = PgConnectOptions::clone(&pool.connect_options());
    // The variable for traces alone is read by the library, but it does not turn them on.
    let (traces, empty) = (("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", collector.url()), (ENDPOINT, ""));
    let mut app = Running::start("app", &options, &[(traces.0, &traces.1), QUICK]).await;
    let mut dashboard = Running::start("dashboard", &options, &[(traces.0, &traces.1), empty, QUICK]).await;
    let mut client = texts(&dashboard).await;
    app.save(&[("traceparent", &traceparent("01"))]).await;
    client.until_count(1).await;
    let traced = "SELECT count(*) FROM tidemark.feed_values() WHERE traceparent IS NOT NULL";
    assert_eq!(sqlx::query_scalar::<_, i64>(traced).fetch_one(&pool).await.unwrap(), 0);
    tokio::join!(app.stop(), dashboard.stop());
    assert!(collector.spans().is_empty(), "{:?}", collector.spans());
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_collector_that_answers_nothing_slows_neither_saves_nor_the_end(_: PgPoolOptions, options: PgConnectOptions) {
    // It takes connections and bytes, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let plain = Running::start("app", &options, &[]).await;
    let mut traced =
        Running::start("app", &options, &[(ENDPOINT, &url), QUICK, ("OTEL_BSP_MAX_QUEUE_SIZE", "20")]).await;
    let timed = async |app: &Running| {
        let began = Instant::now();
        app.save(&[]).await;
        began.elapsed().as_secs_f64()
    };
    let (mut with, mut without) = (Vec::new(), Vec::new());
    // Two spans each: the queue is full after some of them.
    for _ in 0..60 {
        without.push(timed(&plain).await);
        with.push(timed(&traced).await);
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let (with, without) = (median(&mut with), median(&mut without));
    // A save that waited for the collector would take two seconds; the rest is for a busy machine.
    assert!(with < without * 2.0 + 0.01, "{with} s with a collector, {without} s without");

    let away = "the collector of traces is away";
    wait_for(LONG, "the app says that the collector is away", async || (traced.said(away) > 0).then_some(())).await;
    traced.save(&[]).await;
    // Another batch is on its way to nowhere now. The app is idle: beside it, half a second.
    let took = traced.stop().await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(traced.said(away), 1);
}
