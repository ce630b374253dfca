//! The Ingress: live connections go to the dashboards, everything else to the app.

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend, IngressSpec,
    IngressTLS, ServiceBackendPort,
};

use super::meta;
use crate::{
    names::{APP, BOARD, DASHBOARD},
    reconcile::validate::Valid,
};

/// The way in.
pub fn ingress(valid: &Valid) -> Ingress {
    let (spec, host) = (&valid.spec.ingress, &valid.spec.host);
    // All of one type: Traefik takes the rule with the longest text first, and there `Path(`/ws`)` of an exact one is shorter than `PathPrefix(`/`)`.
    let paths = vec![path("/ws", DASHBOARD), path("/events", DASHBOARD), path("/", APP)];
    let mut metadata = meta::owned(valid, BOARD, BOARD);
    metadata.annotations = Some(spec.annotations.clone()).filter(|annotations| !annotations.is_empty());
    Ingress {
        metadata,
        spec: Some(IngressSpec {
            ingress_class_name: Some(spec.class_name.clone()),
            rules: Some(vec![IngressRule { host: host.clone(), http: Some(HTTPIngressRuleValue { paths }) }]),
            tls: spec.tls_secret_name.clone().map(|secret| {
                vec![IngressTLS { hosts: host.clone().map(|host| vec![host]), secret_name: Some(secret) }]
            }),
            ..IngressSpec::default()
        }),
        ..Ingress::default()
    }
}

fn path(path: &str, service: &str) -> HTTPIngressPath {
    let port = ServiceBackendPort { number: Some(80), ..ServiceBackendPort::default() };
    let service = IngressServiceBackend { name: service.to_owned(), port: Some(port) };
    HTTPIngressPath {
        path: Some(path.to_owned()),
        path_type: "Prefix".to_owned(),
        backend: IngressBackend { service: Some(service), ..IngressBackend::default() },
    }
}
