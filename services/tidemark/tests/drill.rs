//! `tidemark drill`, as a user starts it: on a demo of its own, and on a system that it must not change.
#![expect(clippy::unwrap_used, reason = "a test that panics has said what it found")]

mod common;

use std::fs;

use common::{
    LONG, Place, Run,
    demo::{Demo, place},
    request,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::time::timeout;

/// Runs a drill until it ends with this exit code.
async fn drill(place: &Place, flags: &str, code: i32) -> Run {
    let arguments: Vec<&str> = ["drill"].into_iter().chain(flags.split_whitespace()).collect();
    let mut run = place.start(&arguments);
    // Five faults, after each of which the demo is complete again before the next one.
    let ended = timeout(LONG * 8, run.ended()).await.expect("an end in time");
    assert_eq!(ended, Some(code), "{flags}");
    run
}

fn during<'a>(report: &'a Value, fault: &str) -> &'a Value {
    let run = report["runs"].as_array().unwrap().iter().find(|run| run["fault"] == fault);
    assert!(run.is_some(), "no {fault} in {report:#}");
    &run.unwrap()["during"]
}

#[tokio::test]
async fn a_demo_of_its_own_loses_replicas_and_the_database_and_nobody_loses_a_value() {
    let place = place();
    let faults = "sigterm,sigkill,rolling,database-restart,generator-kill";
    let flags = format!("--clients 20 --quiet 1s --faults {faults} --junit cases.xml --json report.json");
    let run = drill(&place, &flags, 0).await;
    let out = run.out.text();
    let report: Value = serde_json::from_slice(&fs::read(place.work.join("report.json")).unwrap()).unwrap();
    assert_eq!(report["held"], true);
    assert_eq!((report["clients"].as_u64(), report["savesPerSecond"].as_u64()), (Some(20), Some(20)));
    let number = |fault: &str, metric: &str| during(&report, fault)[metric].as_u64();
    // Some of the clients are on the replica that is taken away, and each of those changes once.
    assert_eq!([number("sigterm", "moves-max"), number("sigterm", "closed")], [Some(1), Some(0)], "{out}");
    assert_eq!([number("sigkill", "reconnects-max"), number("sigkill", "moves")], [Some(1), Some(0)], "{out}");
    let lost = &during(&report, "sigkill")["closeCodes"]["1006"];
    assert!((1..20).contains(&lost.as_u64().unwrap()), "{out}");
    assert_eq!([number("rolling", "moves"), number("rolling", "moves-max")], [Some(20), Some(1)], "{out}");
    assert_eq!(number("rolling", "gap-max"), Some(0), "{out}");
    assert_eq!(number("database-restart", "closed"), Some(0), "{out}");
    assert!(number("database-restart", "retried") > Some(0), "saves met the database that was away: {out}");
    assert!(number("database-restart", "age-max") > Some(1_000), "values told their age: {out}");
    assert!(number("generator-kill", "fresh").is_some() && number("sigterm", "saves") > Some(0), "{out}");
    assert!(out.contains("every budget held") && out.contains("| rolling"), "{out}");
    assert!(fs::read_to_string(place.work.join("cases.xml")).unwrap().contains(r#"failures="0""#));
    assert_eq!(common::names(&place.temporary), [""; 0], "nothing is left of the demo");
}

#[tokio::test]
async fn frozen_replicas_and_databases_go_on_and_a_budget_that_does_not_hold_is_the_exit_code() {
    let place = place();
    let flags = "--clients 10 --quiet 1s --faults freeze,database-freeze --json --budget freeze:gap-max=1s,database-freeze:gap-max=0ms";
    // Half of the clients hear nothing for 2.5 beats.
    let run = drill(&place, flags, 1).await;
    let report: Value = serde_json::from_str(&run.out.text()).unwrap();
    let broken = &report["runs"][0]["broken"];
    assert!(broken.as_array().is_some_and(|broken| broken.len() == 1), "{broken}");
    assert!(broken[0].as_str().unwrap().starts_with("gap-max 1"), "{broken}");
    let freeze = during(&report, "freeze");
    // 2.5 beats of 5 s and a reconnection; the replica thaws only after 17.5 s.
    assert!((12_000..17_000).contains(&freeze["blackout-max"].as_u64().unwrap()), "{freeze:#}");
    let database = during(&report, "database-freeze");
    // Frozen for 10 s; how soon after that values are fresh depends on the machine.
    assert!(database["age-max"].as_u64() >= Some(9_000), "{database:#}");
    assert_eq!(database["closed"], 0, "{database:#}");
}

#[tokio::test]
async fn a_system_that_it_did_not_start_stays_as_it_was() {
    let demo = Demo::start(&[]).await;
    demo.save("the only text").await;
    let state = async || {
        let texts = request(demo.address, "GET /all", "").await.unwrap().body;
        let visitors = demo
            .sql("SELECT (SELECT count(*) FROM tidemark.visits) || ' ' || (SELECT count(*) FROM tidemark.connections)");
        (texts, visitors.await)
    };
    let before = state().await;
    let url = format!("http://localhost:{}", demo.address.port());
    let flags = format!("{url} --clients 20 --quiet 1s --faults sigkill --feeds texts,visitors --json");
    let run = drill(&demo.place, &flags, 0).await;
    let report: Value = serde_json::from_str(&run.out.text()).unwrap();
    let sigkill = during(&report, "sigkill");
    assert_eq!((&sigkill["reconnects-max"], &sigkill["saves"]), (&1.into(), &Value::Null));
    assert_eq!(sigkill["blackout-max"], sigkill["gap-max"], "without saves it is the time without a connection");
    assert!(sigkill["blackout-max"].as_u64() > Some(0));
    assert_eq!(state().await, before);
    demo.stop(Signal::SIGTERM).await;
}

#[tokio::test]
async fn what_cannot_be_drilled_is_exit_code_2_with_words() {
    let place = Place::new();
    for (flags, part) in [
        ("http://localhost:9 --faults sigkill", "demo.json"),
        ("http://localhost:9 --run mine=true --saves 1", "no list from http://localhost:9/all"),
        ("localhost:9 --run mine=true", "is not an address like"),
        ("http://localhost:9", "say what is to be done"),
        ("--faults sigquit", "there is no fault \"sigquit\""),
        ("--budget lost=1s", "\"1s\" is no number for lost"),
    ] {
        let run = drill(&place, flags, 2).await;
        assert!(run.err.text().contains(part), "{flags}: {}", run.err.text());
    }
    assert!(place.is_clean());
}
