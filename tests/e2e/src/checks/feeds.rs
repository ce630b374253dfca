//! A list of feeds: told while it cannot be applied, applied when it can, applied again after
//! another table was swapped in, and gone without a trace.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::children::available;
use crate::kubectl::{Kubectl, condition};

/// How long a Job may take to give up: its tries are 10, 20 and 40 s apart, and each is a pod that has to start.
const GIVEN_UP: Duration = Duration::from_secs(180);

/// How long a list may take to be applied.
const APPLIED: Duration = Duration::from_secs(60);

/// How long until the condition names a feed that is not ok: the dashboards' poll, and up to a
/// minute between two reports that the operator reads.
const REPORTED: Duration = Duration::from_secs(90);

/// How long until it is fixed. The list is applied again a minute after the Job before, at the
/// operator's next interval; the operator sees the end one interval after that.
const FIXED: Duration = Duration::from_secs(180);

/// The feed, and its table.
const NAME: &str = "berths";
const TABLE: &str = "public.berths";

/// How tools rebuild a table: a new one is created beside it and renamed over it.
const SWAP: &str = "
    CREATE TABLE public.berths__tmp (id int);
    INSERT INTO public.berths__tmp VALUES (1), (2), (3), (4), (5);
    BEGIN;
    ALTER TABLE public.berths RENAME TO berths__old;
    ALTER TABLE public.berths__tmp RENAME TO berths;
    COMMIT;
    DROP TABLE public.berths__old;";

/// Runs it on the good Board, which is as before afterwards.
///
/// # Errors
/// When something is not told, not applied or left behind.
pub async fn run(kubectl: &Kubectl) -> Result<String> {
    let outcome = all(kubectl).await;
    list(kubectl, &json!([])).await?;
    let removed = applied(kubectl).await;
    kubectl.sql(&format!("DROP TABLE IF EXISTS {TABLE}, {TABLE}__tmp, {TABLE}__old")).await?;
    let told = outcome?;
    removed?;
    let left = kubectl.sql(&format!("SELECT count(*) FROM tidemark.feeds WHERE name = '{NAME}'")).await?;
    ensure!(left.trim() == "0", "the feed is still there");
    available(kubectl, "tidemark", APPLIED).await?;
    Ok(told)
}

async fn all(kubectl: &Kubectl) -> Result<String> {
    list(kubectl, &json!([{ "name": NAME, "table": TABLE }])).await?;
    kubectl.until("board tidemark", GIVEN_UP, |board| feeds(board, "False", "FeedsFailed")).await?;
    let board = kubectl.get("board tidemark").await?;
    let told = condition(&board, "FeedsApplied").and_then(|condition| condition["message"].as_str());
    let told = told.context("no message")?.to_owned();
    ensure!(told.contains(NAME), "{told}");
    ensure!(condition(&board, "Available").is_some_and(|available| available["status"] == "True"), "not available");

    kubectl.sql(&format!("CREATE TABLE {TABLE} (id int); INSERT INTO {TABLE} VALUES (1), (2), (3)")).await?;
    // As the message says.
    kubectl.run("delete jobs --selector=app.kubernetes.io/name=feeds").await?;
    applied(kubectl).await?;
    counts(kubectl, 3).await?;
    let (reported, fixed) = swap(kubectl).await?;
    Ok(format!(
        "{told}; a swapped table was reported after {} s, fixed {} s later",
        reported.as_secs(),
        fixed.as_secs()
    ))
}

/// Swaps in another table. Gives how long it took until the condition said so, and from then until
/// the feed counted that table.
async fn swap(kubectl: &Kubectl) -> Result<(Duration, Duration)> {
    kubectl.sql(SWAP).await?;
    let reported = kubectl.until("board tidemark", REPORTED, |board| feeds(board, "False", "FeedProblem")).await?;
    let board = kubectl.get("board tidemark").await?;
    let message = condition(&board, "FeedsApplied").map(|condition| condition["message"].to_string());
    let message = message.unwrap_or_default();
    ensure!(message.contains(NAME) && message.contains("swapped"), "{message}");
    let fixed = kubectl.until("board tidemark", FIXED, |board| feeds(board, "True", "Applied")).await?;
    counts(kubectl, 5).await?;
    Ok((reported, fixed))
}

async fn counts(kubectl: &Kubectl, rows: u32) -> Result<()> {
    let count = kubectl.sql(&format!("SELECT n FROM tidemark.feed_values() WHERE feed = '{NAME}'")).await?;
    ensure!(count.trim() == rows.to_string(), "the feed counts {}, not {rows}", count.trim());
    Ok(())
}

async fn list(kubectl: &Kubectl, feeds: &Value) -> Result<()> {
    let patch = json!({ "spec": { "feeds": feeds } }).to_string();
    kubectl.args(&["patch", "board/tidemark", "--type=merge", "--patch", &patch]).await.map(drop)
}

async fn applied(kubectl: &Kubectl) -> Result<Duration> {
    kubectl.until("board tidemark", APPLIED, |board| feeds(board, "True", "Applied")).await
}

/// Whether the condition says so of the spec that is there now.
fn feeds(board: &Value, status: &str, reason: &str) -> bool {
    condition(board, "FeedsApplied").is_some_and(|condition| {
        let fresh = condition["observedGeneration"] == board["metadata"]["generation"];
        fresh && condition["status"] == status && condition["reason"] == reason
    })
}
