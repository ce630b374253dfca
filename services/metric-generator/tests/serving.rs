//! `GET /servers` and `GET /metrics`, as the dashboards see them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;

use std::{collections::BTreeSet, time::Duration};

use common::{LONG, is_error, json, metrics, now, second, seconds, start};
use serde_json::{Value, json};
use sqlx::PgPool;
use test_support::{get, wait_until};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

fn ids(metrics: &[Value]) -> Vec<&str> {
    metrics.iter().map(|sample| sample["id"].as_str().unwrap()).collect()
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn every_server_is_listed_and_has_a_latest_sample(pool: PgPool) {
    let generator = start(&pool, &[("SERVER_COUNT", "12")]).await;
    let names: Vec<String> = (1..=12).map(|number| format!("server-{number}")).collect();
    let listed = generator.get("/servers").await;
    assert_eq!((listed.status, json(&listed)), (200, json!({ "serverIds": names })), "in natural order");
    assert!(listed.head.contains("content-type: application/json"), "{listed:?}");

    let latest = metrics(&generator.get("/metrics?limit=1").await);
    assert_eq!(ids(&latest), names);
    for sample in &latest {
        let keys: Vec<_> = sample.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["cpu_usage", "disk_usage", "id", "memory_usage", "timestamp"]);
        for usage in ["cpu_usage", "memory_usage", "disk_usage"] {
            let percent = sample[usage].as_f64().unwrap();
            assert!(percent > 0.0 && percent < 100.0, "{sample}");
            // No digits that only a narrower number had.
            assert!(sample[usage].to_string().len() <= 5, "{sample}");
        }
        assert!((now() - second(sample) as f64).abs() < 5.0, "{sample}");
    }
    let one = metrics(&generator.get("/metrics?limit=1&serverId=server-10").await);
    assert_eq!(ids(&one), ["server-10"]);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_server_that_is_silent_for_15_seconds_is_listed_no_more(pool: PgPool) {
    let generator = start(&pool, &[]).await;
    let silent = "INSERT INTO tidemark.metrics_latest VALUES
        ('server-20', now() - interval '16 seconds', 1, 2, 3), ('server-10', now() - interval '3 seconds', 1, 2, 3)";
    sqlx::query(silent).execute(&pool).await.unwrap();
    let five = async || metrics(&generator.get("/metrics?limit=1").await).len() == 5;
    wait_until(LONG, "all five are read", five).await;
    let expected = json!({ "serverIds": ["server-1", "server-2", "server-3", "server-10"] });
    assert_eq!(json(&generator.get("/servers").await), expected);
    assert_eq!(metrics(&generator.get("/metrics?limit=1&serverId=server-20").await).len(), 1);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn lists_have_the_newest_first(pool: PgPool) {
    let generator = start(&pool, &[]).await;
    wait_until(LONG, "three seconds are stored", async || seconds(&pool).await >= 3).await;
    let one = metrics(&generator.get("/metrics?limit=2&serverId=server-2").await);
    assert_eq!(ids(&one), ["server-2", "server-2"]);
    assert_eq!(second(&one[0]), second(&one[1]) + 1);
    let all = metrics(&generator.get("/metrics?limit=5").await);
    let expected = ["server-1", "server-2", "server-3", "server-1", "server-2"];
    assert_eq!(ids(&all), expected);
    assert!(second(&all[2]) == second(&all[0]) && second(&all[3]) == second(&all[0]) - 1, "{all:?}");
    assert!(metrics(&generator.get("/metrics?limit=1000").await).len() >= 9);
    assert!(metrics(&generator.get("/metrics?limit=1000&serverId=server-3").await).len() >= 3);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn wrong_requests_are_told_what_is_wrong(pool: PgPool) {
    let generator = start(&pool, &[]).await;
    for query in [
        "",
        "?serverId=server-1",
        "?limit=",
        "?limit=abc",
        "?limit=0",
        "?limit=1001",
        "?limit=-1",
        "?limit=1.0",
        "?limit=%2B1",
    ] {
        is_error(&generator.get(&format!("/metrics{query}")).await, 400, "limit_invalid");
    }
    for query in ["limit=1&limit=1", "limit=1&serverId=server-1&serverId=server-1"] {
        is_error(&generator.get(&format!("/metrics?{query}")).await, 400, "query_malformed");
    }
    for limit in [1, 2, 1000] {
        for server in ["server-4", "server-01", "", "%27%20OR%201=1", "%00"] {
            let answer = generator.get(&format!("/metrics?limit={limit}&serverId={server}")).await;
            is_error(&answer, 404, "server_unknown");
        }
    }
    for path in ["/", "/metrics/", "/servers/server-1", "/healthz", "/readyz"] {
        is_error(&generator.get(path).await, 404, "not_found");
    }
    assert_eq!(generator.get("/metrics?limit=1&something=else").await.status, 200);
    let wrong = generator.metric(r#"tidemark_http_requests_total{method="GET",route="/metrics",status="400"}"#).await;
    assert_eq!(wrong, 11.0, "requests are counted");
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn two_hundred_callers_share_one_query_a_second(pool: PgPool) {
    let generator = start(&pool, &[]).await;
    let reads = async || generator.metric(r#"tidemark_sample_reads_total{what="latest"}"#).await;
    let (began, before) = (Instant::now(), reads().await);
    let (end, users) = (began + Duration::from_secs(3), generator.users);
    let mut callers = JoinSet::new();
    for caller in 0..200 {
        let path = if caller % 2 == 0 { "/metrics?limit=1" } else { "/metrics?limit=1&serverId=server-3" };
        callers.spawn(async move {
            let (mut answers, mut seen) = (0, BTreeSet::new());
            while Instant::now() < end || seen.len() < 2 {
                let answer = get(users, path).await;
                if answer.status == 503 {
                    continue; // on a busy machine a read may exceed its timeout
                }
                seen.insert(second(metrics(&answer).last().unwrap()));
                answers += 1;
            }
            (answers, seen)
        });
    }
    let (mut answers, mut seen) = (0, BTreeSet::new());
    let called = timeout(LONG, callers.join_all()).await.expect("every caller sees that it moves on");
    for (count, seconds) in called {
        answers += count;
        seen.extend(seconds);
    }
    let (reads, took) = (reads().await - before, began.elapsed().as_secs_f64());
    // One query after each batch, at least 250 ms apart. On a busy machine there are several batches
    // in a second.
    assert!(reads <= 4.0 * took + 1.0, "{reads} queries in {took} s for {answers} answers");
    assert!(answers >= 400 && seen.len() >= 2, "{answers} answers of {seen:?}");
}
