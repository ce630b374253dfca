//! What users write about the database.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Resources;

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
