//! A listed feed that is not ok is reported by a condition and fixed by applying the list again;
//! nothing is written while nothing changes.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::*;
use crate::{
    dashboards::Dashboards,
    fixtures::{FakeDashboard, dashboard_pod},
};

const PODS: &str = "/api/v1/namespaces/quay/pods";
const SWAPPED: &str = "the feed orders: another table has its name now (swapped); the list is being applied again";
const GONE: &str = "the feed orders: no table has its name now (gone); the list is applied again once there is one";

/// A Board that lists `orders`, and one dashboard of it. The list was applied ten minutes ago.
async fn listed() -> (Cluster, FakeDashboard) {
    let dashboard = FakeDashboard::start().await;
    let board = harbor(json!({"feeds": [{"name": "orders", "table": "public.orders"}]}));
    // Each reconcile has a new report.
    let cluster = Cluster::with_dashboards(&board, Dashboards::new(dashboard.port, Duration::ZERO));
    cluster
        .put(&format!("{PODS}/dashboard-1"), serde_json::to_value(dashboard_pod("dashboard-1", "127.0.0.1")).unwrap());
    let cluster = install(cluster).await;
    end(&cluster, "Complete", 600);
    assert_eq!(cluster.reconcile(HARBOR).await.1, Vec::<String>::new());
    (cluster, dashboard)
}

/// The Job that applies the list; there is never more than one.
fn job(cluster: &Cluster) -> String {
    let jobs: Vec<_> = cluster.list(JOBS).into_iter().filter(|job| job.contains("/feeds-")).collect();
    let [job] = &jobs[..] else { panic!("{jobs:?}") };
    job.clone()
}

/// The Job ended this number of seconds ago.
fn end(cluster: &Cluster, how: &str, seconds: i64) {
    let at = (Timestamp::now() - SignedDuration::from_secs(seconds)).to_string();
    let condition = json!({"type": how, "status": "True", "message": "backoff limit", "lastTransitionTime": at});
    cluster.edit(&job(cluster), |job| job["status"] = json!({"conditions": [condition]}));
}

/// The condition of this type, as (status, reason, message).
fn outcome_of(cluster: &Cluster, type_: &str) -> [String; 3] {
    let condition = condition(cluster, HARBOR, type_);
    ["status", "reason", "message"].map(|key| condition[key].as_str().unwrap().to_owned())
}

fn children(writes: &[String]) -> Vec<&str> {
    let own = |write: &&str| !write.contains("boards") && !write.contains("events");
    writes.iter().map(String::as_str).filter(own).collect()
}

#[tokio::test]
async fn a_swapped_table_is_reported_and_the_list_applied_again_until_the_problem_is_gone() {
    let (cluster, dashboard) = listed().await;
    let first = job(&cluster);
    dashboard.serve(&[("orders", "swapped")], 0);
    let (_, writes) = cluster.reconcile(HARBOR).await;
    let second = job(&cluster);
    assert_eq!(second, format!("{first}-1"));
    let name = |path: &str| path.rsplit_once('/').unwrap().1.to_owned();
    let change = [format!("DELETE jobs/{}", name(&first)), format!("PATCH jobs/{}", name(&second))];
    assert_eq!(children(&writes), change);
    assert_eq!(outcome_of(&cluster, "FeedsApplied"), ["False", "FeedProblem", SWAPPED]);
    assert_eq!(outcome_of(&cluster, "Degraded"), ["True", "FeedProblem", SWAPPED]);
    assert_eq!(outcome_of(&cluster, "Progressing")[..2], ["True", "ApplyingFeeds"]);
    assert_eq!(outcome_of(&cluster, "Available")[0], "True");

    // The Job runs: nothing is written, however often the Board is reconciled.
    for _ in 0..2 {
        assert_eq!(cluster.reconcile(HARBOR).await.1, Vec::<String>::new());
    }
    // It has ended just now, and the dashboards have not seen it yet.
    end(&cluster, "Complete", 1);
    assert_eq!(cluster.reconcile(HARBOR).await.1, ["PATCH boards/harbor/status"]);
    assert_eq!(outcome_of(&cluster, "FeedsApplied"), ["False", "FeedProblem", SWAPPED]);
    assert_eq!(outcome_of(&cluster, "Progressing")[..2], ["False", "Settled"]);
    assert_eq!(cluster.reconcile(HARBOR).await.1, Vec::<String>::new());

    dashboard.serve(&[], 0);
    let (_, writes) = cluster.reconcile(HARBOR).await;
    assert_eq!(children(&writes), Vec::<&str>::new());
    assert_eq!(outcome_of(&cluster, "FeedsApplied"), ["True", "Applied", "the database has the feeds of the list"]);
    assert_eq!(outcome_of(&cluster, "Degraded")[..2], ["False", "AsExpected"]);
    assert_eq!(cluster.reconcile(HARBOR).await.1, Vec::<String>::new());
    assert_eq!(job(&cluster), second);
}

#[tokio::test]
async fn a_problem_that_stays_is_retried_at_growing_intervals_with_one_reason() {
    let (cluster, dashboard) = listed().await;
    let first = job(&cluster);
    dashboard.serve(&[("orders", "swapped")], 0);
    cluster.reconcile(HARBOR).await.0.unwrap();
    for (run, wait) in [(1, 120), (2, 240), (3, 300), (4, 300)] {
        end(&cluster, "Failed", wait - 10);
        let (_, writes) = cluster.reconcile(HARBOR).await;
        assert_eq!(children(&writes), Vec::<&str>::new());
        assert_eq!(job(&cluster), format!("{first}-{run}"));
        assert_eq!(outcome_of(&cluster, "FeedsApplied"), ["False", "FeedProblem", SWAPPED]);
        let [status, reason, message] = outcome_of(&cluster, "Degraded");
        assert_eq!((status.as_str(), reason.as_str()), ("True", "FeedProblem"));
        assert!(message.starts_with(SWAPPED) && message.contains("could not bring the list"), "{message}");
        end(&cluster, "Failed", wait + 1);
        cluster.reconcile(HARBOR).await.0.unwrap();
        assert_eq!(job(&cluster), format!("{first}-{}", run + 1));
    }
}

#[tokio::test]
async fn a_table_that_is_gone_starts_no_job_before_one_of_its_name_is_back() {
    let (cluster, dashboard) = listed().await;
    let first = job(&cluster);
    dashboard.serve(&[("orders", "gone")], 0);
    let (_, writes) = cluster.reconcile(HARBOR).await;
    assert_eq!(children(&writes), Vec::<&str>::new());
    assert_eq!(outcome_of(&cluster, "FeedsApplied"), ["False", "FeedProblem", GONE]);
    assert_eq!(outcome_of(&cluster, "Degraded"), ["True", "FeedProblem", GONE]);
    assert_eq!(outcome_of(&cluster, "Progressing")[..2], ["False", "Settled"]);
    for _ in 0..3 {
        end(&cluster, "Complete", 9_000);
        assert_eq!(cluster.reconcile(HARBOR).await.1, Vec::<String>::new());
    }
    assert_eq!(job(&cluster), first);

    dashboard.serve(&[("orders", "swapped")], 0);
    cluster.reconcile(HARBOR).await.0.unwrap();
    assert_ne!(job(&cluster), first);
    assert_eq!(outcome_of(&cluster, "FeedsApplied"), ["False", "FeedProblem", SWAPPED]);
}

#[tokio::test]
async fn a_feed_that_is_not_on_the_list_is_not_this_boards() {
    let (cluster, dashboard) = listed().await;
    let first = job(&cluster);
    dashboard.serve(&[("boats", "swapped"), ("cranes", "gone")], 0);
    for _ in 0..2 {
        assert_eq!(cluster.reconcile(HARBOR).await.1, Vec::<String>::new());
    }
    assert_eq!((job(&cluster), outcome_of(&cluster, "FeedsApplied")[0].as_str()), (first, "True"));
}

#[tokio::test]
async fn a_feed_that_is_taken_out_of_the_list_is_no_problem_any_more() {
    let (cluster, dashboard) = listed().await;
    dashboard.serve(&[("orders", "gone")], 0);
    cluster.reconcile(HARBOR).await.0.unwrap();
    cluster.edit(HARBOR, |board| board["spec"]["feeds"] = json!([]));
    cluster.reconcile(HARBOR).await.0.unwrap();
    assert_eq!(outcome_of(&cluster, "FeedsApplied")[..2], ["False", "ApplyingFeeds"]);
    assert_eq!(outcome_of(&cluster, "Degraded")[..2], ["False", "AsExpected"]);
}

#[tokio::test]
async fn a_problem_does_not_end_because_no_dashboard_answers() {
    let (cluster, dashboard) = listed().await;
    dashboard.serve(&[("orders", "gone")], 7);
    cluster.reconcile(HARBOR).await.0.unwrap();
    cluster.remove(&format!("{PODS}/dashboard-1"));
    for _ in 0..2 {
        cluster.reconcile(HARBOR).await.0.unwrap();
        assert_eq!(outcome_of(&cluster, "FeedsApplied"), ["False", "FeedProblem", GONE]);
        assert_eq!(outcome_of(&cluster, "Degraded"), ["True", "FeedProblem", GONE]);
    }
    assert_eq!(cluster.reconcile(HARBOR).await.1, Vec::<String>::new());
}
