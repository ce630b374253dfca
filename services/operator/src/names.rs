//! Names and labels of what belongs to a Board. A service's name is its folder, image, Deployment, ServiceAccount and label.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Who applies: the operator's field manager, and the value of [`MANAGED_BY`].
pub const OPERATOR: &str = "tidemark-operator";
/// The product, as the value of [`PART_OF`].
pub const PRODUCT: &str = "tidemark";

/// The app, in the labels and as a name.
pub const APP: &str = "app";
/// The dashboard.
pub const DASHBOARD: &str = "dashboard";
/// The metric generator.
pub const METRIC_GENERATOR: &str = "metric-generator";
/// The database: its StatefulSet, Service, ServiceAccount and Secret.
pub const POSTGRES: &str = "postgres";
/// The migration: its ServiceAccount, and how its Jobs' names begin.
pub const MIGRATE: &str = "migrate";
/// What brings the list of feeds into the database: its ServiceAccount, and how its Jobs' names begin.
pub const FEEDS: &str = "feeds";
/// What belongs to no service: the label of ConfigMap and Ingress, and the Ingress's name.
pub const BOARD: &str = "board";
/// The ConfigMap.
pub const CONFIG: &str = "config";
/// The claim of the database's volume: template `data`, pod `postgres-0`.
pub const CLAIM: &str = "data-postgres-0";
/// The claim's template.
pub const CLAIM_TEMPLATE: &str = "data";
/// The key of a database Secret that holds the whole URL.
pub const URL_KEY: &str = "url";

/// Label: which service.
pub const NAME: &str = "app.kubernetes.io/name";
/// Label: which Board.
pub const INSTANCE: &str = "app.kubernetes.io/instance";
/// Label: the product.
pub const PART_OF: &str = "app.kubernetes.io/part-of";
/// Label: who made it.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Label: which Job a pod belongs to; Kubernetes sets it.
pub const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// Label: the operator's version; never on pods and never in a selector, since a change there would roll everything.
pub const VERSION: &str = "app.kubernetes.io/version";
/// Annotation on children: a hash of what was applied. See `apply`.
pub const APPLIED: &str = "tidemark.dev/applied";
/// Annotation on the pods of [`FEEDS`]: the list, as JSON, which they read as a file.
pub const FEED_LIST: &str = "tidemark.dev/feeds";
/// Annotation on pods: a hash of the ConfigMap, so that a change of it rolls them.
pub const CONFIG_HASH: &str = "tidemark.dev/config";

/// What every child and pod of `board` carries.
pub fn labels(service: &str, board: &str) -> BTreeMap<String, String> {
    let mut labels = selector(service, board);
    labels.extend([(PART_OF, PRODUCT), (MANAGED_BY, OPERATOR)].map(|(key, value)| (key.to_owned(), value.to_owned())));
    labels
}

/// How the pods of a service are found.
pub fn selector(service: &str, board: &str) -> BTreeMap<String, String> {
    [(NAME, service), (INSTANCE, board)].map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// The same, as Deployments and budgets want it.
pub fn label_selector(service: &str, board: &str) -> LabelSelector {
    LabelSelector { match_labels: Some(selector(service, board)), ..LabelSelector::default() }
}

/// Everything that the operator made, in the words of a query.
pub fn managed() -> String {
    format!("{MANAGED_BY}={OPERATOR}")
}
