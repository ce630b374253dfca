//! A cluster that lives in memory: an API server, and controllers that make a step at each look at pods.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use hyper::http::{Method, Request, Response};
use kube::{Client, client::Body};
use serde_json::{Value, json};

use crate::drill::cluster::{Cluster, ClusterArgs, api::Kube};

/// A worker or the control plane.
pub struct Node {
    pub name: &'static str,
    pub cordoned: bool,
}

/// What keeps pods: a Deployment or a StatefulSet.
pub struct Set {
    pub namespace: &'static str,
    pub plural: &'static str,
    pub name: &'static str,
    pub replicas: usize,
    pub generation: usize,
    pub paused: bool,
    /// The Board that owns it.
    pub owner: Option<&'static str>,
}

/// A pod; times are counted in looks.
#[derive(Clone)]
pub struct Pod {
    pub namespace: &'static str,
    pub name: String,
    pub set: &'static str,
    pub uid: usize,
    pub generation: usize,
    pub node: &'static str,
    pub owner: Option<&'static str>,
    pub mirror: bool,
    pub phase: &'static str,
    pub ready_in: usize,
    pub gone_in: Option<usize>,
}

#[derive(Default)]
pub struct State {
    pub nodes: Vec<Node>,
    pub sets: Vec<Set>,
    pub pods: Vec<Pod>,
    /// Everything that was changed, in its order.
    pub writes: Vec<String>,
    /// What this account may not do: verb and resource.
    pub forbidden: BTreeSet<&'static str>,
    /// Every right that was asked for.
    pub reviewed: Vec<Value>,
    /// Answers that come so many times instead of the right one, by the end of the path.
    pub failures: BTreeMap<&'static str, (u16, usize)>,
    /// No pod becomes ready any more.
    pub stuck: bool,
    /// The replicas that the Board wants of what its scale is about.
    pub board: usize,
    /// The fewest pods that served, by set.
    pub lowest: BTreeMap<&'static str, usize>,
    uids: usize,
}

/// The cluster from outside.
#[derive(Clone)]
pub struct World(Arc<Mutex<State>>);

impl World {
    /// A control plane with the ingress, and two workers with a Board: its database on the first.
    pub fn with_board() -> Self {
        let mut state = State { board: 2, ..State::default() };
        state.nodes = ["control-plane", "worker", "worker2"].map(|name| Node { name, cordoned: false }).into();
        let set = |namespace, plural, name, replicas, owner| Set {
            namespace,
            plural,
            name,
            replicas,
            generation: 0,
            paused: false,
            owner,
        };
        state.sets = vec![
            set("quay", "deployments", "dashboard", 2, Some("harbor")),
            set("quay", "deployments", "app", 2, Some("harbor")),
            set("quay", "statefulsets", "postgres", 1, Some("harbor")),
            set("traefik", "deployments", "traefik", 2, None),
        ];
        for (set, node) in [
            ("dashboard", "worker"),
            ("dashboard", "worker2"),
            ("app", "worker"),
            ("app", "worker2"),
            ("postgres", "worker"),
            ("traefik", "control-plane"),
            ("traefik", "control-plane"),
        ] {
            state.make(set, node, 0);
        }
        Self(Arc::new(Mutex::new(state)))
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The drill, as these flags want it.
    pub fn cluster(&self, args: &ClusterArgs) -> Cluster {
        let world = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let world = world.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = serde_json::from_slice(&body.collect_bytes().await?).unwrap_or(Value::Null);
                let query = parts.uri.query().unwrap_or_default().replace("%3D", "=").replace("%2C", ",");
                let (code, answer) = world.state().answer(&parts.method, parts.uri.path(), &query, &body);
                Ok::<_, tower::BoxError>(
                    Response::builder().status(code).body(Body::from(answer.to_string().into_bytes()))?,
                )
            }
        });
        let namespace = args.namespace.as_deref().unwrap_or("quay");
        Cluster::new(Kube::new(Client::new(service, "default"), namespace.to_owned()), args)
    }

    /// What was changed until now; begins anew.
    pub fn writes(&self) -> Vec<String> {
        std::mem::take(&mut self.state().writes)
    }
}

fn failure(code: u16, reason: &str) -> (u16, Value) {
    (
        code,
        json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": format!("{reason} it is")}),
    )
}

fn list(items: impl IntoIterator<Item = Value>) -> (u16, Value) {
    (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items.into_iter().collect::<Vec<_>>()}))
}

impl State {
    /// Puts a pod of a set on a node.
    pub fn make(&mut self, set: &'static str, node: &'static str, ready_in: usize) -> &mut Pod {
        self.uids += 1;
        let uid = self.uids;
        let kept = self.sets.iter().find(|known| known.name == set);
        let (namespace, generation, stateful) =
            kept.map_or(("quay", 0, false), |set| (set.namespace, set.generation, set.plural == "statefulsets"));
        let name = if stateful { format!("{set}-0") } else { format!("{set}-{uid}") };
        let owner = Some(if stateful { "StatefulSet" } else { "ReplicaSet" });
        let (mirror, phase, gone_in) = (false, "Running", None);
        self.pods.push(Pod { namespace, name, set, uid, generation, node, owner, mirror, phase, ready_in, gone_in });
        self.pods.last_mut().unwrap()
    }

    pub fn set(&mut self, name: &str) -> &mut Set {
        self.sets.iter_mut().find(|set| set.name == name).unwrap()
    }

    fn serving(&self, set: &str) -> usize {
        self.pods.iter().filter(|pod| pod.set == set && pod.ready_in == 0 && pod.gone_in.is_none()).count()
    }

    /// What controllers and nodes do between two looks.
    fn step(&mut self) {
        for pod in &mut self.pods {
            pod.gone_in = pod.gone_in.map(|looks| looks - 1);
            pod.ready_in = if self.stuck { pod.ready_in } else { pod.ready_in.saturating_sub(1) };
        }
        self.pods.retain(|pod| pod.gone_in != Some(0));
        for at in 0..self.sets.len() {
            if self.sets[at].name == "dashboard" && self.sets[at].owner.is_some() {
                self.sets[at].replicas = self.board;
            }
            let Set { name, replicas, generation, plural, .. } = self.sets[at];
            let new = |pod: &&mut Pod| pod.set == name && pod.gone_in.is_none() && pod.generation == generation;
            let there = self.pods.iter_mut().filter(new).count();
            let occupied = plural == "statefulsets" && self.pods.iter().any(|pod| pod.set == name);
            for _ in there..replicas {
                let free = |node: &&Node| !node.cordoned && node.name != "control-plane";
                if let (Some(node), false) = (self.nodes.iter().find(free).map(|node| node.name), occupied) {
                    self.make(name, node, 2);
                }
            }
            self.pods.iter_mut().filter(new).skip(replicas).for_each(|pod| pod.gone_in = Some(3));
            if self.pods.iter_mut().filter(new).filter(|pod| pod.ready_in == 0).count() >= replicas {
                let old = |pod: &&mut Pod| pod.set == name && pod.gone_in.is_none() && pod.generation < generation;
                self.pods.iter_mut().filter(old).for_each(|pod| pod.gone_in = Some(3));
            }
            let serving = self.serving(name);
            let lowest = self.lowest.entry(name).or_insert(serving);
            *lowest = serving.min(*lowest);
        }
    }

    fn answer(&mut self, method: &Method, path: &str, query: &str, body: &Value) -> (u16, Value) {
        let failing = self.failures.iter_mut().find(|(end, (_, times))| path.ends_with(**end) && *times > 0);
        if let Some((_, (code, times))) = failing {
            *times -= 1;
            return failure(*code, if *code == 404 { "NotFound" } else { "Unwilling" });
        }
        let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
        match (method.as_str(), &parts[..]) {
            ("GET", ["apis", "tidemark.dev", "v1alpha1"]) => {
                let resource = |name, kind| json!({"name": name, "kind": kind, "namespaced": true, "singularName": "", "verbs": ["get"]});
                let resources = [resource("boards", "Board"), resource("boards/scale", "Scale")];
                (
                    200,
                    json!({"kind": "APIResourceList", "groupVersion": "tidemark.dev/v1alpha1", "resources": resources}),
                )
            }
            ("POST", ["apis", "authorization.k8s.io", "v1", _]) => {
                let asked = &body["spec"]["resourceAttributes"];
                let what = format!("{} {}", asked["verb"].as_str().unwrap(), asked["resource"].as_str().unwrap());
                self.reviewed.push(asked.clone());
                (201, json!({"metadata": {}, "spec": {}, "status": {"allowed": !self.forbidden.contains(&*what)}}))
            }
            ("GET", ["api", "v1", "nodes"]) => list(self.nodes.iter().map(node)),
            ("PATCH", ["api", "v1", "nodes", name]) => {
                let cordoned = body["spec"]["unschedulable"] == true;
                self.writes.push(format!("{} {name}", if cordoned { "cordon" } else { "uncordon" }));
                let node = self.nodes.iter_mut().find(|node| node.name == *name).unwrap();
                node.cordoned = cordoned;
                (200, self::node(node))
            }
            ("GET", ["api", "v1", "pods"]) => list(self.pods_like(None, query)),
            ("GET", ["api", "v1", "namespaces", namespace, "pods"]) => {
                self.step();
                list(self.pods_like(Some(namespace), query))
            }
            ("DELETE", ["api", "v1", "namespaces", namespace, "pods", name]) => {
                let at = self.pods.iter().position(|pod| pod.namespace == *namespace && pod.name == *name);
                let Some(at) = at else { return failure(404, "NotFound") };
                assert_eq!(body["preconditions"]["uid"], format!("uid-{}", self.pods[at].uid));
                let grace = body["gracePeriodSeconds"].as_u64();
                self.writes.push(format!("delete {} grace {grace:?}", self.pods[at].set));
                self.pods[at].gone_in = Some(if grace == Some(0) { 1 } else { 3 });
                (200, pod(&self.pods[at]))
            }
            ("POST", ["api", "v1", "namespaces", namespace, "pods", name, "eviction"]) => {
                let at = self.pods.iter().position(|pod| pod.namespace == *namespace && pod.name == *name);
                let Some(at) = at else { return failure(404, "NotFound") };
                let set = self.pods[at].set;
                let wanted = self.sets.iter().find(|known| known.name == set).map_or(0, |set| set.replicas);
                if self.serving(set) < wanted {
                    self.writes.push(format!("evict {set}: not yet"));
                    // While the client waits, time passes.
                    self.step();
                    return failure(429, "TooManyRequests");
                }
                self.writes.push(format!("evict {set}"));
                self.pods[at].gone_in = Some(3);
                (201, json!({"kind": "Status", "status": "Success"}))
            }
            (method, ["apis", "apps", "v1", "namespaces", namespace, plural, name, rest @ ..]) => {
                let found = self
                    .sets
                    .iter()
                    .position(|set| (set.namespace, set.plural, set.name) == (*namespace, *plural, *name));
                let Some(found) = found else { return failure(404, "NotFound") };
                let set = &mut self.sets[found];
                match (method, rest) {
                    ("PATCH", ["scale"]) => {
                        set.replicas = body["spec"]["replicas"].as_u64().unwrap() as usize;
                        self.writes.push(format!("scale {name} {}", set.replicas));
                        (200, scale(set.replicas, None))
                    }
                    ("PATCH", []) => {
                        assert!(
                            body["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"]
                                .is_string()
                        );
                        set.generation += 1;
                        self.writes.push(format!("restart {name}"));
                        (200, workload(set))
                    }
                    _ => (200, workload(set)),
                }
            }
            (method, ["apis", "tidemark.dev", "v1alpha1", "namespaces", "quay", "boards", "harbor", "scale"]) => {
                if method == "PATCH" {
                    self.board = body["spec"]["replicas"].as_u64().unwrap() as usize;
                    self.writes.push(format!("scale board {}", self.board));
                }
                (200, scale(self.board, Some("app=dashboard")))
            }
            _ => panic!("nobody answers {method} {path}"),
        }
    }

    /// Pods by namespace, and by the one label or field that the query asks for.
    fn pods_like(&self, namespace: Option<&str>, query: &str) -> Vec<Value> {
        let wanted = |key| query.split('&').find_map(|pair| pair.strip_prefix(key));
        let (set, name, node) = (
            wanted("labelSelector=app="),
            wanted("fieldSelector=metadata.name="),
            wanted("fieldSelector=spec.nodeName="),
        );
        let pods = self.pods.iter().filter(|pod| {
            namespace.is_none_or(|namespace| pod.namespace == namespace)
                && set.is_none_or(|set| pod.set == set)
                && name.is_none_or(|name| pod.name == name)
                && node.is_none_or(|node| pod.node == node)
        });
        pods.map(pod).collect()
    }
}

fn node(node: &Node) -> Value {
    let labels =
        if node.name == "control-plane" { json!({"node-role.kubernetes.io/control-plane": ""}) } else { json!({}) };
    let ready = json!([{"type": "Ready", "status": "True"}]);
    json!({"metadata": {"name": node.name, "labels": labels}, "spec": {"unschedulable": node.cordoned}, "status": {"conditions": ready}})
}

fn pod(pod: &Pod) -> Value {
    let ready = if pod.ready_in == 0 && pod.phase == "Running" { "True" } else { "False" };
    let mut metadata = json!({"namespace": pod.namespace, "name": pod.name, "uid": format!("uid-{}", pod.uid)});
    if let Some(kind) = pod.owner {
        let uid = if kind == "StatefulSet" { pod.set.to_owned() } else { format!("{}-{}", pod.set, pod.generation) };
        metadata["ownerReferences"] =
            json!([{"apiVersion": "apps/v1", "kind": kind, "name": pod.set, "uid": uid, "controller": true}]);
    }
    if pod.mirror {
        metadata["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    }
    if pod.gone_in.is_some() {
        metadata["deletionTimestamp"] = json!("2026-11-21T10:00:00Z");
    }
    let status = json!({"phase": pod.phase, "conditions": [{"type": "Ready", "status": ready}]});
    json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": {"nodeName": pod.node}, "status": status})
}

fn workload(set: &Set) -> Value {
    let mut metadata = json!({"name": set.name, "namespace": set.namespace});
    if let Some(board) = set.owner {
        metadata["ownerReferences"] = json!([{"apiVersion": "tidemark.dev/v1alpha1", "kind": "Board", "name": board, "uid": "b", "controller": true}]);
    }
    let spec = json!({"replicas": set.replicas, "selector": {"matchLabels": {"app": set.name}}, "paused": set.paused});
    json!({"metadata": metadata, "spec": spec, "status": {}})
}

fn scale(replicas: usize, selector: Option<&str>) -> Value {
    let status = json!({"replicas": replicas, "selector": selector});
    json!({"kind": "Scale", "metadata": {}, "spec": {"replicas": replicas}, "status": status})
}
