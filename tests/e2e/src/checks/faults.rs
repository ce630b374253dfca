//! The faults: what is done to the system while a hundred clients watch and ten texts a second are saved.

use std::{pin::Pin, time::Duration};

use anyhow::{Context, Result, ensure};
use tokio::time::sleep;

use crate::{
    kubectl::{Kubectl, LOOK, condition, items, kill_from_node},
    report::Report,
    stage::{Fault, Kind, Stage},
};

/// Longest time for replicas to be replaced, with preStop and the drain window of the old ones.
const REPLACED: Duration = Duration::from_secs(120);

/// How old values may be after the database is ready again.
const FRESH: Duration = Duration::from_secs(5);

/// What runs in two replicas.
const DEPLOYMENTS: [&str; 3] = ["dashboard", "app", "metric-generator"];

/// Runs all of them, one after the other, or only those whose name has these words.
///
/// # Errors
/// When a deed cannot be done, or the system does not recover.
pub async fn run(stage: &Stage, only: Option<&str>, report: &mut Report) -> Result<()> {
    let kubectl = &stage.kubectl;
    let wanted = |name: &str| only.is_none_or(|words| name.contains(words));
    let mut run = async |name: &str, kind, hits, deed: Deed<'_>| -> Result<()> {
        if wanted(name) {
            let fault = Fault { name: name.to_owned(), kind, hits };
            report.fault(stage.fault(fault, async |_| deed.await).await?);
        }
        Ok(())
    };
    for deployment in DEPLOYMENTS {
        replaced(kubectl, deployment).await?;
    }
    let (planned, hard, force) = (Kind::Planned, Kind::Hard, "--grace-period=0 --force");
    run("delete pod, a dashboard", planned, true, Box::pin(delete_one(kubectl, "dashboard", ""))).await?;
    run("delete pod, an app", planned, false, Box::pin(delete_one(kubectl, "app", ""))).await?;
    let generator = Box::pin(delete_one(kubectl, "metric-generator", ""));
    run("delete pod, a metric generator", planned, false, generator).await?;
    run("delete --force, a dashboard", hard, true, Box::pin(delete_one(kubectl, "dashboard", force))).await?;
    run("SIGKILL from the node, a dashboard", hard, true, Box::pin(kill_one(kubectl, "dashboard"))).await?;
    for (from, to) in [(2, 1), (1, 2), (2, 4), (4, 2)] {
        run(&format!("scale board, {from} -> {to}"), planned, to < from, Box::pin(scale(kubectl, to))).await?;
    }
    run("rollout restart, dashboard", planned, true, Box::pin(restart(kubectl, "dashboard"))).await?;
    run("rollout restart, app", planned, false, Box::pin(restart(kubectl, "app"))).await?;
    if wanted("drain, a worker") {
        let worker = drainable(kubectl).await?;
        hosts_a_dashboard(kubectl, &worker).await?;
        run("drain, a worker", planned, true, Box::pin(drain(kubectl, &worker))).await?;
    }
    if wanted("delete pod, postgres-0") {
        database(stage, report).await?;
    }
    report.check("every acknowledged text is stored, once", stored(stage)).await;
    Ok(())
}

type Deed<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// Deletes the first pod of a Deployment and waits until it is gone and replaced.
async fn delete_one(kubectl: &Kubectl, deployment: &str, how: &str) -> Result<()> {
    let pod = one(kubectl, deployment).await?;
    kubectl.run(&format!("delete pod {pod} {how}")).await?;
    replaced(kubectl, deployment).await
}

async fn kill_one(kubectl: &Kubectl, deployment: &str) -> Result<()> {
    let pod = one(kubectl, deployment).await?;
    let before = restarts(&kubectl.get(&format!("pod {pod}")).await?);
    kill_from_node(kubectl, &pod).await?;
    kubectl.until(&format!("pod {pod}"), REPLACED, |pod| restarts(pod) > before && ready(pod)).await?;
    Ok(())
}

async fn scale(kubectl: &Kubectl, replicas: u64) -> Result<()> {
    kubectl.run(&format!("scale board/tidemark --replicas={replicas}")).await?;
    let grown = |deployment: &serde_json::Value| {
        deployment["spec"]["replicas"] == replicas && deployment["status"]["readyReplicas"] == replicas
    };
    kubectl.until("deployment dashboard", REPLACED, grown).await?;
    replaced(kubectl, "dashboard").await
}

async fn restart(kubectl: &Kubectl, deployment: &str) -> Result<()> {
    kubectl.run(&format!("rollout restart deployment/{deployment}")).await?;
    replaced(kubectl, deployment).await
}

/// The PodDisruptionBudgets hold while the node is emptied: each Deployment keeps a ready replica.
async fn drain(kubectl: &Kubectl, worker: &str) -> Result<()> {
    let words = format!("drain {worker} --ignore-daemonsets --delete-emptydir-data --timeout=180s");
    let drained = kubectl.run(&words);
    let watched = async {
        let mut lowest = u64::MAX;
        loop {
            let seen = kubectl.get(&format!("deployments {}", DEPLOYMENTS.join(" "))).await?;
            let ready = items(&seen).map(|one| one["status"]["readyReplicas"].as_u64().unwrap_or(0));
            lowest = lowest.min(ready.min().unwrap_or(0));
            ensure!(lowest >= 1, "a Deployment had no ready replica");
            sleep(LOOK).await;
        }
    };
    tokio::select! {
        drained = drained => { drained?; }
        broken = watched => return broken,
    }
    for deployment in DEPLOYMENTS {
        replaced(kubectl, deployment).await?;
    }
    kubectl.run(&format!("uncordon {worker}")).await.map(drop)
}

/// The database's pod is deleted: sockets stay, acknowledged texts are there, and values are fresh soon after it is ready.
async fn database(stage: &Stage, report: &mut Report) -> Result<()> {
    let kubectl = &stage.kubectl;
    let mut fresh = Duration::MAX;
    let fault = Fault { name: "delete pod, postgres-0".to_owned(), kind: Kind::Database, hits: false };
    let measured = stage
        .fault(fault, async |crowd| {
            let old = uid(&kubectl.get("pod postgres-0").await?);
            kubectl.run("delete pod postgres-0").await?;
            kubectl.until("pod postgres-0", REPLACED, |pod| ready(pod) && uid(pod) != old).await?;
            fresh = stage.fresh(crowd).await?;
            Ok(())
        })
        .await?;
    report.fault(measured);
    report
        .check("fresh within 5 s of the database's return", async {
            ensure!(fresh <= FRESH, "{:.1} s", fresh.as_secs_f64());
            Ok(format!("{:.1} s", fresh.as_secs_f64()))
        })
        .await;
    Ok(())
}

/// Asks the database itself.
async fn stored(stage: &Stage) -> Result<String> {
    let ids = stage.writer.ids();
    let list = ids.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(",");
    let sql = format!("SELECT count(*) FROM tidemark.texts WHERE id IN ({list})");
    let found = stage.kubectl.sql(&sql).await?;
    ensure!(found.trim() == ids.len().to_string(), "{} of {}", found.trim(), ids.len());
    Ok(format!("{} texts", ids.len()))
}

/// The worker that hosts neither Postgres nor the ingress.
async fn drainable(kubectl: &Kubectl) -> Result<String> {
    let node = |pod: &serde_json::Value| pod["spec"]["nodeName"].as_str().map(str::to_owned);
    let mut taken: Vec<String> = node(&kubectl.get("pod postgres-0").await?).into_iter().collect();
    taken.extend(items(&kubectl.within("traefik").get("pods").await?).filter_map(node));
    let workers = kubectl.names("nodes --selector=!node-role.kubernetes.io/control-plane").await?;
    workers.into_iter().find(|worker| !taken.contains(worker)).context("Postgres and the ingress are on all workers")
}

/// The topology spread is soft, so the last fault may have left all dashboards on the other worker: then one of them is made anew, beside none.
async fn hosts_a_dashboard(kubectl: &Kubectl, worker: &str) -> Result<()> {
    let pods = kubectl.get("pods --selector=app.kubernetes.io/name=dashboard").await?;
    if items(&pods).any(|pod| pod["spec"]["nodeName"] == worker) {
        return Ok(());
    }
    delete_one(kubectl, "dashboard", "").await
}

async fn one(kubectl: &Kubectl, deployment: &str) -> Result<String> {
    let pods = kubectl.get(&format!("pods --selector=app.kubernetes.io/name={deployment}")).await?;
    let name = items(&pods).find(|pod| ready(pod)).and_then(|pod| pod["metadata"]["name"].as_str());
    name.map(str::to_owned).with_context(|| format!("there is no pod of {deployment}"))
}

/// Waits until a Deployment has what it wants, and nothing else is left of it.
async fn replaced(kubectl: &Kubectl, deployment: &str) -> Result<()> {
    kubectl.run(&format!("rollout status deployment/{deployment} --timeout=120s")).await?;
    let wanted =
        kubectl.get(&format!("deployment {deployment}")).await?["spec"]["replicas"].as_u64().unwrap_or(1) as usize;
    let pods = format!("pods --selector=app.kubernetes.io/name={deployment}");
    kubectl.until(&pods, REPLACED, |pods| items(pods).count() == wanted && items(pods).all(ready)).await?;
    Ok(())
}

fn ready(pod: &serde_json::Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_null()
        && condition(pod, "Ready").is_some_and(|ready| ready["status"] == "True")
}

fn uid(pod: &serde_json::Value) -> Option<String> {
    pod["metadata"]["uid"].as_str().map(str::to_owned)
}

fn restarts(pod: &serde_json::Value) -> u64 {
    pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or(0)
}
