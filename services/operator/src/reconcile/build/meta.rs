//! What every child's metadata has in common.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::{
    names::{VERSION, labels},
    reconcile::validate::Valid,
};

/// Name, namespace, labels and owner of a child.
pub fn owned(valid: &Valid, name: &str, service: &str) -> ObjectMeta {
    ObjectMeta { owner_references: Some(vec![valid.owner.clone()]), ..unowned(valid, name, service) }
}

/// The same for what outlives the Board.
pub fn unowned(valid: &Valid, name: &str, service: &str) -> ObjectMeta {
    let mut labels = labels(service, &valid.name);
    labels.insert(VERSION.to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(valid.namespace.clone()),
        labels: Some(labels),
        ..ObjectMeta::default()
    }
}

/// Labels of a pod. No version: a new operator must not roll anything.
pub fn pod(valid: &Valid, service: &str) -> ObjectMeta {
    ObjectMeta { labels: Some(labels(service, &valid.name)), ..ObjectMeta::default() }
}
