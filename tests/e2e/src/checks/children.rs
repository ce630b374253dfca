//! Every kind of child, deleted and edited by hand: it comes back as it was.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    kubectl::{Kubectl, condition},
    report::Report,
};

/// How long the operator may take to put something right.
const HEALED: Duration = Duration::from_secs(30);

/// How long the whole Board may take to be available again.
const AVAILABLE: Duration = Duration::from_secs(120);

/// A child, and a change that somebody makes by hand: a merge patch, and where it can be seen.
struct Edit {
    child: &'static str,
    patch: &'static str,
    pointer: &'static str,
}

const EDITS: [Edit; 11] = [
    Edit { child: "deployment/app", patch: r#"{"spec":{"replicas":5}}"#, pointer: "/spec/replicas" },
    Edit { child: "deployment/metric-generator", patch: r#"{"spec":{"replicas":5}}"#, pointer: "/spec/replicas" },
    Edit { child: "statefulset/postgres", patch: r#"{"spec":{"replicas":0}}"#, pointer: "/spec/replicas" },
    Edit {
        child: "service/app",
        patch: r#"{"spec":{"selector":{"app.kubernetes.io/name":"nobody"}}}"#,
        pointer: "/spec/selector/app.kubernetes.io~1name",
    },
    Edit {
        child: "ingress/board",
        patch: r#"{"spec":{"ingressClassName":"nobody"}}"#,
        pointer: "/spec/ingressClassName",
    },
    Edit {
        child: "poddisruptionbudget/dashboard",
        patch: r#"{"spec":{"maxUnavailable":0}}"#,
        pointer: "/spec/maxUnavailable",
    },
    Edit {
        child: "networkpolicy/metric-generator",
        patch: r#"{"spec":{"podSelector":{"matchLabels":{"app.kubernetes.io/name":"nobody"}}}}"#,
        pointer: "/spec/podSelector/matchLabels/app.kubernetes.io~1name",
    },
    Edit {
        child: "serviceaccount/app",
        patch: r#"{"automountServiceAccountToken":true}"#,
        pointer: "/automountServiceAccountToken",
    },
    Edit { child: "configmap/config", patch: r#"{"data":{"RUST_LOG":"off"}}"#, pointer: "/data/RUST_LOG" },
    Edit {
        child: "job/migrate",
        patch: r#"{"metadata":{"labels":{"app.kubernetes.io/name":"nobody"}}}"#,
        pointer: "/metadata/labels/app.kubernetes.io~1name",
    },
    Edit {
        child: "job/feeds",
        patch: r#"{"metadata":{"labels":{"app.kubernetes.io/name":"nobody"}}}"#,
        pointer: "/metadata/labels/app.kubernetes.io~1name",
    },
];

/// Edits and deletes each of them.
pub async fn run(kubectl: &Kubectl, report: &mut Report) {
    for edit in EDITS {
        report.check(&format!("{} edited by hand is put right", edit.child), edited(kubectl, &edit)).await;
        report.check(&format!("{} deleted comes back", edit.child), deleted(kubectl, &edit)).await;
    }
    report
        .check("the Board is available after all that", async {
            let took = available(kubectl, "tidemark", AVAILABLE).await?;
            Ok(format!("{:.1} s", took.as_secs_f64()))
        })
        .await;
}

/// Waits until a Board is available, with nothing on its way and nothing degraded.
///
/// # Errors
/// When it is not in time.
pub async fn available(kubectl: &Kubectl, board: &str, within: Duration) -> Result<Duration> {
    let is = |board: &Value, kind, status: &str| {
        condition(board, kind).is_some_and(|condition| condition["status"] == status)
    };
    kubectl
        .until(&format!("board {board}"), within, |board| {
            let seen = board["status"]["observedGeneration"] == board["metadata"]["generation"];
            seen && is(board, "Available", "True")
                && is(board, "Progressing", "False")
                && is(board, "Degraded", "False")
        })
        .await
}

async fn edited(kubectl: &Kubectl, edit: &Edit) -> Result<String> {
    let child = named(kubectl, edit.child).await?;
    let before = kubectl.get(&child).await?;
    let right = before.pointer(edit.pointer).with_context(|| format!("{child} has no {}", edit.pointer))?.clone();
    kubectl.args(&["patch", &child, "--type=merge", "--patch", edit.patch]).await?;
    let took = kubectl.until(&child, HEALED, |now| now.pointer(edit.pointer) == Some(&right)).await?;
    let after = kubectl.get(&child).await?;
    ensure!(after["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"], "nothing was edited");
    Ok(format!("{:.1} s", took.as_secs_f64()))
}

async fn deleted(kubectl: &Kubectl, edit: &Edit) -> Result<String> {
    let child = named(kubectl, edit.child).await?;
    let before = kubectl.get(&child).await?["metadata"]["uid"].clone();
    kubectl.run(&format!("delete {child} --wait=false")).await?;
    let took = kubectl
        .until(&child, HEALED, |now| {
            let metadata = &now["metadata"];
            !metadata["uid"].is_null() && metadata["uid"] != before && metadata["deletionTimestamp"].is_null()
        })
        .await?;
    let now = kubectl.get(&child).await?;
    ensure!(now["metadata"]["ownerReferences"][0]["kind"] == "Board", "{child} has no owner");
    Ok(format!("{:.1} s", took.as_secs_f64()))
}

/// The full name of a child; that of a Job ends in a hash.
async fn named(kubectl: &Kubectl, child: &str) -> Result<String> {
    let Some(job) = child.strip_prefix("job/") else { return Ok(child.to_owned()) };
    let jobs = kubectl.names("jobs").await?;
    let found = jobs.into_iter().find(|name| name.starts_with(&format!("{job}-")));
    found.map(|name| format!("job/{name}")).context("there is no such Job")
}
