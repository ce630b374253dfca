//! The faults: what is done to the system while a hundred clients watch and ten texts a second are saved.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::{
    kubectl::{Kubectl, condition, items, kill_from_node},
    report::Report,
    stage::{Kind, Stage},
};

/// Longest time for replicas to be replaced, with preStop and the drain window of the old ones.
const REPLACED: Duration = Duration::from_secs(120);

/// How old values may be after the database is ready again.
const FRESH: Duration = Duration::from_secs(5);

/// Runs all of them, one after the other.
///
/// # Errors
/// When a deed cannot be done, or the system does not recover.
pub async fn run(stage: &Stage, report: &mut Report) -> Result<()> {
    let kubectl = &stage.kubectl;
    report.fault(
        stage.fault("kubectl delete pod, a dashboard", Kind::Planned, delete_one(kubectl, "dashboard", "")).await?,
    );
    report.fault(stage.fault("kubectl delete pod, an app", Kind::Planned, delete_one(kubectl, "app", "")).await?);
    let force = "--grace-period=0 --force";
    report
        .fault(stage.fault("delete --force, a dashboard", Kind::Hard, delete_one(kubectl, "dashboard", force)).await?);
    report.fault(stage.fault("SIGKILL from the node, a dashboard", Kind::Hard, kill_one(kubectl, "dashboard")).await?);
    for (from, to) in [(2, 1), (1, 2), (2, 4), (4, 2)] {
        let name = format!("kubectl scale board, {from} -> {to}");
        report.fault(stage.fault(&name, Kind::Planned, scale(kubectl, to)).await?);
    }
    for deployment in ["dashboard", "app"] {
        let name = format!("kubectl rollout restart, {deployment}");
        report.fault(stage.fault(&name, Kind::Planned, restart(kubectl, deployment)).await?);
    }
    let worker = drainable(kubectl).await?;
    report.fault(stage.fault("kubectl drain, a worker", Kind::Planned, drain(kubectl, &worker)).await?);
    kubectl.run(&format!("uncordon {worker}")).await?;
    database(stage, report).await
}

/// Deletes the first pod of a Deployment and waits until it is gone and replaced.
async fn delete_one(kubectl: &Kubectl, deployment: &str, how: &str) -> Result<()> {
    let pod = one(kubectl, deployment).await?;
    kubectl.run(&format!("delete pod {pod} {how}")).await?;
    replaced(kubectl, deployment).await
}

async fn kill_one(kubectl: &Kubectl, deployment: &str) -> Result<()> {
    let pod = one(kubectl, deployment).await?;
    kill_from_node(kubectl, &pod).await?;
    kubectl.until(&format!("pod {pod}"), REPLACED, |pod| restarts(pod) > 0 && ready(pod)).await?;
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
    let words = format!("drain {worker} --ignore-daemonsets --delete-emptydir-data --force --timeout=180s");
    let drained = kubectl.run(&words);
    let watched = async {
        let mut lowest = u64::MAX;
        loop {
            for deployment in ["app", "dashboard"] {
                let seen = kubectl.get(&format!("deployment {deployment}")).await?;
                lowest = lowest.min(seen["status"]["readyReplicas"].as_u64().unwrap_or(0));
            }
            ensure!(lowest >= 1, "a Deployment had no ready replica");
        }
    };
    tokio::select! {
        drained = drained => { drained?; }
        broken = watched => return broken,
    }
    replaced(kubectl, "dashboard").await?;
    replaced(kubectl, "app").await
}

/// The database's pod is deleted: sockets stay, acknowledged texts are there, and values are fresh soon after it is ready.
async fn database(stage: &Stage, report: &mut Report) -> Result<()> {
    let kubectl = &stage.kubectl;
    let fresh = std::cell::Cell::new(Duration::ZERO);
    let measured = stage
        .fault("kubectl delete pod, postgres-0", Kind::Database, async {
            kubectl.run("delete pod postgres-0").await?;
            kubectl.until("pod postgres-0", REPLACED, ready).await?;
            fresh.set(stage.settle().await?);
            Ok(())
        })
        .await?;
    report.fault(measured);
    report
        .check("fresh within 5 s of the database's return", async {
            ensure!(fresh.get() <= FRESH, "{:.1} s", fresh.get().as_secs_f64());
            Ok(format!("{:.1} s", fresh.get().as_secs_f64()))
        })
        .await;
    report.check("every acknowledged text is stored, once", stored(stage)).await;
    Ok(())
}

/// Asks the database itself.
async fn stored(stage: &Stage) -> Result<String> {
    let ids = stage.writer.ids();
    let list = ids.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(",");
    let sql = format!("SELECT count(*) FROM tidemark.texts WHERE id IN ({list})");
    let psql =
        ["exec", "postgres-0", "--", "psql", "-h", "127.0.0.1", "-U", "tidemark", "-d", "tidemark", "-tAc", &sql];
    let found = stage.kubectl.args(&psql).await?;
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

async fn one(kubectl: &Kubectl, deployment: &str) -> Result<String> {
    let pods = kubectl.names(&format!("pods --selector=app.kubernetes.io/name={deployment}")).await?;
    pods.into_iter().next().with_context(|| format!("there is no pod of {deployment}"))
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

fn restarts(pod: &serde_json::Value) -> u64 {
    pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or(0)
}
