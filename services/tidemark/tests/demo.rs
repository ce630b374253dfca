//! The whole system as a user starts it. Needs the programs of the services beside `tidemark`: `make services`.
#![expect(clippy::unwrap_used, reason = "a test that panics has said what it found")]

mod common;

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt};

use common::{
    LONG, Place, Run, all_gone,
    demo::{Demo, place},
    names, request,
};
use futures_util::future::join_all;
use nix::sys::signal::Signal;
use serde_json::Value;
use test_support::{ReservedPort, wait_until};
use tidemark::process::is_running;

/// One replica of each service.
const SINGLE: [&str; 6] = ["--apps", "1", "--dashboards", "1", "--generators", "1"];

/// A program in the page's directory.
fn script_file(place: &Place, name: &str, script: &str) {
    let path = place.work.join("page").join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A demo that fails and leaves nothing behind.
async fn end(place: &Place, flags: &[&str]) -> Run {
    let mut run = place.start(&[&["demo", "--port", "0", "--page-dir", "page"], flags].concat());
    assert_eq!(run.end().await, Some(1), "{}", run.err.text());
    assert_eq!(names(&place.work), ["page"]);
    assert!(names(&place.temporary).is_empty());
    run
}

#[tokio::test]
async fn everything_is_served_at_one_address_and_named_in_the_file() {
    let demo = Demo::start(&[]).await;
    let parts = ["app-1", "app-2", "dashboard-1", "dashboard-2", "metric-generator-1", "metric-generator-2"];
    assert_eq!(demo.names(), [["front"].as_slice(), &parts, &["postgres"]].concat());
    assert_eq!(demo.pid("front"), demo.run.pid);
    for entry in demo.entries() {
        assert!(is_running(entry["pid"].as_i64().unwrap().try_into().unwrap()), "{entry}");
        assert!(demo.run.out.text().contains(entry["url"].as_str().unwrap()), "{entry}");
    }
    let dashboard = demo.pid("dashboard-1");
    demo.run.out.line(&format!("kill {dashboard} ")).await;
    demo.run.out.line(&format!("kill -9 {dashboard} ")).await;

    assert_eq!(request(demo.address, "GET /", "").await.unwrap().body, "<!doctype html><title>a small page</title>");
    demo.save("one").await;
    let list = request(demo.address, "GET /all", "").await.unwrap();
    assert!(list.status == 200 && list.body.contains(r#""text":"one""#), "{}", list.body);
    demo.stop(Signal::SIGTERM).await;
}

#[tokio::test]
async fn replicas_and_the_database_come_back_after_a_death_and_a_watcher_misses_nothing() {
    let demo = Demo::start(&[]).await;
    let watching = Place::new();
    let mut watch = watching.start(&["watch", &format!("http://{}", demo.address)]);
    watch.out.line("texts  0  ").await;

    demo.kill("app-1", Signal::SIGKILL);
    demo.run.out.line("app-1").await;
    demo.save("while one app is missing").await;
    watch.out.line("texts  1  ").await;
    let back = async || demo.names().contains(&"app-3".to_owned());
    wait_until(LONG, "app-3 is there", back).await;
    assert!(!demo.names().contains(&"app-1".to_owned()));

    let serving = watch.out.line("  live").await.split_whitespace().nth(1).unwrap().to_owned();
    demo.kill(&serving, Signal::SIGKILL);
    watch.out.line("live again after").await;
    demo.save("after a hard kill").await;
    watch.out.line("texts  2  ").await;
    wait_until(LONG, "dashboard-3 is there", async || demo.names().contains(&"dashboard-3".to_owned())).await;

    let line = watch.out.line("live again after").await;
    let serving = line.split_whitespace().nth(3).unwrap().to_owned();
    demo.kill(&serving, Signal::SIGTERM);
    watch.out.line("moved in").await;
    demo.save("after a gentle one").await;
    watch.out.line("texts  3  ").await;
    assert_eq!(watch.out.all().iter().filter(|line| line.contains("lost")).count(), 1, "{}", watch.out.text());

    let url = demo.entries().last().unwrap()["url"].clone();
    demo.kill("postgres", Signal::SIGKILL);
    watch.out.line("the database is down").await;
    watch.out.line("the database is up again").await;
    demo.save("after the database").await;
    watch.out.line("texts  4  ").await;
    assert_eq!(demo.entries().last().unwrap()["url"], url, "the same address as before");

    watch.signal(Signal::SIGINT);
    assert_eq!(watch.end().await, Some(0));
    demo.stop(Signal::SIGINT).await;
}

#[tokio::test]
async fn a_sigkill_leaves_neither_processes_nor_files() {
    let mut demo = Demo::start(&SINGLE).await;
    let children = demo.children();
    assert_eq!(children.len(), 4);
    demo.run.signal(Signal::SIGKILL);
    assert_eq!(demo.run.end().await, None);
    all_gone(&children).await;
    let clean = async || names(&demo.place.temporary).is_empty() && !demo.place.work.join(".tidemark").exists();
    wait_until(LONG, "the files have gone", clean).await;
}

#[tokio::test]
async fn a_signal_while_it_starts_leaves_nothing_but_the_data() {
    let place = place();
    let data = place.work.join("kept");
    let flags = ["demo", "--port", "0", "--page-dir", "page", "--data", data.to_str().unwrap()];
    let mut run = place.start(&flags);
    run.out.line("starting Postgres").await;
    run.signal(Signal::SIGINT);
    run.out.line("stopping").await;
    assert_eq!(run.end().await, Some(0), "{}", run.err.text());
    assert_eq!(names(&place.temporary), [""; 0]);
    let mut left = names(&place.work);
    left.retain(|name| name != "kept");
    assert_eq!(left, ["page"], "nothing but what --data asked for");
}

#[tokio::test]
async fn what_stands_in_the_way_is_named_before_anything_is_started() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port().to_string();
    let place = place();
    for (arguments, part) in [
        (["--port", &port, "--page-dir", "page"].as_slice(), format!("port {port} is in use")),
        (&["--port", "0", "--page-dir", "no-page"], "make page".to_owned()),
        (&["--port", "0", "--page-dir", "page", "--bin-dir", "page"], "cargo build -p app".to_owned()),
    ] {
        let mut run = place.start(&[&["demo"], arguments].concat());
        assert_eq!(run.end().await, Some(1));
        assert!(run.err.text().contains(&part), "{}", run.err.text());
        assert_eq!(run.out.text(), "");
        assert!(names(&place.temporary).is_empty() && names(&place.work) == ["page"]);
    }
}

#[tokio::test]
async fn a_replica_that_cannot_start_says_why() {
    let place = place();
    let run = end(&place, &["--database-url", "mysql://nowhere"]).await;
    assert!(run.err.text().contains("ended with exit code 2 before it was ready"), "{}", run.err.text());
    assert!(run.err.text().contains("DATABASE_URL"), "{}", run.err.text());
}

#[tokio::test]
async fn a_program_that_fails_takes_nothing_else_with_it() {
    let place = place();
    for program in ["app", "dashboard", "metric-generator"] {
        script_file(&place, program, "echo no luck today\nexit 3");
    }
    let run = end(&place, &["--bin-dir", "page"]).await;
    let (out, err) = (run.out.text(), run.err.text());
    assert!(err.contains("ended with exit code 3 before it was ready") && err.contains("no luck today"), "{err}");
    assert_eq!(out, "starting Postgres\nstarting 2 x app, 2 x dashboard, 2 x metric-generator\nstopping");
}

#[tokio::test]
async fn a_start_that_takes_too_long_ends_with_the_step_and_what_its_program_printed() {
    let forever = |line: &str| format!("echo {line}\nexec sleep 600");
    let closed = ReservedPort::take().unwrap();
    let database = ["--database-url", &format!("postgres://{}/none", closed.addr())];
    let postgres = ["--start-timeout", "5s", "--postgres-bin", "page"];
    let replicas = [["--start-timeout", "5s", "--bin-dir", "page"], ["--start-timeout", "10s", "--apps", "1"]];
    let cases = [
        (
            vec![("initdb", forever("making little")), ("postgres", String::new())],
            postgres.to_vec(),
            ["making the database was not done within 5s; ", "The last lines of initdb:\n  making little"],
        ),
        (
            // The directory is the second argument.
            vec![("initdb", "mkdir $2".to_owned()), ("postgres", forever("recovering"))],
            postgres.to_vec(),
            ["the start of Postgres was not done within 5s; ", "The last lines of postgres:\n  recovering"],
        ),
        (
            ["app", "dashboard", "metric-generator"].map(|name| (name, forever("warming up"))).to_vec(),
            [&replicas[0], database.as_slice()].concat(),
            [" was not ready within 5s (GET http://127.0.0.1:", "Its last lines:\n  warming up"],
        ),
        (
            vec![],
            [&replicas[1], database.as_slice()].concat(),
            ["app-1 was not ready within 10s (schema: failed to connect to the database: ", "listening address="],
        ),
    ];
    // Together, so that each has enough time for the steps before the one that does not end.
    join_all(cases.map(async |(programs, flags, expected)| {
        let place = place();
        for (name, script) in programs {
            script_file(&place, name, &script);
        }
        let run = end(&place, &flags).await;
        assert!(expected.iter().all(|part| run.err.text().contains(part)), "{expected:?} in {}", run.err.text());
    }))
    .await;
}

#[tokio::test]
async fn a_second_demo_in_the_same_directory_is_refused_and_harms_nothing() {
    let demo = Demo::start(&SINGLE).await;
    let mut second = demo.place.start(&["demo", "--port", "0", "--page-dir", "page"]);
    assert_eq!(second.end().await, Some(1));
    let expected = format!("a demo already runs here: pid {}", demo.run.pid);
    assert!(second.err.text().contains(&expected), "{}", second.err.text());
    assert_eq!(demo.names(), ["front", "app-1", "dashboard-1", "metric-generator-1", "postgres"]);
    demo.stop(Signal::SIGTERM).await;
}

#[tokio::test]
async fn a_frozen_replica_does_not_keep_it_from_ending() {
    let mut demo = Demo::start(&SINGLE).await;
    let children = demo.children();
    demo.kill("app-1", Signal::SIGSTOP);
    demo.run.signal(Signal::SIGINT);
    demo.run.out.line("stopping").await;
    demo.run.signal(Signal::SIGINT);
    assert_eq!(demo.run.end().await, Some(0));
    assert!(!children.iter().any(|pid| is_running(*pid)), "no process is left");
    assert_eq!(names(&demo.place.temporary), [""; 0]);
}

/// The seconds of the samples that a watcher has seen.
fn seconds(watch: &Run) -> Vec<i64> {
    let samples = watch.out.with("cpu_usage");
    samples.iter().map(|line| serde_json::from_str::<Value>(line).unwrap()["version"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn servers_stay_live_when_a_generator_dies_and_there_are_none_without_one() {
    let demo = Demo::start(&[]).await;
    let watching = Place::new();
    let mut watch =
        watching.start(&["watch", &format!("http://{}", demo.address), "--feeds", "servers:server-1", "--json"]);
    watch.out.line("cpu_usage").await;
    for name in ["metric-generator-1", "metric-generator-2"] {
        demo.kill(name, Signal::SIGKILL);
        let before = seconds(&watch).len();
        wait_until(LONG, "later samples", async || seconds(&watch).len() >= before + 4).await;
        // A request to the dead replica misses one second, and a busy machine one more. Without a
        // failover no sample would come until the fresh replica, which starts after 3 s, has one.
        let seconds = seconds(&watch);
        let steps: Vec<_> = seconds[before - 1..].windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(steps.iter().all(|step| (1..=3).contains(step)), "{steps:?} after {name}");
        let back = async || demo.names().iter().filter(|name| name.starts_with("metric-generator")).count() == 2;
        wait_until(LONG, "a fresh generator is there", back).await;
    }
    watch.signal(Signal::SIGINT);
    assert_eq!(watch.end().await, Some(0));
    demo.stop(Signal::SIGTERM).await;

    let without = Demo::start(&["--generators", "0"]).await;
    let mut watch = watching.start(&["watch", &format!("http://{}", without.address), "--feeds", "servers", "--json"]);
    watch.out.line("live").await;
    assert_eq!(without.children().len(), 5);
    watch.signal(Signal::SIGINT);
    assert_eq!(watch.end().await, Some(0));
    assert!(!watch.out.text().contains("cpu_usage"), "{}", watch.out.text());
    without.stop(Signal::SIGTERM).await;
}
