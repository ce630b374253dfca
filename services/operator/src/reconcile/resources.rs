//! The children of a Board, and how far they have come: a type for each step, so that no step can take the wrong ones.

use std::marker::PhantomData;

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    batch::v1::Job,
    core::v1::{ConfigMap, Service, ServiceAccount},
    networking::v1::{Ingress, NetworkPolicy},
    policy::v1::PodDisruptionBudget,
};

/// As `dereference` found them in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live;

/// As `build` wants them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prepared;

/// As the cluster has them after `apply`. Status is computed from these only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied;

/// Every child but the database's Secret, which follows rules of its own. Who handles them takes them apart without `..`, so that a new kind cannot
/// be forgotten.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the fields are named after their kinds")]
pub struct Resources<Step> {
    pub service_accounts: Vec<ServiceAccount>,
    pub config_maps: Vec<ConfigMap>,
    pub services: Vec<Service>,
    pub budgets: Vec<PodDisruptionBudget>,
    pub network_policies: Vec<NetworkPolicy>,
    pub stateful_sets: Vec<StatefulSet>,
    pub jobs: Vec<Job>,
    pub deployments: Vec<Deployment>,
    pub ingresses: Vec<Ingress>,
    pub step: PhantomData<Step>,
}

impl<Step> Default for Resources<Step> {
    fn default() -> Self {
        Self {
            service_accounts: Vec::new(),
            config_maps: Vec::new(),
            services: Vec::new(),
            budgets: Vec::new(),
            network_policies: Vec::new(),
            stateful_sets: Vec::new(),
            jobs: Vec::new(),
            deployments: Vec::new(),
            ingresses: Vec::new(),
            step: PhantomData,
        }
    }
}

/// The object of that name.
pub fn named<'a, K: kube::Resource>(objects: &'a [K], name: &str) -> Option<&'a K> {
    objects.iter().find(|object| object.meta().name.as_deref() == Some(name))
}
