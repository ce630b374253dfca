//! What users write.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{App, BoardStatus, Dashboard, Database, Feed, MetricGenerator, Tidemark};

/// A whole Tidemark: its app, its dashboards, its metric generators, its database and its way in.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "tidemark.dev",
    version = "v1alpha1",
    kind = "Board",
    plural = "boards",
    singular = "board",
    shortname = "board",
    category = "tidemark",
    namespaced,
    status = "BoardStatus",
    doc = "A whole Tidemark: its app, its dashboards, its metric generators, its database and its way in. One Board per namespace.",
    scale(
        spec_replicas_path = ".spec.dashboard.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        json_path = r#".status.conditions[?(@.type=="Available")].status"#,
        name = "Ready",
        type_ = "string",
        description = "Whether the Board serves users"
    ),
    printcolumn(json_path = ".status.url", name = "URL", type_ = "string", description = "Where users find it"),
    printcolumn(json_path = ".status.app", name = "App", type_ = "string", description = "Ready of wanted replicas"),
    printcolumn(
        json_path = ".status.dashboards",
        name = "Dashboards",
        type_ = "string",
        description = "Ready of wanted replicas"
    ),
    printcolumn(
        json_path = ".status.connections",
        name = "Connections",
        type_ = "integer",
        description = "Open live connections, at most 30 s old"
    ),
    printcolumn(json_path = ".metadata.creationTimestamp", name = "Age", type_ = "date"),
    validation = Rule::new("self.metadata.name.size() <= 63")
        .message("the Board's name must be at most 63 characters long, because it becomes a label of its pods")
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase")]
pub struct BoardSpec {
    /// The DNS name under which users reach the Board. Leave it out to answer under any name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(
        validation = Rule::new(r"self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$') && !self.matches('^[0-9.]+$')")
            .message("host must be a DNS name in lower case, such as board.example.com; leave it out to answer under any name")
    )]
    pub host: Option<String>,
    /// How the Ingress is made.
    #[serde(default)]
    pub ingress: Ingress,
    /// The app: stores texts, lists them and serves the page.
    #[serde(default)]
    pub app: App,
    /// The dashboards: push live numbers to browsers. `kubectl scale board` sets their replicas.
    #[serde(default)]
    pub dashboard: Dashboard,
    /// The metric generators: make up figures of servers and store them. None are real: a pod sees no more than the node that it happens to be on.
    #[serde(default)]
    pub metric_generator: MetricGenerator,
    /// The command line `tidemark`, which brings the list of feeds into the database.
    #[serde(default)]
    pub tidemark: Tidemark,
    /// Tables of your own whose rows are counted live. A feed that is taken out of the list is removed; feeds that were added by hand stay.
    #[serde(default)]
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub feeds: Vec<Feed>,
    /// The database: a Postgres of the Board's own, or one that is already there.
    #[serde(default)]
    #[x_kube(
        validation = Rule::new("has(self.postgres) != has(self.external)")
            .message("database must be exactly one of postgres and external")
    )]
    pub database: Database,
    /// When nodes fetch images: Always, IfNotPresent or Never.
    #[serde(default)]
    pub image_pull_policy: PullPolicy,
    /// Secrets of this namespace with which images are fetched.
    #[serde(default)]
    pub image_pull_secrets: Vec<PullSecret>,
    /// Logs and traces of the services.
    #[serde(default)]
    pub telemetry: Telemetry,
}

/// How the Ingress is made.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Ingress {
    /// The IngressClass, that is, which ingress controller serves the Board.
    pub class_name: String,
    /// Annotations for the ingress controller. With Traefik, a retry middleware hides the moment in which a pod goes.
    pub annotations: BTreeMap<String, String>,
    /// A Secret with the certificate for the host. Without it the ingress controller uses its default certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_secret_name: Option<String>,
    /// The port by which users reach the ingress controller; only used to write status.url.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

impl Default for Ingress {
    fn default() -> Self {
        Self { class_name: "traefik".into(), annotations: BTreeMap::new(), tls_secret_name: None, port: 443 }
    }
}

/// When nodes fetch images.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Each time a pod starts.
    Always,
    /// When the node does not have the image.
    #[default]
    IfNotPresent,
    /// Never: the node must have the image.
    Never,
}

impl PullPolicy {
    /// As Kubernetes spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// A Secret with which images are fetched.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct PullSecret {
    /// Its name.
    pub name: String,
}

/// Logs and traces of the services.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Telemetry {
    /// What is logged: `error`, `warn`, `info`, `debug` or `trace`, also by module, such as `info,store=debug`.
    pub log_filter: String,
    /// Where traces go (OTLP over HTTP), such as `http://collector:4318`. Without it there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^https?://"))]
    pub otlp_endpoint: Option<String>,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { log_filter: "info".into(), otlp_endpoint: None }
    }
}
