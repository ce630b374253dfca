//! A Board that nobody touches causes no write.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};
use tokio::time::sleep;

use crate::kubectl::{Kubectl, items};

/// How long nothing may be written. Longer than any period of the operator.
const IDLE: Duration = Duration::from_secs(60);

/// All kinds that the operator writes.
const KINDS: &str = "boards,deployments,statefulsets,services,ingresses,networkpolicies,poddisruptionbudgets,serviceaccounts,configmaps,secrets,jobs,events";

/// The operator counts connections every 30 s and writes a count that changed: the clients of an earlier part have to be off the list.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// Compares the version of every object before and after a minute. Nobody else may be connected.
///
/// # Errors
/// Names what was written.
pub async fn run(kubectl: &Kubectl) -> Result<String> {
    kubectl.until("board tidemark", FORGOTTEN, |board| board["status"]["connections"] == 0).await?;
    let before = versions(kubectl).await?;
    sleep(IDLE).await;
    let after = versions(kubectl).await?;
    let written: Vec<_> = after
        .iter()
        .filter(|(name, version)| before.get(*name) != Some(version))
        .map(|(name, _)| name.as_str())
        .collect();
    ensure!(written.is_empty(), "written: {}", written.join(", "));
    Ok(format!("{} objects", after.len()))
}

async fn versions(kubectl: &Kubectl) -> Result<BTreeMap<String, String>> {
    let list = kubectl.get(KINDS).await?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    Ok(items(&list)
        .map(|item| {
            let name = format!("{}/{}", text(&item["kind"]), text(&item["metadata"]["name"]));
            (name, text(&item["metadata"]["resourceVersion"]))
        })
        .collect())
}
