//! The front against little servers that behave well and badly.
#![expect(clippy::unwrap_used, reason = "a test that panics has said what it found")]

mod common;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use common::{LONG, request};
use fastwebsockets::upgrade::IncomingUpgrade;
use runtime::Tasks;
use test_support::wait_until;
use tidemark::front::{Backend, Door, Front, Membership, bind, serve};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::{Instant, interval, timeout},
};

/// How a replica behaves.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// Answers with its name and what it got.
    Answers,
    /// Nobody listens.
    Refuses,
    /// Accepts, and never says a word.
    Hangs,
    /// Reads a request and closes.
    Dies,
    /// Takes no clients.
    Full,
    /// Sends its name as an event, again and again.
    Streams,
    /// Sends one event, and dies.
    BreaksOff,
}

/// What a replica got: its name, the request's first line and its body.
type Got = (String, String, String);

struct Stand {
    front: Arc<Front>,
    address: SocketAddr,
    tasks: Tasks,
    got: mpsc::UnboundedReceiver<Got>,
    report: mpsc::UnboundedSender<Got>,
}

impl Stand {
    async fn new() -> Self {
        let tasks = Tasks::default();
        let front = Arc::new(Front::new(&tasks));
        let listener = bind([127, 0, 0, 1].into(), 0).await.unwrap();
        let address = listener.local_addr().unwrap();
        tasks.tracker.spawn(serve(listener, Arc::clone(&front), Door::Users));
        let (report, got) = mpsc::unbounded_channel();
        Self { front, address, tasks, got, report }
    }

    /// A ready replica of the app or the dashboard.
    async fn replica(&self, service: &str, name: &str, manner: Manner) -> (Membership, Arc<AtomicBool>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (name, report) = (name.to_owned(), self.report.clone());
        let behave = async move {
            match manner {
                Manner::Refuses => drop(listener),
                Manner::Answers | Manner::Full | Manner::Streams => {
                    let routes = Router::new().route("/ws", get(echo)).fallback(answer);
                    let routes = if manner == Manner::Answers { routes } else { routes.route("/events", get(events)) };
                    let routes = routes.with_state((name, report, manner == Manner::Full));
                    axum::serve(listener, routes).await.unwrap();
                }
                Manner::Hangs | Manner::Dies | Manner::BreaksOff => {
                    let mut held = Vec::new();
                    while let Ok((mut stream, _)) = listener.accept().await {
                        let mut bytes = vec![0; 65_536];
                        let length = stream.read(&mut bytes).await.unwrap();
                        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
                        let (line, _) = text.split_once("\r\n").unwrap();
                        report.send((name.clone(), line.to_owned(), String::new())).unwrap();
                        match manner {
                            Manner::Hangs => held.push(stream),
                            Manner::BreaksOff => stream.write_all(BROKEN.as_bytes()).await.unwrap(),
                            _ => {}
                        }
                    }
                }
            }
        };
        let ready = Arc::new(AtomicBool::new(true));
        let admin_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = admin_listener.local_addr().unwrap();
        let says = Arc::clone(&ready);
        let readyz = async move || {
            if says.load(Ordering::Relaxed) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
        };
        let admin_routes = Router::new().route("/readyz", get(readyz));
        let token = self.tasks.token.clone();
        self.tasks.tracker.spawn(token.clone().run_until_cancelled_owned(behave));
        self.tasks.tracker.spawn(token.run_until_cancelled_owned(async move {
            axum::serve(admin_listener, admin_routes).await.unwrap();
        }));
        let pool = if service == "app" { &self.front.apps } else { &self.front.dashboards };
        let mut place = pool.join(Backend { address, admin });
        timeout(LONG, place.ready()).await.expect("a ready replica");
        (place, ready)
    }

    /// Who got requests since the last time, in order.
    fn receivers(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        while let Ok((name, ..)) = self.got.try_recv() {
            names.push(name);
        }
        names
    }

    async fn end(self) {
        assert!(self.tasks.stop(LONG).await, "every task ends");
    }
}

type Shared = (String, mpsc::UnboundedSender<Got>, bool);

async fn answer(State((name, report, _)): State<Shared>, request: axum::extract::Request) -> String {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    let host = parts.headers["host"].to_str().unwrap();
    let told = format!("{name} {} {} {host} {}", parts.method, parts.uri, body.len());
    report.send((name, format!("{} {}", parts.method, parts.uri), body)).unwrap();
    told
}

/// Upgrades and sends every byte back; the front looks at none of them.
async fn echo(
    State((name, report, full)): State<Shared>,
    upgrade: IncomingUpgrade,
) -> Result<axum::response::Response, StatusCode> {
    report.send((name, "upgrade".to_owned(), String::new())).unwrap();
    if full {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    let (mut response, upgraded) = upgrade.upgrade().unwrap();
    response.headers_mut().insert("sec-websocket-protocol", "tidemark.v1".parse().unwrap());
    tokio::spawn(async move {
        let (mut read, mut write) = tokio::io::split(upgraded.await.unwrap().into_inner());
        let _ = tokio::io::copy(&mut read, &mut write).await;
    });
    Ok(axum::response::IntoResponse::into_response(response))
}

const BROKEN: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\nb\r\ndata: one\n\n\r\n";

async fn events(State((name, report, full)): State<Shared>) -> Result<impl axum::response::IntoResponse, StatusCode> {
    report.send((name.clone(), "events".to_owned(), String::new())).unwrap();
    if full {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    let ticks = futures_util::stream::unfold(interval(Duration::from_millis(20)), move |mut ticks| {
        let event = format!("data: {name}\n\n");
        async move {
            ticks.tick().await;
            Some((Ok::<_, std::convert::Infallible>(event), ticks))
        }
    });
    Ok(([("content-type", "text/event-stream")], axum::body::Body::from_stream(ticks)))
}

/// Asks for events; the stream and the head of the answer.
async fn follow(address: SocketAddr) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /events?feeds=texts HTTP/1.1\r\nhost: board.example:3000\r\n\r\n").await.unwrap();
    let head = until(&mut stream, "\r\n\r\n").await;
    (stream, head.to_lowercase())
}

/// Reads until this comes.
async fn until(stream: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        read.push(timeout(LONG, stream.read_u8()).await.unwrap().unwrap());
    }
    String::from_utf8(read).unwrap()
}

/// A WebSocket handshake by hand; the stream and the head of the answer.
async fn upgrade(address: SocketAddr) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = "GET /ws?feeds=texts HTTP/1.1\r\nhost: board.example:3000\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: tidemark.v1\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = until(&mut stream, "\r\n\r\n").await;
    (stream, head.to_lowercase())
}

async fn echoes(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut back = vec![0; text.len()];
    timeout(LONG, stream.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(back, text.as_bytes());
}

const SAVE: &str = r#"{"id":"0b54","text":"a"}"#;

#[tokio::test]
async fn requests_take_turns_and_arrive_as_they_were_sent() {
    let mut stand = Stand::new().await;
    let _a = stand.replica("app", "a", Manner::Answers).await;
    let _b = stand.replica("app", "b", Manner::Answers).await;
    let _d = stand.replica("dashboard", "d", Manner::Answers).await;
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(request(stand.address, "POST /save?x=%20y", SAVE).await.unwrap().body);
    }
    let expected = |name| format!("{name} POST /save?x=%20y board.example:3000 {}", SAVE.len());
    assert_eq!(answers.iter().filter(|answer| **answer == expected("a")).count(), 2);
    assert_eq!(answers.iter().filter(|answer| **answer == expected("b")).count(), 2);
    assert!(request(stand.address, "GET /events?feeds=texts", "").await.unwrap().body.starts_with("d GET /events"));
    stand.receivers();
    stand.end().await;
}

#[tokio::test]
async fn the_next_replica_answers_for_one_that_refuses_hangs_or_dies_and_gets_the_same_body() {
    for (manner, received) in [(Manner::Refuses, false), (Manner::Hangs, true), (Manner::Dies, true)] {
        let mut stand = Stand::new().await;
        let _bad = stand.replica("app", "bad", manner).await;
        let _good = stand.replica("app", "good", Manner::Answers).await;
        // Two requests, so that one of them has the bad replica first.
        for _ in 0..2 {
            let began = Instant::now();
            let answer = request(stand.address, "POST /save", SAVE).await.unwrap();
            assert_eq!((answer.status, answer.body.ends_with(&SAVE.len().to_string())), (200, true));
            assert!(began.elapsed() < Duration::from_secs(5));
        }
        let receivers = stand.receivers();
        assert_eq!(receivers.iter().filter(|name| *name == "good").count(), 2, "once for each request");
        assert_eq!(receivers.iter().filter(|name| *name == "bad").count(), usize::from(received));
        stand.end().await;
    }
}

#[tokio::test]
async fn a_save_without_an_id_is_never_given_to_two_replicas() {
    let mut stand = Stand::new().await;
    let _bad = stand.replica("app", "bad", Manner::Dies).await;
    let _good = stand.replica("app", "good", Manner::Answers).await;
    let mut answers = Vec::new();
    for _ in 0..2 {
        answers.push(request(stand.address, "POST /save", r#"{"text":"a"}"#).await.unwrap().status);
    }
    answers.sort_unstable();
    assert_eq!(answers, [200, 503]);
    let mut receivers = stand.receivers();
    receivers.sort();
    assert_eq!(receivers, ["bad", "good"]);
    stand.end().await;
}

#[tokio::test]
async fn without_a_replica_that_answers_the_client_is_told_to_come_back() {
    let stand = Stand::new().await;
    for manner in [None, Some(Manner::Refuses), Some(Manner::Dies)] {
        let _place = match manner {
            Some(manner) => Some(stand.replica("app", "bad", manner).await),
            None => None,
        };
        let answer = request(stand.address, "GET /all", "").await.unwrap();
        assert_eq!(answer.status, 503);
        assert!(answer.head.contains("retry-after: 1") && answer.head.contains("application/json"), "{}", answer.head);
        assert_eq!(answer.body, r#"{"error":{"code":"no_replica","message":"no replica answers, try again"}}"#);
    }
    stand.end().await;
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let mut stand = Stand::new().await;
    let _a = stand.replica("app", "a", Manner::Answers).await;
    let answer = request(stand.address, "POST /save", &"x".repeat(1024 * 1024)).await.unwrap();
    assert_eq!(answer.status, 200, "a body of exactly the limit");
    let answer = request(stand.address, "POST /save", &"x".repeat(1024 * 1024 + 1)).await.unwrap();
    assert_eq!(answer.status, 413);
    assert!(answer.body.contains(r#""code":"body_too_large""#));
    assert_eq!(stand.receivers().len(), 1);
    stand.end().await;
}

#[tokio::test]
async fn a_replica_that_is_not_ready_gets_nothing_until_it_is_again() {
    let mut stand = Stand::new().await;
    let (_a, ready) = stand.replica("app", "a", Manner::Answers).await;
    let _b = stand.replica("app", "b", Manner::Answers).await;
    let address = stand.address;
    let served_by = async || request(address, "GET /", "").await.unwrap().body.chars().next();
    ready.store(false, Ordering::Relaxed);
    let both_are_b = async || served_by().await == Some('b') && served_by().await == Some('b');
    wait_until(LONG, "only b serves", both_are_b).await;
    ready.store(true, Ordering::Relaxed);
    wait_until(LONG, "a serves again", async || served_by().await == Some('a')).await;
    stand.receivers();
    stand.end().await;
}

#[tokio::test]
async fn a_websocket_finds_a_replica_that_takes_it_and_keeps_it_when_replicas_come_and_go() {
    for manner in [Manner::Refuses, Manner::Hangs, Manner::Full] {
        let mut stand = Stand::new().await;
        let (bad, _) = stand.replica("dashboard", "bad", manner).await;
        let (good, _) = stand.replica("dashboard", "good", Manner::Answers).await;
        let mut streams = Vec::new();
        for _ in 0..2 {
            let (mut stream, head) = upgrade(stand.address).await;
            assert!(head.starts_with("http/1.1 101"), "{head}");
            assert!(head.contains("sec-websocket-protocol: tidemark.v1"), "{head}");
            echoes(&mut stream, "before").await;
            streams.push(stream);
        }
        drop((bad, good));
        let _new = stand.replica("dashboard", "new", Manner::Answers).await;
        for stream in &mut streams {
            echoes(stream, "after").await;
        }
        stand.receivers();
        stand.end().await;
        for stream in &mut streams {
            let end = timeout(LONG, stream.read_u8()).await.unwrap();
            assert!(end.is_err(), "the end of the front is the end of its tunnels");
        }
    }
}

#[tokio::test]
async fn a_stream_finds_a_replica_that_takes_it_and_is_kept_when_replicas_come_and_go() {
    for manner in [Manner::Refuses, Manner::Hangs, Manner::Full] {
        let mut stand = Stand::new().await;
        let (bad, _) = stand.replica("dashboard", "bad", manner).await;
        let (good, _) = stand.replica("dashboard", "good", Manner::Streams).await;
        let mut streams = Vec::new();
        for _ in 0..2 {
            let began = Instant::now();
            let (mut stream, head) = follow(stand.address).await;
            assert!(head.starts_with("http/1.1 200") && head.contains("content-type: text/event-stream"), "{head}");
            // While the answer goes on: nothing on the way waits for its end.
            until(&mut stream, "data: good\n\n").await;
            assert!(began.elapsed() < Duration::from_secs(1), "a client waits no longer: {:?}", began.elapsed());
            streams.push(stream);
        }
        drop((bad, good));
        let _new = stand.replica("dashboard", "new", Manner::Streams).await;
        for stream in &mut streams {
            until(stream, "data: good\n\n").await;
        }
        stand.receivers();
        // These streams have no end of their own: a front that waited for them would not end.
        stand.end().await;
        for stream in &mut streams {
            let mut rest = String::new();
            timeout(LONG, stream.read_to_string(&mut rest)).await.expect("the end of the stream").unwrap();
        }
    }
}

#[tokio::test]
async fn a_stream_whose_replica_dies_breaks_off_and_nothing_is_put_into_it() {
    let stand = Stand::new().await;
    let _dying = stand.replica("dashboard", "dying", Manner::BreaksOff).await;
    let (mut stream, head) = follow(stand.address).await;
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    let mut rest = Vec::new();
    // An end or a reset, either is the end.
    let _ = timeout(LONG, stream.read_to_end(&mut rest)).await.expect("the end of the stream");
    let rest = String::from_utf8(rest).unwrap();
    assert_eq!(rest.to_lowercase(), "b\r\ndata: one\n\n\r\n", "no page of an error, and no end as if all were well");
    stand.end().await;
}
