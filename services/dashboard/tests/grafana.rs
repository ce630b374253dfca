//! The Grafana dashboard asks only for metrics that there are.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;

use std::collections::BTreeSet;

use common::process::Running;
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

/// Relative to the crate, where tests run.
const DASHBOARD: &str = "../../k8s/dev/monitoring/tidemark.json";

/// The operator needs a cluster to run; its own tests know that it has these.
const OF_THE_OPERATOR: [&str; 2] = ["tidemark_reconciles_total", "tidemark_reconcile_duration_seconds"];

fn queries(dashboard: &Value) -> Vec<&str> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    targets.map(|target| target["expr"].as_str().unwrap()).collect()
}

/// The metrics in a query, without what a histogram adds to its name.
fn metrics(query: &str) -> impl Iterator<Item = &str> {
    let words =
        query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("tidemark_"));
    words.map(|word| ["_bucket", "_sum", "_count"].iter().find_map(|part| word.strip_suffix(part)).unwrap_or(word))
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn every_metric_of_the_dashboard_is_there_before_anything_happens(_: PgPoolOptions, options: PgConnectOptions) {
    let text = std::fs::read_to_string(DASHBOARD).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let app = Running::start("app", &options, &[]).await;
    let replica = Running::start("dashboard", &options, &[]).await;
    let generator = Running::start("metric-generator", &options, &[]).await;
    let scraped = app.metrics().await + &replica.metrics().await + &generator.metrics().await;
    let mut known: BTreeSet<&str> =
        scraped.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    known.extend(OF_THE_OPERATOR);

    let queries = queries(&dashboard);
    assert!(queries.len() > 10, "{queries:?}");
    for query in queries {
        let asked: Vec<&str> = metrics(query).collect();
        assert!(!asked.is_empty() || query.contains("(up{"), "asks for nothing: {query}");
        for metric in asked {
            assert!(known.contains(metric), "there is no {metric}, which this asks for: {query}\n{known:?}");
        }
        // The test on a cluster fills in these two and no more.
        let rest = query.replace("$__rate_interval", "").replace("$namespace", "");
        assert!(!rest.contains('$'), "another variable: {query}");
    }
    for panel in dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row") {
        assert!(panel["description"].as_str().is_some_and(|text| !text.is_empty()), "{}", panel["title"]);
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{}", panel["title"]);
    }
}
