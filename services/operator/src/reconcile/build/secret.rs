//! The database's Secret: made once, never changed, owned by nobody. It outlives the Board as the volume does, because it opens that volume.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;

use super::meta;
use crate::{
    names::{POSTGRES, PRODUCT, URL_KEY},
    reconcile::validate::Valid,
};

/// User, password and database, and the URL made of them.
pub fn secret(valid: &Valid, password: &str) -> Secret {
    let url = format!("postgres://{PRODUCT}:{password}@{POSTGRES}:5432/{PRODUCT}");
    let data = [("username", PRODUCT), ("password", password), ("database", PRODUCT), (URL_KEY, &url)];
    let data: BTreeMap<_, _> = data.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    Secret { metadata: meta::unowned(valid, POSTGRES, POSTGRES), string_data: Some(data), ..Secret::default() }
}
