//! Storing texts at an app that answers as it is told.
#![expect(clippy::unwrap_used, reason = "a test that panics has said what it found")]

mod common;

use std::{
    fs,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::post};
use common::{Place, authority::Authority};
use serde_json::{Value, json};
use test_support::Proxy;
use tidemark::{
    client::Trust,
    save::{Outcome, Retry, Saver},
};
use tokio::{io::AsyncReadExt, net::TcpListener};
use uuid::Uuid;

/// Waits that a test can bear.
const QUICK: Retry = Retry {
    attempts: 4,
    patience: Duration::from_secs(10),
    wait: Duration::from_millis(1),
    longest_wait: Duration::from_millis(5),
};

/// Statuses to answer with, one after the other; the last one stays.
#[derive(Clone)]
struct App {
    answers: Arc<Mutex<Vec<u16>>>,
    got: Arc<Mutex<Vec<Value>>>,
}

impl App {
    async fn serve(answers: &[u16]) -> (Self, SocketAddr) {
        let answers = answers.iter().rev().copied().collect();
        let app = Self { answers: Arc::new(Mutex::new(answers)), got: Arc::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().route("/board/save", post(answer)).with_state(app.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        (app, address)
    }
}

async fn answer(State(app): State<App>, Json(body): Json<Value>) -> impl IntoResponse {
    app.got.lock().unwrap().push(body);
    let mut answers = app.answers.lock().unwrap();
    let status = if answers.len() > 1 { answers.pop() } else { answers.first().copied() };
    let status = StatusCode::from_u16(status.unwrap()).unwrap();
    (status, Json(json!({"error": {"code": "a_code", "message": "a message"}})))
}

fn saver(address: SocketAddr) -> Saver {
    Saver::new(&format!("http://{address}/board/"), &Trust::system()).unwrap()
}

#[tokio::test]
async fn a_text_is_tried_under_one_id_until_it_is_stored() {
    let (app, address) = App::serve(&[503, 502, 201]).await;
    let id = Uuid::new_v4();
    let saved = saver(address).save(id, "a text", QUICK).await;
    let failures: Vec<_> = saved.failures.into_iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(saved.last.outcome, Outcome::Stored);
    assert_eq!(failures, [Outcome::Unavailable(503), Outcome::Unavailable(502)]);
    assert_eq!(*app.got.lock().unwrap(), vec![json!({"id": id, "text": "a text"}); 3]);
}

#[tokio::test]
async fn a_refusal_is_final_and_attempts_have_an_end() {
    let rejected = Outcome::Rejected { code: "a_code".into(), message: "a message".into() };
    for (status, outcome, attempts) in
        [(409, Outcome::Conflict, 1), (422, rejected, 1), (503, Outcome::Unavailable(503), 4)]
    {
        let (app, address) = App::serve(&[status]).await;
        let saved = saver(address).save(Uuid::new_v4(), "a text", QUICK).await;
        assert_eq!((saved.last.outcome, saved.failures.len()), (outcome, attempts - 1));
        assert_eq!(app.got.lock().unwrap().len(), attempts);
    }
}

#[tokio::test]
async fn connections_are_kept_for_the_next_text() {
    let (_, address) = App::serve(&[201]).await;
    let proxy = Proxy::start(address).await.unwrap();
    let saver = saver(proxy.addr());
    for _ in 0..5 {
        assert_eq!(saver.clone().attempt(Uuid::new_v4(), "a text", QUICK.patience).await, Outcome::Stored);
    }
    assert_eq!(proxy.accepted(), 1);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_told_from_one_that_is_not_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let listening = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
    });
    let silent = saver(address).attempt(Uuid::new_v4(), "a text", Duration::from_secs(1)).await;
    assert_eq!(silent, Outcome::Unreachable("no answer within 1s".into()));
    // The attempt hung up, and nobody listens any more.
    listening.await.unwrap();
    let gone = saver(address).attempt(Uuid::new_v4(), "a text", QUICK.patience).await;
    assert!(matches!(&gone, Outcome::Unreachable(reason) if reason.contains("Connection refused")), "{gone}");
}

#[tokio::test]
async fn only_a_trusted_server_with_the_right_name_gets_a_text() {
    let (app, behind) = App::serve(&[201]).await;
    let authority = Authority::new("the right one");
    let port = authority.serve(&["localhost"], behind).await.port();
    let place = Place::new();
    fs::write(place.work.join("ca.pem"), &authority.pem).unwrap();
    let trust = Trust::with_ca(&place.work.join("ca.pem")).unwrap();
    for (host, trust, expected) in [
        ("localhost", &trust, "stored"),
        ("localhost", &Trust::system(), "name the authority's file with --ca"),
        ("127.0.0.1", &trust, r#"not valid for name "127.0.0.1""#),
    ] {
        let saver = Saver::new(&format!("https://{host}:{port}/board"), trust).unwrap();
        let outcome = saver.attempt(Uuid::new_v4(), "a text", QUICK.patience).await;
        assert!(outcome.to_string().contains(expected), "{outcome}");
    }
    assert_eq!(app.got.lock().unwrap().len(), 1);
}
