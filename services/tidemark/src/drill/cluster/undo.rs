//! What has to be put back. It is noted before it is done, so that a fault that fails or is broken off leaves a note of it.

use std::sync::{Mutex, PoisonError};

use kube::{Api, api::Patch};
use serde_json::json;

use super::{
    Cluster, Error,
    api::{Kube, ours, persist},
    objects::{Node, nodes},
    scale::Scaler,
};
use crate::say;

/// One thing that is owed to the cluster.
#[derive(Debug, Clone)]
pub enum Undo {
    /// The node takes no pods.
    Uncordon(String),
    /// There are more replicas than before.
    Scale {
        /// Of what.
        scaler: Scaler,
        /// How many there were.
        replicas: usize,
    },
}

/// What is owed, the latest last.
#[derive(Debug, Default)]
pub struct Debts(Mutex<Vec<Undo>>);

impl Debts {
    /// Notes what is about to be done.
    pub fn owe(&self, undo: Undo) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(undo);
    }

    fn last(&self) -> Option<Undo> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).last().cloned()
    }

    fn paid(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
    }
}

impl Drop for Debts {
    fn drop(&mut self) {
        for undo in self.0.get_mut().unwrap_or_else(PoisonError::into_inner) {
            say::note(format_args!("left as it is, put it back: {undo}"));
        }
    }
}

impl std::fmt::Display for Undo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uncordon(node) => write!(f, "kubectl uncordon {node}"),
            Self::Scale { scaler, replicas } => {
                write!(f, "kubectl --namespace {} scale {scaler} --replicas={replicas}", scaler.namespace())
            }
        }
    }
}

impl Undo {
    async fn pay(&self, kube: &Kube) -> Result<(), Error> {
        let paid = match self {
            Self::Uncordon(node) => cordon(kube, node, false).await,
            Self::Scale { scaler, replicas } => scaler.set(kube, *replicas).await,
        };
        match paid {
            // An autoscaler takes empty nodes away, and users take Boards away: nothing is owed to them.
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            paid => paid.map_err(|error| Error::request(self.to_string(), error)),
        }
    }
}

impl Cluster {
    /// Puts back what a fault has changed and not put back itself. [`Cluster::inject`] ends with it, also after a failure. Whoever breaks off an
    /// injection, as on Ctrl-C, has to call it; without anything to put back it does nothing.
    ///
    /// # Errors
    /// When the API server refuses, or is away for minutes. What is left is told on standard error at the end.
    pub async fn restore(&self) -> Result<(), Error> {
        while let Some(undo) = self.undo.last() {
            undo.pay(&self.kube).await?;
            self.undo.paid();
        }
        Ok(())
    }
}

/// Lets a node take no new pods, or again.
pub async fn cordon(kube: &Kube, node: &str, unschedulable: bool) -> kube::Result<()> {
    let (api, params) = (Api::<Node>::all_with(kube.client.clone(), &nodes()), ours());
    // As kubectl leaves a node: the field is there only while it is true.
    let patch = Patch::Merge(json!({ "spec": { "unschedulable": unschedulable.then_some(true) } }));
    persist(|| api.patch(node, &params, &patch)).await.map(drop)
}
