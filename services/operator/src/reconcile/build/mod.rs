//! The third step: every child as it should be. Pure; one file per kind.

mod budget;
mod config_map;
mod deployment;
mod feed_runs;
mod ingress;
mod job;
mod meta;
mod network_policy;
mod pod;
mod secret;
mod service;
mod service_account;
mod stateful_set;
#[cfg(test)]
mod tests;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

pub use job::{completed, failed, of as job_of};

use super::{
    dereference::Seen,
    resources::{Prepared, Resources, named},
    validate::{Database, Valid},
};
use crate::{
    hash::hash,
    names::{APP, DASHBOARD, FEEDS, METRIC_GENERATOR, MIGRATE, POSTGRES},
    problem::Problem,
};

/// What `apply` is to make true.
#[derive(Debug)]
pub struct Plan {
    /// The children.
    pub resources: Resources<Prepared>,
    /// The database's Secret, if it is to be made.
    pub secret: Option<Secret>,
    /// What is wrong without keeping the rest from running.
    pub problems: Vec<Problem>,
}

/// Builds it all. `password` is what a new Secret would hold.
pub fn build(valid: &Valid, seen: &Seen, password: &str) -> Plan {
    let mut problems = valid.problems.clone();
    let config = config_map::config_map(valid);
    let config_hash = hash(&config.data);
    let migrate = job::migrate(valid);
    let migrated = named(&seen.children.jobs, &migrate.name_any()).is_some_and(completed);
    let feeds = feed_runs::wanted(valid, seen, migrated);

    let wanted = [
        deployment::app(valid, &config_hash),
        deployment::dashboard(valid, &config_hash),
        deployment::metric_generator(valid, &config_hash),
    ];
    let deployments = wanted.into_iter().filter_map(|wanted| {
        if migrated { Some(wanted) } else { deployment::as_today(wanted, &seen.children.deployments) }
    });
    let (mut services, mut accounts) = (service::http(valid), vec![APP, DASHBOARD, METRIC_GENERATOR, MIGRATE, FEEDS]);
    let mut stateful_sets = Vec::new();
    if let Database::Managed(postgres) = &valid.database {
        services.push(service::postgres(valid));
        accounts.push(POSTGRES);
        let (stateful_set, refused) = stateful_set::stateful_set(valid, postgres, seen);
        stateful_sets.push(stateful_set);
        problems.extend(refused);
    }
    let resources = Resources {
        service_accounts: accounts.into_iter().map(|name| service_account::service_account(valid, name)).collect(),
        config_maps: vec![config],
        services,
        budgets: budget::budgets(valid),
        network_policies: vec![network_policy::metric_generator(valid)],
        stateful_sets,
        jobs: [migrate].into_iter().chain(feeds).collect(),
        deployments: deployments.collect(),
        ingresses: vec![ingress::ingress(valid)],
        ..Resources::default()
    };
    Plan { resources, secret: valid.make_secret.then(|| secret::secret(valid, password)), problems }
}
