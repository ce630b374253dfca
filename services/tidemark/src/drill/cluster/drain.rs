//! `drain`: a worker that hosts the target is emptied as `kubectl drain` does it, and takes pods again afterwards.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join_all;
use k8s_openapi::{
    api::policy::v1::Eviction,
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions},
};
use kube::{
    Api,
    api::{ListParams, PostParams},
    core::{ObjectMeta, Status},
};
use tokio::time::Instant;

use super::{
    Cluster, Error, Kind,
    api::{Kube, list, persist, until},
    objects::{self, Node, Pod, controller, finished, is_mirror, is_worker, nodes, resource, serves, takes_pods, uid},
    undo::{Undo, cordon},
};

impl Cluster {
    /// The first worker that hosts a pod of the target, but neither database nor ingress, and nothing that would not come back elsewhere.
    ///
    /// # Errors
    /// Names each node and what speaks against it.
    pub(super) async fn choose_worker(&self) -> Result<String, Error> {
        let kube = &self.kube;
        let failed = |error| Error::request("see which worker can be drained", error);
        let nodes: Api<Node> = Api::all_with(kube.client.clone(), &nodes());
        let everywhere: Api<Pod> = Api::all_with(kube.client.clone(), &resource(Kind::Pod));
        let all = ListParams::default();
        let nodes = persist(|| list(&nodes, &all)).await.map_err(failed)?;
        let pods = persist(|| list(&everywhere, &all)).await.map_err(failed)?;
        let hosts = async |place| -> Result<BTreeSet<String>, Error> {
            let Some(place) = place else { return Ok(BTreeSet::new()) };
            let look = persist(|| kube.look(place)).await.map_err(failed)?;
            Ok(look.pods.iter().map(|pod| objects::node(pod).to_owned()).collect())
        };
        let hosts = Hosts {
            target: hosts(Some(&self.target)).await?,
            ingress: hosts(self.ingress.place()).await?,
            database: hosts(self.database.place()).await?,
            spare: self.spare.as_deref(),
        };
        choose(&nodes, &pods, &hosts).map_err(Error::NoWorker)
    }

    /// Empties a worker, and waits until everything that was on it is ready elsewhere.
    pub(super) async fn drain(&self) -> Result<Instant, Error> {
        let worker = self.choose_worker().await?;
        let kube = &self.kube;
        let failed = |error| Error::request(format!("drain {worker}"), error);
        self.undo.owe(Undo::Uncordon(worker.clone()));
        cordon(kube, &worker, true).await.map_err(failed)?;

        let everywhere: Api<Pod> = Api::all_with(kube.client.clone(), &resource(Kind::Pod));
        let on_it = ListParams::default().fields(&format!("spec.nodeName={worker}"));
        let pods = persist(|| list(&everywhere, &on_it)).await.map_err(failed)?;
        let pods = movable(pods.iter()).map_err(|why| Error::Undrainable { node: worker.clone(), why })?;
        let namespaces: BTreeSet<_> = pods.iter().map(namespace).collect();
        // What serves in those namespaces before: as much has to serve after.
        let before = serving(kube, &namespaces).await.map_err(failed)?;

        try_join_all(pods.iter().map(|pod| evict(kube, pod))).await.map_err(failed)?;
        let gone: BTreeSet<_> = pods.iter().map(uid).collect();
        let owners: BTreeSet<_> = pods.iter().filter_map(comes_back).collect();
        until(&format!("what was on {worker}"), || async {
            let now = serving(kube, &namespaces).await?;
            let left = gone.iter().filter(|uid| now.pods.contains(**uid)).count();
            let count = |serving: &Serving, owner: &str| serving.by_owner.get(owner).copied().unwrap_or(0);
            let behind = owners.iter().filter(|owner| count(&now, owner) < count(&before, owner)).count();
            let missing =
                format!("{left} pods are still there, {behind} controllers have fewer ready pods than before");
            Ok((left + behind > 0).then_some(missing))
        })
        .await
    }
}

/// Which nodes have what.
struct Hosts<'a> {
    target: BTreeSet<String>,
    ingress: BTreeSet<String>,
    database: BTreeSet<String>,
    spare: Option<&'a str>,
}

fn choose(nodes: &[Node], pods: &[Pod], hosts: &Hosts<'_>) -> Result<String, Vec<(String, String)>> {
    let room = nodes.iter().filter(|node| is_worker(node) && takes_pods(node)).count();
    let against = |node: &Node, name: &str| {
        let reasons = [
            (!is_worker(node), "it runs the cluster itself"),
            (!takes_pods(node), "it is cordoned or not ready"),
            (hosts.spare == Some(name), "it is to be spared"),
            (hosts.database.contains(name), "it hosts the database"),
            (hosts.ingress.contains(name), "it hosts the ingress"),
            (!hosts.target.contains(name), "it hosts no pod of the target"),
            (room < 2, "there is no other worker that takes its pods"),
        ];
        let reason = reasons.into_iter().find(|(holds, _)| *holds).map(|(_, reason)| reason.to_owned());
        reason.or_else(|| movable(pods.iter().filter(|pod| objects::node(pod) == name)).err())
    };
    let mut reasons = Vec::new();
    for node in nodes {
        let name = node.metadata.name.clone().unwrap_or_default();
        match against(node, &name) {
            None => return Ok(name),
            Some(reason) => reasons.push((name, reason)),
        }
    }
    Err(reasons)
}

/// The pods that a drain moves: not those of DaemonSets and of the node itself, which stay, and none that has ended. A pod that nobody would make
/// again is told as the reason not to drain.
fn movable<'a>(pods: impl Iterator<Item = &'a Pod>) -> Result<Vec<Pod>, String> {
    let mut movable = Vec::new();
    for pod in pods.filter(|pod| !finished(pod) && !is_mirror(pod)) {
        match controller(pod) {
            Some(owner) if owner.kind == "DaemonSet" => {}
            Some(_) => movable.push(pod.clone()),
            None => return Err(format!("nobody would make its pod {}/{} again", namespace(pod), name(pod))),
        }
    }
    Ok(movable)
}

/// Asks for an eviction until a budget allows it. A pod that is gone already is as good.
async fn evict(kube: &Kube, pod: &Pod) -> kube::Result<()> {
    let (name, namespace) = (name(pod).to_owned(), namespace(pod).to_owned());
    let eviction = Eviction {
        metadata: ObjectMeta { name: Some(name.clone()), namespace: Some(namespace.clone()), ..ObjectMeta::default() },
        delete_options: Some(DeleteOptions {
            preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), ..Preconditions::default() }),
            ..DeleteOptions::default()
        }),
    };
    let (pods, params) = (kube.pods(&namespace), PostParams::default());
    match persist(|| pods.create_subresource::<_, Status>("eviction", &name, &params, &eviction)).await {
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        evicted => evicted.map(drop),
    }
}

/// What serves, by the controller that keeps it so.
struct Serving {
    pods: BTreeSet<String>,
    by_owner: BTreeMap<String, usize>,
}

async fn serving(kube: &Kube, namespaces: &BTreeSet<&str>) -> kube::Result<Serving> {
    let mut serving = Serving { pods: BTreeSet::new(), by_owner: BTreeMap::new() };
    for namespace in namespaces {
        for pod in list(&kube.pods(namespace), &ListParams::default()).await? {
            serving.pods.insert(uid(&pod).to_owned());
            if let (true, Some(owner)) = (serves(&pod), controller(&pod)) {
                *serving.by_owner.entry(owner.uid.clone()).or_default() += 1;
            }
        }
    }
    Ok(serving)
}

/// Who keeps as many of it as there were. A Job does not: its other pods may end meanwhile.
fn comes_back(pod: &Pod) -> Option<&str> {
    controller(pod).filter(|owner| owner.kind != "Job").map(|owner| owner.uid.as_str())
}

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}
