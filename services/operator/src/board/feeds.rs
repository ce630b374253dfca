//! What users write about tables of their own.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A table of the user's own whose rows are counted live.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Feed {
    /// The feed's name, as pages ask for it: `<tide-mark feed="orders">`. At most 48 characters, because the names of its triggers are longer.
    #[schemars(length(max = 48))]
    #[x_kube(
        validation = Rule::new("self.matches('^[a-z][a-z0-9_-]*$')")
            .message("a feed's name must begin with a letter and have only a-z 0-9 _ -"),
        validation = Rule::new("!(self in ['texts', 'visitors', 'servers'])")
            .message("a feed's name must not be texts, visitors or servers: those are there already")
    )]
    pub name: String,
    /// The table with its schema, such as `public.orders`.
    #[schemars(length(max = 131))]
    #[x_kube(
        validation = Rule::new(r#"self.matches('^([^".[:space:]]+|"[^"]+")[.]([^".[:space:]]+|"[^"]+")$')"#)
            .message("a feed's table must be named with its schema, such as public.orders")
    )]
    pub table: String,
    /// Counts only the rows for which this holds: SQL over the table's columns, such as `status = 'open'`.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "where")]
    #[schemars(length(min = 1, max = 1000))]
    pub filter: Option<String>,
    /// Default: `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow: Option<Follow>,
}

/// What the feed follows when tables are renamed: `name` (the default) means whichever table has this name, so that one that is rebuilt and renamed over the old one counts; `table` means the table that was counted first.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Follow {
    /// The name.
    Name,
    /// The table.
    Table,
}
