//! A Board for the tests. Its names differ from those of the product, so that a swapped one shows.

use serde_json::{Value, json};

use crate::{
    board::Board,
    reconcile::{dereference::Seen, validate},
};

/// The Board `harbor` in the namespace `quay`, with this spec.
pub fn harbor(spec: Value) -> Board {
    let metadata = json!({
        "name": "harbor", "namespace": "quay", "uid": "uid-of-harbor", "generation": 3, "creationTimestamp": "2026-11-21T08:00:00Z"
    });
    let board = json!({"apiVersion": "tidemark.dev/v1alpha1", "kind": "Board", "metadata": metadata, "spec": spec});
    serde_json::from_value(board).unwrap()
}

/// The same after the second step.
pub fn valid(spec: Value, seen: &Seen) -> validate::Valid {
    validate::validate(&harbor(spec), seen).unwrap()
}

/// Owner references of every child of `harbor` but the Secret.
pub fn owners() -> Value {
    json!([{
        "apiVersion": "tidemark.dev/v1alpha1", "kind": "Board", "name": "harbor", "uid": "uid-of-harbor", "controller": true
    }])
}

/// Labels of the pods of one service of `harbor`.
pub fn pod_labels(service: &str) -> Value {
    json!({
        "app.kubernetes.io/name": service,
        "app.kubernetes.io/instance": "harbor",
        "app.kubernetes.io/part-of": "tidemark",
        "app.kubernetes.io/managed-by": "tidemark-operator"
    })
}

/// Metadata of a child of `harbor`.
pub fn metadata(name: &str, service: &str) -> Value {
    let mut labels = pod_labels(service);
    labels["app.kubernetes.io/version"] = json!(env!("CARGO_PKG_VERSION"));
    json!({"name": name, "namespace": "quay", "labels": labels, "ownerReferences": owners()})
}
