//! NetworkPolicies: the metric generator is for the dashboards of its Board alone. App and dashboard need none: the ingress, which may run anywhere, leads
//! to all that they serve.

use k8s_openapi::{
    api::networking::v1::{
        NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{meta, pod};
use crate::{
    names::{DASHBOARD, METRIC_GENERATOR, label_selector},
    reconcile::validate::Valid,
};

/// The policy of the metric generator. It says nothing of what its pods may reach.
pub fn metric_generator(valid: &Valid) -> NetworkPolicy {
    let dashboards = NetworkPolicyPeer {
        pod_selector: Some(label_selector(DASHBOARD, &valid.name)),
        ..NetworkPolicyPeer::default()
    };
    let admitted = |port, from| NetworkPolicyIngressRule { from, ports: Some(vec![tcp(port)]) };
    NetworkPolicy {
        metadata: meta::owned(valid, METRIC_GENERATOR, METRIC_GENERATOR),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(label_selector(METRIC_GENERATOR, &valid.name)),
            policy_types: Some(vec!["Ingress".into()]),
            ingress: Some(vec![
                admitted(pod::HTTP_PORT, Some(vec![dashboards])),
                // Prometheus may be anywhere, as for the other services.
                admitted(pod::ADMIN_PORT, None),
            ]),
            ..NetworkPolicySpec::default()
        }),
    }
}

fn tcp(port: i32) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(port)),
        protocol: Some("TCP".into()),
        ..NetworkPolicyPort::default()
    }
}
