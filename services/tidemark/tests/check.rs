//! `tidemark check` against the real system, and against parts that keep something back.
#![expect(clippy::unwrap_used, reason = "a test that panics has said what it found")]

mod common;

use std::{fs, net::SocketAddr, time::Duration};

use axum::{Router, http::StatusCode, routing::post};
use common::{
    Place,
    authority::Authority,
    demo::Demo,
    script::{Act, Script, hello, set},
};
use futures_util::future::join_all;
use nix::sys::signal::Signal;
use serde_json::json;
use test_support::ReservedPort;
use tidemark::{
    client::Trust,
    save::{Outcome, Retry, Saver},
};
use tokio::{net::TcpListener, time::Instant};
use uuid::Uuid;

/// An app that stores nothing, and says that it did.
async fn app() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = Router::new().route("/save", post(async || StatusCode::CREATED));
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    address
}

#[tokio::test]
async fn a_healthy_system_passes_in_three_lines_with_and_without_tls() {
    let demo = Demo::start(&[]).await;
    let authority = Authority::new("the right one");
    let port = authority.serve(&["localhost"], demo.address).await.port();
    fs::write(demo.place.work.join("ca.pem"), &authority.pem).unwrap();
    let (plain, encrypted) = (format!("http://{}", demo.address), format!("https://localhost:{port}"));
    for (count, flags) in [
        ["--app", &plain].as_slice(),
        &["--app", &encrypted, "--ca", "ca.pem", "--timeout", "20"],
        &["--app", &plain, "--dashboard", &encrypted, "--ca", "ca.pem", "--feed", "texts"],
    ]
    .into_iter()
    .enumerate()
    {
        let mut run = demo.place.start(&[&["check"], flags].concat());
        assert_eq!(run.end().await, Some(0), "{}", run.err.text());
        let lines = run.out.all();
        assert_eq!(lines.len(), 3, "{}", run.out.text());
        assert!(
            lines[0].starts_with("dashboard-") && lines[0].ends_with(&format!(" shows texts {count}")),
            "{lines:?}"
        );
        assert_eq!(lines[1], format!("a text was stored at {}", flags[1]));
        assert!(lines[2].contains(&format!(" shows texts {}, ", count + 1)) && lines[2].ends_with(" ms after that"));
    }
    demo.stop(Signal::SIGTERM).await;
}

#[tokio::test]
async fn the_app_says_what_became_of_a_text() {
    let demo = Demo::start(&["--dashboards", "1"]).await;
    let saver = Saver::new(&format!("http://{}", demo.address), &Trust::system()).unwrap();
    // A busy app answers 503, and then the same id is sent again.
    let outcome = async |id, text| saver.save(id, text, Retry::default()).await.last.outcome;
    let id = Uuid::new_v4();
    assert_eq!(outcome(id, "one").await, Outcome::Stored);
    assert_eq!(outcome(id, "one").await, Outcome::Stored, "a repeat is no other text");
    assert_eq!(outcome(id, "two").await, Outcome::Conflict);
    let rejected = Outcome::Rejected { code: "text_empty".into(), message: "the text is empty".into() };
    assert_eq!(outcome(Uuid::new_v4(), " ").await, rejected);
    demo.stop(Signal::SIGTERM).await;
}

#[tokio::test]
async fn what_is_missing_is_told_in_time() {
    let app = format!("http://{}", app().await);
    let closed = ReservedPort::take().unwrap();
    let nobody = format!("http://{}", closed.addr());
    let other = json!({"type": "set", "cursor": "c", "items": [{"feed": "texts", "key": "", "version": 1, "value": {"online": 1}}]});
    let still = vec![Act::Say(hello("one")), Act::Say(set(1)), Act::Listen];
    let cases = [
        (&app, still.clone(), "error: texts stayed at 10 for"),
        (&app, vec![Act::Say(hello("one")), Act::Listen], "error: no count of texts from"),
        (&app, vec![Act::Say(hello("one")), Act::Say(other), Act::Listen], "error: no count of texts from"),
        (&app, vec![Act::Close(1008, "no such feed")], "error: the dashboard refused: no such feed"),
        (&nobody, still, "error: the text was not stored at http://127.0.0.1:"),
    ];
    // Together, so that each has enough time for the steps before the one that fails.
    join_all(cases.map(async |(app, acts, expected)| {
        let dashboard = format!("http://{}/board", Script::new(vec![acts]).serve().await);
        let (place, began) = (Place::new(), Instant::now());
        let mut run = place.start(&["check", "--app", app, "--dashboard", &dashboard, "--timeout", "5s"]);
        assert_eq!(run.end().await, Some(1), "{expected}");
        assert!(began.elapsed() < Duration::from_secs(15), "{expected}");
        assert!(run.err.text().starts_with(expected), "{}", run.err.text());
    }))
    .await;
    let place = Place::new();
    let mut run = place.start(&["check", "--app", &nobody, "--timeout", "1s"]);
    assert_eq!(run.end().await, Some(1));
    assert!(run.err.text().contains("failed to connect: Connection refused"), "{}", run.err.text());
}

#[tokio::test]
async fn what_cannot_be_checked_is_named() {
    let place = Place::new();
    for (flags, part) in [
        (["--app", "board.example"].as_slice(), "board.example"),
        (&["--app", "http://a.example", "--dashboard", "ftp://b.example"], "ftp://b.example"),
        (&["--app", "http://a.example", "--feed", "a,b"], "feeds: a name is"),
        (&["--app", "http://a.example", "--timeout", "soon"], "seconds, as in 15s"),
        (&["--app", "https://a.example", "--ca", "missing.pem"], "missing.pem"),
        (&[], "--app"),
    ] {
        let mut run = place.start(&[&["check"], flags].concat());
        assert_eq!(run.end().await, Some(2), "{part}");
        assert!(run.err.text().contains(part), "{}", run.err.text());
    }
}
