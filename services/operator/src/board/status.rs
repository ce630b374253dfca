//! What the operator answers.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the Board is.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct BoardStatus {
    /// `Available`: users are served. `Progressing`: a change is under way. `Degraded`: something is wrong; the message says what and where. `FeedsApplied`: the database has the list of feeds, and each of them is ok.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where users find the Board.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Ready of wanted replicas of the app, such as 2/2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// Ready of wanted replicas of the dashboard, such as 2/2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dashboards: Option<String>,
    /// Ready of wanted replicas of the metric generator, such as 2/2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric_generators: Option<String>,
    /// How many dashboards there are, ready or not (for `kubectl scale` and autoscalers).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// How the dashboards' pods are selected (for autoscalers).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Open live connections of all dashboards, at most 30 s old.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<i64>,
}
