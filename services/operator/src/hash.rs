//! Short, stable names for content.

use serde::Serialize;
use sha2::{Digest, Sha256};

/// Ten hexadecimal digits of the SHA-256 of `value` as JSON: short enough for a name, and no two templates of one Board will ever share it.
pub fn hash(value: &impl Serialize) -> String {
    // Maps of Kubernetes types are sorted, so equal objects are equal text. A type that cannot be JSON hashes like null: it cannot be applied either.
    let text = serde_json::to_string(value).unwrap_or_default();
    Sha256::digest(text.as_bytes()).iter().take(5).map(|byte| format!("{byte:02x}")).collect()
}
