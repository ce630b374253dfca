//! What users write.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::BoardStatus;

/// A whole Tidemark: its app, its dashboards, its database and its way in.
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
    doc = "A whole Tidemark: its app, its dashboards, its database and its way in. One Board per namespace.",
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

/// The app: stores texts, lists them and serves the page.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct App {
    /// The image.
    #[serde(default = "App::default_image")]
    #[schemars(length(min = 1))]
    pub image: String,
    /// How many replicas run. With two or more, one may be lost without anybody noticing.
    #[serde(default = "default_replicas")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 100").message("app.replicas must be between 1 and 100"))]
    pub replicas: i32,
    /// What each replica may use. Requests and limits that are left out have the operator's defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
}

impl Default for App {
    fn default() -> Self {
        Self { image: Self::default_image(), replicas: default_replicas(), resources: None }
    }
}

impl App {
    /// The operator's own version.
    fn default_image() -> String {
        concat!("app:", env!("CARGO_PKG_VERSION")).into()
    }
}

/// One to lose, and one that goes on.
fn default_replicas() -> i32 {
    2
}

/// The dashboards: push live numbers to browsers.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Dashboard {
    /// The image.
    #[serde(default = "Dashboard::default_image")]
    #[schemars(length(min = 1))]
    pub image: String,
    /// How many replicas run. With two or more, one may be lost without anybody noticing.
    #[serde(default = "default_replicas")]
    #[x_kube(
        validation = Rule::new("self >= 1 && self <= 100").message("dashboard.replicas must be between 1 and 100")
    )]
    pub replicas: i32,
    /// Over how many seconds a replica that ends moves its clients to others.
    #[serde(default = "Dashboard::default_drain")]
    #[x_kube(
        validation = Rule::new("self >= 0 && self <= 300").message("dashboard.drainSeconds must be between 0 and 300")
    )]
    pub drain_seconds: i32,
    /// Pages of other sites that may connect, such as `https://wall.example.com`; `*` allows all.
    #[serde(default)]
    pub allowed_origins: Vec<String>,
    /// What each replica may use. Requests and limits that are left out have the operator's defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
}

impl Default for Dashboard {
    fn default() -> Self {
        Self {
            image: Self::default_image(),
            replicas: default_replicas(),
            drain_seconds: Self::default_drain(),
            allowed_origins: Vec::new(),
            resources: None,
        }
    }
}

impl Dashboard {
    /// The operator's own version.
    fn default_image() -> String {
        concat!("dashboard:", env!("CARGO_PKG_VERSION")).into()
    }

    /// As the dashboard's own default.
    fn default_drain() -> i32 {
        10
    }
}

/// The database: exactly one of the two.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Database {
    /// A Postgres of the Board's own. Its volume and its Secret outlive the Board.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<Postgres>,
    /// A database that is already there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
}

impl Default for Database {
    fn default() -> Self {
        Self { postgres: Some(Postgres::default()), external: None }
    }
}

/// A Postgres of the Board's own.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Postgres {
    /// The image: an official Postgres image based on Debian, version 15 or newer.
    #[schemars(length(min = 1))]
    pub image: String,
    /// The volume. It cannot be changed once the Board is there.
    pub storage: Storage,
    /// What Postgres may use. Requests and limits that are left out have the operator's defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
}

impl Default for Postgres {
    fn default() -> Self {
        Self { image: "postgres:18.4".into(), storage: Storage::default(), resources: None }
    }
}

/// The database's volume. A volume keeps its size and class: a change is answered by the condition Degraded, and nothing is touched.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Storage {
    /// How large it is, such as `1Gi`.
    #[serde(default)]
    pub size: StorageSize,
    /// Its StorageClass. Without it the cluster's default is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
}

/// A size with a unit, such as `1Gi`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(transparent)]
pub struct StorageSize(
    #[schemars(length(max = 24), regex(pattern = r"^[1-9][0-9]*([.][0-9]+)?(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"))] pub String,
);

impl Default for StorageSize {
    fn default() -> Self {
        Self("1Gi".into())
    }
}

/// A database that is already there.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct External {
    /// A Secret of this namespace whose key `url` holds `postgres://user:password@host:port/database`.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
}

/// What one container may use.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// What a node must have free, such as `cpu: 50m` and `memory: 64Mi`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: Quantities,
    /// What it may use at most.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: Quantities,
}

/// Amounts by the resource's name.
pub type Quantities = BTreeMap<String, Quantity>;

/// An amount: a number, or text with a unit, such as `50m` or `64Mi`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(transparent)]
pub struct Quantity(pub IntOrString);

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
