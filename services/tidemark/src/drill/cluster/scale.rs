//! `scale`: two more replicas of the target, then as many as before.

use kube::{
    Api,
    api::{ListParams, Patch},
    core::{ApiResource, DynamicObject, GroupVersion},
    discovery,
};
use serde_json::json;
use tokio::time::Instant;

use super::{
    Cluster, Error,
    api::{Kube, Look, list, ours, persist},
    objects::{finished, resource, uid},
    rules::Rule,
    undo::Undo,
};

/// How many are added: with two, four. More are a question of room, not of the handover.
const MORE: usize = 2;

/// Who is scaled: the target, or what owns it and would put it back.
#[derive(Debug, Clone)]
pub struct Scaler {
    resource: ApiResource,
    namespace: String,
    name: String,
    /// Whether it is the owner.
    owner: bool,
}

impl Scaler {
    /// The right to do that to its scale.
    pub fn rule(&self, verb: &'static str) -> Rule {
        Rule {
            namespace: Some(self.namespace.clone()),
            group: self.resource.group.clone(),
            resource: format!("{}/scale", self.resource.plural),
            name: Some(self.name.clone()),
            verb,
        }
    }

    /// Says how many are wanted.
    pub async fn set(&self, kube: &Kube, replicas: usize) -> kube::Result<()> {
        let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
        let (api, params) = (self.api(kube), ours());
        persist(|| api.patch_scale(&self.name, &params, &patch)).await.map(drop)
    }

    /// Where it is.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    fn api(&self, kube: &Kube) -> Api<DynamicObject> {
        kube.of(&self.resource, &self.namespace)
    }
}

impl std::fmt::Display for Scaler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.resource.kind.to_lowercase(), self.name)
    }
}

impl Cluster {
    /// Finds out who is scaled: a controller that owns the target and has a scale of its own, whatever its kind, or else the target.
    pub(super) async fn scaler(&self) -> Result<Scaler, Error> {
        let (kube, target) = (&self.kube, &self.target);
        let workload =
            persist(|| kube.workload(target)).await.map_err(|error| Error::request(format!("read {target}"), error))?;
        let namespace = kube.namespace(target).to_owned();
        let owners = workload.metadata.owner_references.unwrap_or_default();
        if let Some(owner) = owners.into_iter().find(|owner| owner.controller == Some(true)) {
            let what = format!("find out whether {}/{} can be scaled", owner.kind.to_lowercase(), owner.name);
            let version: GroupVersion =
                owner.api_version.parse().map_err(|error: kube::core::gvk::ParseGroupVersionError| Error::Request {
                    what: what.clone(),
                    source: error.into(),
                })?;
            let kind = version.with_kind(&owner.kind);
            let (resource, can) = persist(|| discovery::pinned_kind(&kube.client, &kind))
                .await
                .map_err(|error| Error::request(what, error))?;
            if can.subresources.iter().any(|(resource, _)| resource.plural == "scale") {
                return Ok(Scaler { resource, namespace, name: owner.name, owner: true });
            }
        }
        Ok(Scaler { resource: resource(target.kind), namespace, name: target.name.clone(), owner: false })
    }

    /// Sees that an owner's scale is that of the target's pods.
    pub(super) async fn scales_target(&self, scaler: &Scaler, target: &Look) -> Result<(), Error> {
        if !scaler.owner {
            return Ok(());
        }
        let api = scaler.api(&self.kube);
        let failed = |error| Error::request(format!("read the scale of {scaler}"), error);
        let scale = persist(|| api.get_scale(&scaler.name)).await.map_err(failed)?;
        let selector = scale.status.and_then(|status| status.selector).filter(|selector| !selector.is_empty());
        let same = if let Some(selector) = selector {
            let (pods, params) = (self.kube.pods(&scaler.namespace), ListParams::default().labels(&selector));
            let pods = persist(|| list(&pods, &params)).await.map_err(failed)?;
            let uids = |pods: &[_]| {
                let mut uids: Vec<String> =
                    pods.iter().filter(|pod| !finished(pod)).map(|pod| uid(pod).to_owned()).collect();
                uids.sort();
                uids
            };
            uids(&pods) == uids(&target.pods)
        } else {
            // It does not say which pods it means.
            let replicas = scale.spec.and_then(|spec| spec.replicas);
            replicas.and_then(|replicas| usize::try_from(replicas).ok()) == Some(target.wanted)
        };
        if same { Ok(()) } else { Err(Error::Owned { place: self.target.clone(), owner: scaler.to_string() }) }
    }

    /// Two more, and back; each is waited for.
    pub(super) async fn scale(&self, target: &Look) -> Result<Instant, Error> {
        let scaler = self.scaler().await?;
        self.scales_target(&scaler, target).await?;
        let (few, many) = (target.wanted, target.wanted + MORE);
        self.undo.owe(Undo::Scale { scaler: scaler.clone(), replicas: few });
        let failed = |error| Error::request(format!("scale {scaler} to {many}"), error);
        scaler.set(&self.kube, many).await.map_err(failed)?;
        self.kube.whole(&self.target, Some(many), &[]).await?;
        self.restore().await?;
        self.kube.whole(&self.target, Some(few), &[]).await
    }
}
