//! The feed `servers`: follows a generator that comes, goes, is slow, or answers rubbish. The generator here is a stand-in that misbehaves as told.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use common::{Client, Replica, settings, url};
use dashboard::{Settings, servers::ServersConfig};
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use test_support::{Proxy, wait_until};
use tokio::{net::TcpListener, time::Instant};

/// A generator that is back is noticed within this time.
const RECOVERY: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Fine,
    Refuses,
    Rubbish,
    Hangs,
}

/// What the stand-in does, and what it was asked.
#[derive(Debug)]
struct Script {
    mood: Mood,
    servers: Vec<String>,
    /// Questions for samples, by server.
    asked: BTreeMap<String, usize>,
}

#[derive(Debug, Clone)]
struct StandIn {
    script: Arc<Mutex<Script>>,
    address: SocketAddr,
}

impl StandIn {
    async fn start(servers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let servers = servers.iter().map(|server| (*server).to_owned()).collect();
        let script = Arc::new(Mutex::new(Script { mood: Mood::Fine, servers, asked: BTreeMap::new() }));
        let stand_in = Self { script, address: listener.local_addr().unwrap() };
        let routes = Router::new()
            .route("/servers", get(Self::list))
            .route("/metrics", get(Self::latest))
            .with_state(stand_in.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        stand_in
    }

    fn set(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap());
    }

    fn asked(&self, server: &str) -> usize {
        self.script.lock().unwrap().asked.get(server).copied().unwrap_or_default()
    }

    async fn list(State(own): State<Self>) -> Response {
        let servers = own.script.lock().unwrap().servers.clone();
        own.answer(json!({ "serverIds": servers })).await
    }

    async fn latest(State(own): State<Self>, Query(query): Query<BTreeMap<String, String>>) -> Response {
        assert_eq!(query["limit"], "1");
        let server = query["serverId"].clone();
        own.set(|script| *script.asked.entry(server.clone()).or_default() += 1);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let timestamp = chrono::DateTime::from_timestamp(i64::try_from(now.as_secs()).unwrap(), 0).unwrap();
        let metric = json!({ "id": server, "cpu_usage": 12.5, "memory_usage": 50.0, "disk_usage": 80.0, "timestamp": timestamp });
        own.answer(json!({ "metrics": [metric] })).await
    }

    async fn answer(&self, value: Value) -> Response {
        let mood = self.script.lock().unwrap().mood;
        match mood {
            Mood::Fine => Json(value).into_response(),
            Mood::Refuses => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            Mood::Rubbish => "<html>a page of some proxy</html>".into_response(),
            Mood::Hangs => std::future::pending().await,
        }
    }
}

fn with_generator(options: &PgConnectOptions, address: SocketAddr) -> Settings {
    let mut settings = settings(url(options));
    let url = format!("http://{address}").parse().unwrap();
    settings.servers = ServersConfig { list_interval: Duration::from_millis(500), ..ServersConfig::new(Some(url)) };
    settings
}

fn keys(frame: &Value) -> Vec<&str> {
    frame["items"].as_array().into_iter().flatten().map(|item| item["key"].as_str().unwrap()).collect()
}

fn is_complete(frame: &Value) -> bool {
    frame["complete"] == json!(["servers"])
}

/// Reads until a value of this server arrives.
async fn value_of(client: &mut Client, server: &str) -> Value {
    client.until(|frame| keys(frame).contains(&server)).await
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn every_server_has_a_worker_that_asks_each_second_and_the_page_is_told(
    _pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let generator = StandIn::start(&["server-1", "server 2/ä"]).await;
    let replica = Replica::start(with_generator(&options, generator.address)).await;
    assert_eq!(replica.metric("tidemark_server_workers").await, 2.0);
    let mut client = replica.connect("feeds=servers").await;
    let (_, first) = client.greeted().await;
    assert!(is_complete(&first), "ready means that every server has had its turn: {first}");
    assert_eq!(keys(&first), ["server 2/ä", "server-1"]);
    let item = &first["items"][1];
    assert_eq!((&item["value"]["cpu_usage"], &item["value"]["disk_usage"]), (&json!(12.5), &json!(80.0)));
    let (version, began, asked) = (item["version"].as_u64().unwrap(), Instant::now(), generator.asked("server-1"));
    // Five later samples, and about as many questions.
    let newer = |frame: &Value| {
        let items = frame["items"].as_array().into_iter().flatten();
        items.clone().any(|item| item["key"] == "server-1" && item["version"].as_u64().unwrap() >= version + 5)
    };
    let frame = client.until(newer).await;
    assert!(frame["ageMs"]["servers"].as_u64().unwrap() < 2_000, "{frame}");
    let (seconds, questions) = (began.elapsed().as_secs_f64(), (generator.asked("server-1") - asked) as f64);
    assert!((questions - seconds).abs() <= 2.0, "{questions} questions in {seconds} s");
    // One key of the feed, as an element of another page asks for it.
    let (_, one) = replica.connect("feeds=servers:server-1").await.greeted().await;
    assert_eq!((keys(&one), is_complete(&one)), (vec!["server-1"], true));
    replica.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn servers_come_and_go_with_the_list(_pool: PgPoolOptions, options: PgConnectOptions) {
    let generator = StandIn::start(&["a", "b"]).await;
    let replica = Replica::start(with_generator(&options, generator.address)).await;
    let mut client = replica.connect("feeds=servers").await;
    client.greeted().await;
    let mut element = replica.connect("feeds=servers:a").await;
    element.greeted().await;
    generator.set(|script| script.servers = vec!["b".into(), "c".into()]);
    let removed = element.until(is_complete).await;
    assert_eq!(keys(&removed), [""; 0], "who asked for this one only is told too");
    let removed = client.until(is_complete).await;
    assert!(!keys(&removed).contains(&"a"), "{removed}");
    value_of(&mut client, "c").await;
    assert_eq!(replica.metric("tidemark_server_workers").await, 2.0);
    let asked = generator.asked("a");
    value_of(&mut client, "b").await;
    value_of(&mut client, "b").await;
    assert_eq!(generator.asked("a"), asked, "nobody asks for a server that is gone");
    generator.set(|script| script.servers.clear());
    let empty = client.until(|frame| is_complete(frame) && keys(frame).is_empty()).await;
    assert!(empty["ageMs"]["servers"].is_u64(), "{empty}");
    replica.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_generator_that_refuses_hangs_or_answers_rubbish_makes_values_old_and_nothing_else(
    _pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let generator = StandIn::start(&["a"]).await;
    let replica = Replica::start(with_generator(&options, generator.address)).await;
    let mut client = replica.connect("feeds=servers,texts").await;
    client.greeted().await;
    let cases = [(Mood::Refuses, "refused"), (Mood::Rubbish, "rubbish"), (Mood::Hangs, "timed_out")];
    for (mood, outcome) in cases {
        let failures = format!("tidemark_generator_requests_total{{outcome=\"{outcome}\"}}");
        let before = replica.metric(&failures).await;
        generator.set(|script| script.mood = mood);
        let old = async || {
            let (_, first) = replica.connect("feeds=servers,texts").await.greeted().await;
            assert!(is_complete(&first) && keys(&first) == ["a", ""], "the last values stay: {first}");
            first["ageMs"]["servers"].as_u64().unwrap() > 1_500
        };
        wait_until(common::LONG, "the values are old", old).await;
        assert!(replica.metric(&failures).await > before, "{mood:?} is counted as {outcome}");
        assert!(replica.ready().await.0, "{mood:?}: a dashboard without its generator still has everything else");
        generator.set(|script| script.mood = Mood::Fine);
        let back = Instant::now();
        value_of(&mut client, "a").await;
        assert!(back.elapsed() < RECOVERY + Duration::from_millis(250), "{mood:?}: {:?}", back.elapsed());
    }
    replica.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_generator_that_is_down_at_the_start_delays_readiness_by_two_seconds_at_most(
    _pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let generator = StandIn::start(&["a"]).await;
    let way = Proxy::start(generator.address).await.unwrap();
    way.cut();
    let began = Instant::now();
    let replica = Replica::start(with_generator(&options, way.addr())).await;
    assert!((Duration::from_millis(1_900)..Duration::from_secs(4)).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert!(replica.ready().await.1.contains("the generator gives no list: failed to reach it"));
    let mut client = replica.connect("feeds=servers").await;
    let (_, first) = client.greeted().await;
    assert_eq!((&first["type"], first["ageMs"].get("servers")), (&json!("beat"), None), "nothing is known: {first}");
    way.restore();
    let back = Instant::now();
    let known = client.until(|frame| is_complete(frame) && keys(frame) == ["a"]).await;
    assert!(back.elapsed() < RECOVERY, "{:?}: {known}", back.elapsed());
    replica.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn without_a_generator_the_feed_is_there_and_empty(_pool: PgPoolOptions, options: PgConnectOptions) {
    let replica = Replica::start(settings(url(&options))).await;
    let (_, first) = replica.connect("feeds=servers").await.greeted().await;
    assert!(is_complete(&first) && keys(&first).is_empty(), "{first}");
    replica.stop().await;
}
