//! Services: how the ingress finds app and dashboard, how a dashboard finds a metric generator, and how they all find Postgres.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::meta;
use crate::{
    names::{APP, DASHBOARD, METRIC_GENERATOR, POSTGRES, selector},
    reconcile::validate::Valid,
};

/// Of those that speak HTTP. Their admin ports are in none: metrics are read from the pods, one by one.
pub fn http(valid: &Valid) -> Vec<Service> {
    let spec = |name| ServiceSpec { type_: Some("ClusterIP".into()), ..spec(valid, name, port("http", 80, "http")) };
    [APP, DASHBOARD, METRIC_GENERATOR].map(|name| of(valid, name, spec(name))).into()
}

/// Of Postgres: headless, so that a connection goes to the pod itself, and its DNS name is there for a StatefulSet.
pub fn postgres(valid: &Valid) -> Service {
    let spec = spec(valid, POSTGRES, port(POSTGRES, 5432, POSTGRES));
    of(valid, POSTGRES, ServiceSpec { cluster_ip: Some("None".into()), ..spec })
}

fn of(valid: &Valid, name: &str, spec: ServiceSpec) -> Service {
    Service { metadata: meta::owned(valid, name, name), spec: Some(spec), ..Service::default() }
}

fn spec(valid: &Valid, name: &str, port: ServicePort) -> ServiceSpec {
    let selector: BTreeMap<_, _> = selector(name, &valid.name);
    ServiceSpec { selector: Some(selector), ports: Some(vec![port]), ..ServiceSpec::default() }
}

fn port(name: &str, port: i32, target: &str) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port,
        protocol: Some("TCP".into()),
        target_port: Some(IntOrString::String(target.to_owned())),
        ..ServicePort::default()
    }
}
