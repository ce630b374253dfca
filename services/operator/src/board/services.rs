//! What users write about the services: images, replicas, and what is special to each.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

/// The metric generators: make up figures of servers and store them.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MetricGenerator {
    /// The image.
    #[serde(default = "MetricGenerator::default_image")]
    #[schemars(length(min = 1))]
    pub image: String,
    /// How many replicas run. All make the same figures, and each is stored once. With two or more, one may be lost without anybody noticing.
    #[serde(default = "default_replicas")]
    #[x_kube(
        validation = Rule::new("self >= 1 && self <= 100").message("metricGenerator.replicas must be between 1 and 100")
    )]
    pub replicas: i32,
    /// How many servers there are: `server-1` and so on.
    #[serde(default = "MetricGenerator::default_servers")]
    #[x_kube(
        validation = Rule::new("self >= 1 && self <= 1000").message("metricGenerator.serverCount must be between 1 and 1000")
    )]
    pub server_count: i32,
    /// How long figures are kept, from an hour to a week, such as `24h` or `7d`.
    #[serde(default = "MetricGenerator::default_retention")]
    #[schemars(length(max = 8))]
    #[x_kube(
        validation = Rule::new("self.matches('^(([1-9]|[1-9][0-9]|1[0-5][0-9]|16[0-8])h|[1-7]d)$')")
            .message("metricGenerator.retention must be a whole number of hours or days from 1h to 7d, such as 24h")
    )]
    pub retention: String,
    /// What each replica may use. Requests and limits that are left out have the operator's defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
}

impl Default for MetricGenerator {
    fn default() -> Self {
        Self {
            image: Self::default_image(),
            replicas: default_replicas(),
            server_count: Self::default_servers(),
            retention: Self::default_retention(),
            resources: None,
        }
    }
}

impl MetricGenerator {
    /// The operator's own version.
    fn default_image() -> String {
        concat!("metric-generator:", env!("CARGO_PKG_VERSION")).into()
    }

    /// As the generator's own default.
    fn default_servers() -> i32 {
        3
    }

    /// As the generator's own default.
    fn default_retention() -> String {
        "24h".into()
    }
}

/// The command line `tidemark`, which brings the list of feeds into the database.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Tidemark {
    /// The image.
    #[schemars(length(min = 1))]
    pub image: String,
}

impl Default for Tidemark {
    /// The operator's own version.
    fn default() -> Self {
        Self { image: concat!("tidemark:", env!("CARGO_PKG_VERSION")).into() }
    }
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
