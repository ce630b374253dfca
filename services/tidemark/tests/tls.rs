//! `tidemark watch` through TLS.

mod common;

use std::{fs, sync::Arc};

use common::{
    LONG, Place,
    authority::Authority,
    script::{Act, Script, hello, set},
};
use nix::sys::signal::Signal;
use tidemark::client::{Client, Next, Target, Trust};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

fn script() -> Script {
    Script::new(vec![vec![Act::Say(hello("one")), Act::Say(set(1)), Act::Listen]])
}

#[tokio::test]
async fn a_private_authority_is_trusted_when_it_is_named() {
    let authority = Authority::new("the right one");
    let script = script();
    let port = authority.serve(&["localhost", "127.0.0.1"], script.serve().await).await.port();
    let place = Place::new();
    // The second of two: a file may hold several.
    let file = Authority::new("another").pem + &authority.pem;
    fs::write(place.work.join("ca.pem"), file).unwrap();
    for url in [format!("https://localhost:{port}/board/"), format!("wss://127.0.0.1:{port}/board")] {
        let mut run = place.start(&["watch", &url, "--ca", "ca.pem"]);
        run.out.line("one  texts  10  version 1").await;
        run.signal(Signal::SIGINT);
        assert_eq!(run.end().await, Some(0));
        assert!(!run.out.text().contains("no connection"), "{}", run.out.text());
    }
    let farewells = Arc::clone(&script.farewells);
    let said = async || (*farewells.lock().unwrap() == [1000, 1000]).then_some(());
    test_support::wait_for(LONG, "good-bye also goes through TLS", said).await;
}

#[tokio::test]
async fn a_certificate_that_is_not_good_is_told_with_what_helps() {
    let authority = Authority::new("the right one");
    let behind = script().serve().await;
    let elsewhere = authority.serve(&["board.example"], behind).await.port();
    let here = authority.serve(&["localhost"], behind).await.port();
    let place = Place::new();
    fs::write(place.work.join("ca.pem"), &authority.pem).unwrap();
    fs::write(place.work.join("other.pem"), Authority::new("another").pem).unwrap();
    for (port, flags, part) in [
        (here, [].as_slice(), "not trusted (unknown authority): name the authority's file with --ca"),
        (here, &["--ca", "other.pem"], "not trusted (unknown authority): name the authority's file with --ca"),
        (elsewhere, &["--ca", "ca.pem"], r#"not valid for name "localhost""#),
        (behind.port(), &["--ca", "ca.pem"], "failed to encrypt"),
    ] {
        let url = format!("https://localhost:{port}/board");
        let mut run = place.start(&[&["watch", &url], flags].concat());
        let line = run.out.line("no connection").await;
        assert!(line.contains(part), "{line}");
        run.signal(Signal::SIGINT);
        assert_eq!(run.end().await, Some(0));
    }
}

#[tokio::test]
async fn a_file_without_certificates_is_refused_at_once() {
    let place = Place::new();
    fs::write(place.work.join("key.pem"), rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let broken = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
    fs::write(place.work.join("broken.pem"), broken).unwrap();
    for (file, part) in [
        ("missing.pem", "failed to read the certificates in missing.pem: No such file"),
        ("key.pem", "key.pem holds no certificate"),
        ("broken.pem", "broken.pem holds something that is not a certificate"),
    ] {
        let mut run = place.start(&["watch", "https://localhost:1", "--ca", file]);
        assert_eq!(run.end().await, Some(2));
        assert!(run.err.text().contains(part), "{}", run.err.text());
        assert_eq!(run.out.text(), "");
    }
}

#[tokio::test]
async fn a_hundred_clients_share_one_trust() {
    let authority = Authority::new("the right one");
    let port = authority.serve(&["localhost"], script().serve().await).await.port();
    let place = Place::new();
    fs::write(place.work.join("ca.pem"), &authority.pem).unwrap();
    let trust = Trust::with_ca(&place.work.join("ca.pem")).unwrap();
    let target = Target::parse(&format!("https://localhost:{port}/board"), "texts").unwrap().with_trust(trust);
    let tracker = TaskTracker::new();
    for _ in 0..100 {
        let mut client = Client::new(target.clone(), tracker.clone());
        tracker.spawn(async move {
            let live = |machine: &protocol::client::Machine| machine.values.items.contains_key("texts:");
            client
                .run(&CancellationToken::new(), |step| if live(step.machine) { Next::Stop } else { Next::Continue })
                .await;
        });
    }
    tracker.close();
    tokio::time::timeout(LONG, tracker.wait()).await.expect("every client has a value");
}
