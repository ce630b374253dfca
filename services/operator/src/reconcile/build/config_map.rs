//! The ConfigMap: what all services and the migration are told. A change rolls the services, by a hash on their pods.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;

use super::meta;
use crate::{
    names::{BOARD, CONFIG},
    reconcile::validate::Valid,
};

/// The variables, by name.
pub fn config_map(valid: &Valid) -> ConfigMap {
    let telemetry = &valid.spec.telemetry;
    let mut data = BTreeMap::from([("RUST_LOG".to_owned(), telemetry.log_filter.clone())]);
    data.extend(telemetry.otlp_endpoint.iter().map(|url| ("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), url.clone())));
    ConfigMap { metadata: meta::owned(valid, CONFIG, BOARD), data: Some(data), ..ConfigMap::default() }
}
