//! What keeps a fault from being done, or from being undone.

use std::{error::Error as StdError, time::Duration};

use super::{ClusterFault, Missing, Place};

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No kubeconfig, and not in a pod. The text has all causes: kept as sources they would be told twice.
    #[error("failed to find a way to a cluster: {0}")]
    Config(String),
    /// A request.
    #[error("failed to {what}")]
    Request {
        /// What was asked for.
        what: String,
        /// What came back.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// Rights.
    #[error("this account may not do the faults; it lacks:\n{}k8s/samples/drill-job.yaml has all rules", lines(.0))]
    Forbidden(Vec<Missing>),
    /// The flag says `none`.
    #[error("{fault} needs {flag}")]
    Nowhere {
        /// What was to be done.
        fault: ClusterFault,
        /// Which flag names the object.
        flag: &'static str,
    },
    /// A pod is missing, on its way or on its way out.
    #[error("{place} is not as it should be before {fault}: {seen}")]
    Unsteady {
        /// Of what.
        place: Place,
        /// What was to be done.
        fault: ClusterFault,
        /// How it is.
        seen: String,
    },
    /// The last pod would be taken.
    #[error("{place} has {serving} ready pod(s), and {fault} leaves nobody to serve with fewer than {needed}")]
    Few {
        /// Of what.
        place: Place,
        /// What was to be done.
        fault: ClusterFault,
        /// How many there are.
        serving: usize,
        /// How many there have to be.
        needed: usize,
    },
    /// A rollout would never begin.
    #[error("{0} is paused: kubectl rollout resume {0}")]
    Paused(Place),
    /// Whoever owns the target scales something else, and puts the target back.
    #[error("{place} belongs to {owner}, whose scale is that of other pods: it cannot be scaled by itself")]
    Owned {
        /// The target.
        place: Place,
        /// Kind and name.
        owner: String,
    },
    /// Every node has something that speaks against it.
    #[error("no worker can be drained:\n{}", .0.iter().map(|(node, why)| format!("  {node}: {why}\n")).collect::<String>())]
    NoWorker(Vec<(String, String)>),
    /// Something appeared on the worker after it was chosen.
    #[error("{node} is not drained: {why}")]
    Undrainable {
        /// The worker.
        node: String,
        /// What is there.
        why: String,
    },
    /// Not there in time.
    #[error("{what} is not back after {} s: {missing}", .after.as_secs())]
    Slow {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
        /// What was seen last.
        missing: String,
    },
}

impl Error {
    /// A request failed. Of an answer of the API server only its own words are told, and of a connection only its own.
    pub fn request(what: impl Into<String>, error: kube::Error) -> Self {
        let source: Box<dyn StdError + Send + Sync> = match error {
            kube::Error::Api(status) => status,
            kube::Error::Service(error) => error,
            other => Box::new(other),
        };
        Self::Request { what: what.into(), source }
    }
}

fn lines(missing: &[Missing]) -> String {
    missing.iter().map(|missing| format!("  {missing}\n")).collect()
}
