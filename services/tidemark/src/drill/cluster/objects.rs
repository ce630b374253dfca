//! Kubernetes objects, as far as faults look at them: whole ones are a megabyte of code.

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment, StatefulSet},
        core::v1 as core,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference},
};
use kube::core::{ApiResource, Object};
use serde::Deserialize;

use super::Kind;

/// A Deployment, StatefulSet or DaemonSet.
pub type Workload = Object<WorkloadSpec, WorkloadStatus>;
/// A pod.
pub type Pod = Object<PodSpec, PodStatus>;
/// A node.
pub type Node = Object<NodeSpec, NodeStatus>;

/// Label of nodes that run the cluster itself.
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";
/// Annotation of pods that a node makes from a file; they cannot be evicted.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// What is wanted.
#[derive(Debug, Clone, Deserialize)]
pub struct WorkloadSpec {
    /// So many pods; 1 if it is not said.
    pub replicas: Option<i32>,
    /// These pods.
    pub selector: LabelSelector,
    /// Whether a new template is kept back.
    pub paused: Option<bool>,
}

/// What is there.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadStatus {
    /// So many pods does a DaemonSet want.
    pub desired_number_scheduled: Option<i32>,
}

/// Where a pod is.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    /// On which node, once it has one.
    pub node_name: Option<String>,
}

/// How a pod is.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct PodStatus {
    /// From `Pending` to `Succeeded` or `Failed`.
    pub phase: Option<String>,
    /// `Ready` and others.
    pub conditions: Option<Vec<Condition>>,
}

/// Whether a node takes pods.
#[derive(Debug, Clone, Deserialize)]
pub struct NodeSpec {
    /// It takes none.
    pub unschedulable: Option<bool>,
}

/// How a node is.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct NodeStatus {
    /// `Ready` and others.
    pub conditions: Option<Vec<Condition>>,
}

/// A condition of a pod or node.
#[derive(Debug, Clone, Deserialize)]
pub struct Condition {
    /// Of what.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
}

/// Where objects of a kind are in the API.
pub fn resource(kind: Kind) -> ApiResource {
    match kind {
        Kind::Deployment => ApiResource::erase::<Deployment>(&()),
        Kind::StatefulSet => ApiResource::erase::<StatefulSet>(&()),
        Kind::DaemonSet => ApiResource::erase::<DaemonSet>(&()),
        Kind::Pod => ApiResource::erase::<core::Pod>(&()),
    }
}

/// Where nodes are in the API.
pub fn nodes() -> ApiResource {
    ApiResource::erase::<core::Node>(&())
}

/// How many pods it wants.
pub fn wanted(workload: &Workload) -> i32 {
    let scheduled = workload.status.as_ref().and_then(|status| status.desired_number_scheduled);
    scheduled.or(workload.spec.replicas).unwrap_or(1)
}

/// Tells pods of the same name apart.
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// The node that it is on.
pub fn node(pod: &Pod) -> &str {
    pod.spec.node_name.as_deref().unwrap_or_default()
}

/// Whether it serves: ready, and not told to end.
pub fn serves(pod: &Pod) -> bool {
    let ready = is_true(pod.status.as_ref().and_then(|status| status.conditions.as_ref()), "Ready");
    ready && pod.metadata.deletion_timestamp.is_none()
}

/// Whether it has ended for good. Such pods may be left lying about for days.
pub fn finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Who makes it again.
pub fn controller(pod: &Pod) -> Option<&OwnerReference> {
    pod.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// Whether its node itself made it.
pub fn is_mirror(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(MIRROR))
}

/// Whether the node is for users' pods.
pub fn is_worker(node: &Node) -> bool {
    !node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(CONTROL_PLANE))
}

/// Whether it takes new pods.
pub fn takes_pods(node: &Node) -> bool {
    let ready = is_true(node.status.as_ref().and_then(|status| status.conditions.as_ref()), "Ready");
    ready && node.spec.unschedulable != Some(true)
}

fn is_true(conditions: Option<&Vec<Condition>>, kind: &str) -> bool {
    conditions.into_iter().flatten().any(|condition| condition.kind == kind && condition.status == "True")
}
