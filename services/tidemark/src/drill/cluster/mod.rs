//! Faults on a cluster, done through the Kubernetes API: on any Deployment, and what stands before and behind it.
//!
//! - [`args`]: which cluster, which objects, which faults
//! - [`Cluster::check`], before anything is done: the objects are there and whole, and the account may do it ([`rules`])
//! - [`Cluster::inject`]: the faults; [`scale`] and [`drain`] have files of their own
//! - [`undo`]: what is put back, whatever happens
//! - [`api`], [`objects`], [`error`]: requests, what is read of the answers, and what can go wrong

mod api;
mod args;
mod drain;
mod error;
mod objects;
mod rules;
mod scale;
#[cfg(test)]
mod tests;
mod undo;

use chrono::{SecondsFormat, Utc};
use kube::api::{DeleteParams, Patch, Preconditions};
use serde_json::json;
use tokio::time::Instant;

use self::{
    api::{Kube, Look, ours, persist},
    objects::{Workload, resource, uid},
    undo::Debts,
};
pub use self::{
    args::{Beside, ClusterArgs, ClusterFault, Kind, Place},
    error::Error,
    rules::{Missing, Rule},
};
use super::fault::Returned;

/// Annotation that `kubectl rollout restart` sets on the template of pods.
const RESTARTED: &str = "kubectl.kubernetes.io/restartedAt";

/// A cluster, and the objects on it that faults happen to.
pub struct Cluster {
    kube: Kube,
    target: Place,
    ingress: Beside,
    database: Beside,
    spare: Option<String>,
    undo: Debts,
}

impl Cluster {
    /// Finds the way to the cluster: the kubeconfig's, or in a pod that of its service account.
    ///
    /// # Errors
    /// When there is neither, or nobody answers there.
    pub async fn connect(args: &ClusterArgs) -> Result<Self, Error> {
        let kube = Kube::connect(args.context.as_deref(), args.namespace.as_deref()).await?;
        Ok(Self::new(kube, args))
    }

    fn new(kube: Kube, args: &ClusterArgs) -> Self {
        let ClusterArgs { kube: _, namespace: _, context: _, target, ingress, database, spare } = args.clone();
        Self { kube, target, ingress, database, spare, undo: Debts::default() }
    }

    /// Sees, before anything is done, that these faults can be done: the objects are there, all that they want is ready, nobody's last pod is taken,
    /// and the account may do it.
    ///
    /// # Errors
    /// Says what is missing; of rights every one.
    pub async fn check(&self, faults: &[ClusterFault]) -> Result<(), Error> {
        let scaler = if faults.contains(&ClusterFault::Scale) { Some(self.scaler().await?) } else { None };
        self.review(self.rules(faults, scaler.as_ref())).await?;
        for fault in faults {
            let look = self.steady(*fault).await?;
            match (fault, &scaler) {
                (ClusterFault::Scale, Some(scaler)) => self.scales_target(scaler, &look).await?,
                (ClusterFault::Drain, _) => drop(self.choose_worker().await?),
                _ => {}
            }
        }
        Ok(())
    }

    /// Does it, and returns when everything that was taken away is there again and ready (noticed half a second late at most). Whoever drops it half-way calls [`Cluster::restore`].
    ///
    /// # Errors
    /// When something refuses, or does not come back within five minutes. What was changed is put back even then.
    pub async fn inject(&self, fault: ClusterFault) -> Result<Returned, Error> {
        let done = self.fault(fault).await;
        let restored = self.restore().await;
        let at = done?;
        restored?;
        Ok(Returned { at })
    }

    async fn fault(&self, fault: ClusterFault) -> Result<Instant, Error> {
        let look = self.steady(fault).await?;
        let place = self.place(fault)?;
        match fault {
            ClusterFault::PodDelete
            | ClusterFault::ForceDelete
            | ClusterFault::IngressRestart
            | ClusterFault::DatabaseDelete => self.take(fault, place, &look).await,
            ClusterFault::Rollout => self.roll(place, &look).await,
            ClusterFault::Scale => self.scale(&look).await,
            ClusterFault::Drain => self.drain().await,
        }
    }

    /// What the fault happens to.
    fn place(&self, fault: ClusterFault) -> Result<&Place, Error> {
        match fault {
            ClusterFault::IngressRestart => self.ingress.place().ok_or(Error::Nowhere { fault, flag: "--ingress" }),
            ClusterFault::DatabaseDelete => self.database.place().ok_or(Error::Nowhere { fault, flag: "--database" }),
            _ => Ok(&self.target),
        }
    }

    /// Sees that what the fault happens to is whole, and that somebody serves while a pod is away.
    async fn steady(&self, fault: ClusterFault) -> Result<Look, Error> {
        let place = self.place(fault)?;
        let failed = |error| Error::request(format!("look at {place}"), error);
        let look = persist(|| self.kube.look(place)).await.map_err(failed)?;
        let needed = match fault {
            ClusterFault::PodDelete
            | ClusterFault::ForceDelete
            | ClusterFault::Drain
            | ClusterFault::IngressRestart => 2,
            // Nothing is taken before something else is there; the database is one.
            ClusterFault::Rollout | ClusterFault::Scale | ClusterFault::DatabaseDelete => 1,
        };
        if !look.is_whole() {
            return Err(Error::Unsteady { place: place.clone(), fault, seen: look.to_string() });
        }
        if look.serving() < needed {
            return Err(Error::Few { place: place.clone(), fault, serving: look.serving(), needed });
        }
        if fault == ClusterFault::Rollout && look.paused {
            return Err(Error::Paused(place.clone()));
        }
        Ok(look)
    }

    /// Deletes one pod.
    async fn take(&self, fault: ClusterFault, place: &Place, look: &Look) -> Result<Instant, Error> {
        let Some(pod) = look.pods.first() else {
            return Err(Error::Few { place: place.clone(), fault, serving: 0, needed: 1 });
        };
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let params = DeleteParams {
            // None is the pod's own.
            grace_period_seconds: (fault == ClusterFault::ForceDelete).then_some(0),
            // A pod of a StatefulSet comes back under its name: a second attempt must not take the new one.
            preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        let pods = self.kube.pods(self.kube.namespace(place));
        match persist(|| pods.delete(name, &params)).await {
            // An attempt before did it, and its answer was lost.
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
            deleted => drop(deleted.map_err(|error| Error::request(format!("delete pod {name}"), error))?),
        }
        self.kube.whole(place, None, &[uid(pod).to_owned()]).await
    }

    /// Replaces every pod of a Deployment.
    async fn roll(&self, place: &Place, look: &Look) -> Result<Instant, Error> {
        let at = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
        let patch =
            Patch::Merge(json!({ "spec": { "template": { "metadata": { "annotations": { RESTARTED: at } } } } }));
        let (api, params) = (self.kube.of::<Workload>(&resource(place.kind), self.kube.namespace(place)), ours());
        persist(|| api.patch(&place.name, &params, &patch))
            .await
            .map_err(|error| Error::request(format!("restart the rollout of {place}"), error))?;
        let old: Vec<_> = look.pods.iter().map(|pod| uid(pod).to_owned()).collect();
        self.kube.whole(place, None, &old).await
    }
}
