//! `tidemark watch` against a server that follows a script.
#![expect(clippy::unwrap_used, reason = "a test that panics has said what it found")]

mod common;

use std::{process::Stdio, sync::Arc};

use axum::{Router, response::Html, routing::get};
use common::{
    LONG, Place,
    script::{Act, Script, connect, hello, set, stream},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use test_support::ReservedPort;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    process::Command,
    time::timeout,
};

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| {
            let mut value: Value = serde_json::from_str(line).unwrap();
            let object = value.as_object_mut().unwrap();
            assert!(object.remove("time").is_some());
            // How long it took is different in each run.
            object.remove("ageMs");
            object.remove("ms");
            value
        })
        .collect()
}

#[tokio::test]
async fn every_change_and_every_handover_is_a_line_and_the_cursor_goes_along() {
    let script = Script::new(vec![
        vec![Act::Say(hello("one")), Act::Say(set(1)), Act::Say(set(2)), Act::Close(1012, "restart")],
        vec![Act::Say(hello("two")), Act::Say(set(2)), Act::Say(set(3)), Act::Listen],
    ]);
    let address = script.serve().await;
    let place = Place::new();
    let mut run = place.start(&["watch", &format!("http://{address}/board/"), "--json"]);
    run.out.line(r#""version":3"#).await;
    run.signal(Signal::SIGINT);
    assert_eq!(run.end().await, Some(0));
    let item = |replica: &str, version: u64| {
        json!({"type": "item", "replica": replica, "feed": "texts", "key": "", "version": version,
            "value": {"count": version * 10}})
    };
    let status = |status: &str, replica: Option<&str>| json!({"type": "status", "status": status, "replica": replica});
    let expected = [
        status("connecting", None),
        status("live", Some("one")),
        item("one", 1),
        item("one", 2),
        status("reconnecting", Some("one")),
        status("live", Some("two")),
        json!({"type": "handover", "from": "one", "to": "two", "planned": false}),
        item("two", 3),
    ];
    assert_eq!(lines(&run.out.text()), expected);
    assert_eq!(*script.queries.lock().unwrap(), ["feeds=texts", "feeds=texts&since=c%2F2"]);
    let farewells = Arc::clone(&script.farewells);
    let said = async || (*farewells.lock().unwrap() == [1000]).then_some(());
    test_support::wait_for(LONG, "the client says good-bye", said).await;
    assert_eq!(run.err.text(), "");
}

#[tokio::test]
async fn a_refusal_is_told_and_is_the_end() {
    let script = Script::new(vec![vec![Act::Close(1008, "feeds: there is no feed texts")]]);
    let address = script.serve().await;
    let place = Place::new();
    let mut run = place.start(&["watch", &format!("http://{address}/board")]);
    assert_eq!(run.end().await, Some(1));
    assert_eq!(run.err.text(), "error: the server refused: feeds: there is no feed texts");
    assert!(run.out.text().ends_with("refused: feeds: there is no feed texts"), "{}", run.out.text());
}

#[tokio::test]
async fn what_cannot_be_watched_is_named() {
    let place = Place::new();
    for (arguments, part) in [
        (["watch", "localhost:3000"].as_slice(), "localhost:3000"),
        (&["watch", "ftp://board.example"], "ftp://board.example"),
        (&["watch", "--feeds", "Texts"], "feeds"),
    ] {
        let mut run = place.start(arguments);
        assert_eq!(run.end().await, Some(2));
        assert!(run.err.text().contains(part), "{}", run.err.text());
    }
}

#[tokio::test]
async fn an_address_where_nobody_listens_is_told_once_while_it_goes_on_trying() {
    let mut closed = ReservedPort::take().unwrap();
    let place = Place::new();
    let mut run = place.start(&["watch", &format!("http://{}", closed.addr())]);
    run.out.line("no connection: failed to connect: Connection refused").await;
    let script = Script::new(vec![vec![Act::Say(hello("one")), Act::Say(set(1)), Act::Listen]]);
    closed.hand_over();
    let listener = TcpListener::bind(closed.addr()).await.unwrap();
    let routes = Router::new().route("/ws", get(connect)).with_state(script);
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    run.out.line("one  texts  10  version 1").await;
    assert_eq!(run.out.all().len(), 4, "connecting, no connection, live, the value: {}", run.out.text());
    run.signal(Signal::SIGINT);
    assert_eq!(run.end().await, Some(0));
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_ends_it_quietly() {
    let script = Script::new(vec![vec![Act::Say(hello("one")), Act::Flood]]);
    let url = format!("http://{}/board", script.serve().await);
    let pipe = r#"{ "$0" watch "$1" --json; echo "code $?" >&2; } | head -n 1"#;
    let mut command = Command::new("sh");
    command.args(["-c", pipe, env!("CARGO_BIN_EXE_tidemark"), &url]).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = timeout(LONG, command.output()).await.expect("an end in time").unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "code 0\n");
    assert_eq!(lines(&String::from_utf8(output.stdout).unwrap()).len(), 1);
}

#[tokio::test]
async fn a_server_that_hangs_is_left_for_one_that_answers() {
    let script = Script::new(vec![vec![Act::Say(hello("one")), Act::Say(set(1)), Act::Listen]]);
    let behind = script.serve().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        // The first connection is accepted and forgotten, the others are passed on.
        let (mut first, _) = listener.accept().await.unwrap();
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(behind).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
        let _ = first.read_u8().await;
    });
    let place = Place::new();
    let mut run = place.start(&["watch", &format!("http://{address}/board")]);
    run.out.line("one  texts  10  version 1").await;
    run.signal(Signal::SIGTERM);
    assert_eq!(run.end().await, Some(0));
}

#[tokio::test]
async fn a_way_that_lets_no_websocket_through_is_taken_over_sse() {
    let script = Script::new(vec![
        vec![Act::Say(hello("one")), Act::Say(set(1)), Act::Say(set(2)), Act::Close(1012, "restart")],
        vec![Act::Say(hello("two")), Act::Say(set(2)), Act::Say(set(3)), Act::Listen],
    ]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // As a proxy that passes on everything but the wish to upgrade.
    let routes = Router::new().route("/ws", get(async || Html("no"))).route("/events", get(stream));
    let routes = routes.with_state(script.clone());
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    let place = Place::new();
    let mut run = place.start(&["watch", &format!("http://{address}"), "--json"]);
    run.out.line(r#""version":3"#).await;
    run.signal(Signal::SIGINT);
    assert_eq!(run.end().await, Some(0));
    let item = |replica: &str, version: u64| {
        json!({"type": "item", "replica": replica, "feed": "texts", "key": "", "version": version,
            "value": {"count": version * 10}})
    };
    let live = |replica: &str| json!({"type": "status", "status": "live", "replica": replica, "transport": "sse"});
    let expected = [
        json!({"type": "status", "status": "connecting", "replica": null}),
        live("one"),
        item("one", 1),
        item("one", 2),
        json!({"type": "status", "status": "reconnecting", "replica": "one"}),
        live("two"),
        json!({"type": "handover", "from": "one", "to": "two", "planned": false}),
        item("two", 3),
    ];
    // After the loss both ways race: whether the one that cannot win says so before the other has won is chance.
    let failure = json!({"type": "failure", "reason": "the server answered 200 OK instead of upgrading"});
    let mut told = lines(&run.out.text());
    assert_eq!(told[1], failure);
    told.retain(|line| *line != failure);
    assert_eq!(told, expected);
    assert_eq!(*script.queries.lock().unwrap(), ["feeds=texts", "feeds=texts&since=c%2F2"]);
    assert_eq!(run.err.text(), "");
}

#[tokio::test]
async fn a_refusal_over_sse_is_the_end_too() {
    let script = Script::new(vec![vec![Act::Close(1008, "origin: not allowed")]]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = Router::new().route("/events", get(stream)).with_state(script);
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    let place = Place::new();
    let mut run = place.start(&["watch", &format!("http://{address}")]);
    assert_eq!(run.end().await, Some(1));
    assert_eq!(run.err.text(), "error: the server refused: origin: not allowed");
}

#[tokio::test]
async fn what_is_no_stream_of_events_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let endless = "data: ".to_owned() + &"x".repeat(1024 * 1024);
    let events = get(async || ([("content-type", "text/event-stream")], endless));
    let routes = Router::new().route("/page/events", get(async || Html("a page"))).route("/long/events", events);
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    let place = Place::new();
    for (path, part) in [
        ("nothing", "the server answered 404 Not Found instead of sending events"),
        ("page", "the server answered with something else than events"),
        ("long", "an event is longer than 1048576 bytes"),
    ] {
        let mut run = place.start(&["watch", &format!("http://{address}/{path}")]);
        run.out.line(&format!("no connection: {part}")).await;
        run.signal(Signal::SIGINT);
        assert_eq!(run.end().await, Some(0));
    }
}
