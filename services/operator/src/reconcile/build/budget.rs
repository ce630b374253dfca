//! PodDisruptionBudgets: a drain takes one replica at a time. Only where there are two or more: a budget for one replica would stop every drain.

use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::meta;
use crate::{
    names::{APP, DASHBOARD, METRIC_GENERATOR, label_selector},
    reconcile::validate::Valid,
};

/// The budgets of those services that have something to spare.
pub fn budgets(valid: &Valid) -> Vec<PodDisruptionBudget> {
    let spec = &valid.spec;
    let services = [
        (APP, spec.app.replicas),
        (DASHBOARD, spec.dashboard.replicas),
        (METRIC_GENERATOR, spec.metric_generator.replicas),
    ];
    services.into_iter().filter(|(_, replicas)| *replicas > 1).map(|(name, _)| budget(valid, name)).collect()
}

fn budget(valid: &Valid, name: &str) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: meta::owned(valid, name, name),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(label_selector(name, &valid.name)),
            // A replica that is broken anyway must not keep a node from being drained.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".into()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}
