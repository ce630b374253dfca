//! The fourth step: makes the cluster hold what was built, and removes what is no longer wanted. Holds a client.
//!
//! Children are applied on the server side, by one field manager, with force: what the operator sets it owns, whoever wrote it before. An object that
//! holds everything already is left out: it carries a hash of what was applied last in an annotation, so a field that is no longer wanted is noticed
//! by the hash, and a hand edit by comparing. Where the comparison is too strict, an apply without a change is sent, which writes nothing.

use std::marker::PhantomData;

use k8s_openapi::{NamespaceResourceScope, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    build::Plan,
    resources::{Applied, Live, Resources, named},
    validate::Valid,
};
use crate::{
    contains::contains,
    hash::hash,
    names::{APPLIED, OPERATOR},
    problem::{Problem, Reason},
};

/// The API server refused a change, in a way that may pass.
#[derive(Debug, thiserror::Error)]
#[error("failed to apply {kind} {name}")]
pub struct Error {
    kind: String,
    name: String,
    source: kube::Error,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// The children, as the cluster has them now.
    pub resources: Resources<Applied>,
    /// What could not be applied.
    pub problems: Vec<Problem>,
    /// The first refusal that may pass by itself, to be tried again soon.
    pub failed: Option<Error>,
}

/// A kind of child.
trait Child:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Serialize + DeserializeOwned + std::fmt::Debug
{
}
impl<K> Child for K where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Serialize
        + DeserializeOwned
        + std::fmt::Debug
{
}

/// Applies the plan. One child that is refused does not keep the others from being applied.
pub async fn apply(client: &Client, valid: &Valid, plan: Plan, live: &Resources<Live>) -> Outcome {
    let Plan { resources, secret, problems } = plan;
    let mut run = Run { client, namespace: &valid.namespace, owner: &valid.owner, problems, failed: None };
    // A volume that is made before its password is kept could never be opened again: without the Secret nothing else is made.
    if let Some(secret) = secret
        && !run.create(&secret).await
    {
        return Outcome { resources: live.clone().untouched(), problems: run.problems, failed: run.failed };
    }
    let Resources {
        service_accounts,
        config_maps,
        services,
        budgets,
        network_policies,
        stateful_sets,
        jobs,
        deployments,
        ingresses,
        step: PhantomData,
    } = resources;
    // What pods need comes before them; the migration before those who need the schema; the way in before what it leads to is no harm.
    let resources = Resources {
        service_accounts: run.all(service_accounts, &live.service_accounts).await,
        config_maps: run.all(config_maps, &live.config_maps).await,
        services: run.all(services, &live.services).await,
        budgets: run.all(budgets, &live.budgets).await,
        network_policies: run.all(network_policies, &live.network_policies).await,
        stateful_sets: run.all(stateful_sets, &live.stateful_sets).await,
        jobs: run.all(jobs, &live.jobs).await,
        ingresses: run.all(ingresses, &live.ingresses).await,
        deployments: run.all(deployments, &live.deployments).await,
        step: PhantomData,
    };
    Outcome { resources, problems: run.problems, failed: run.failed }
}

impl Resources<Live> {
    /// Nothing is applied: what is there stays as it is.
    pub fn untouched(self) -> Resources<Applied> {
        let Self {
            service_accounts,
            config_maps,
            services,
            budgets,
            network_policies,
            stateful_sets,
            jobs,
            deployments,
            ingresses,
            step: PhantomData,
        } = self;
        Resources {
            service_accounts,
            config_maps,
            services,
            budgets,
            network_policies,
            stateful_sets,
            jobs,
            deployments,
            ingresses,
            step: PhantomData,
        }
    }
}

/// One pass over the children.
struct Run<'a> {
    client: &'a Client,
    namespace: &'a str,
    owner: &'a OwnerReference,
    problems: Vec<Problem>,
    failed: Option<Error>,
}

impl Run<'_> {
    /// Makes the Secret if there is none; never touches one that is there. True if there is one now.
    async fn create(&mut self, secret: &Secret) -> bool {
        let api = Api::<Secret>::namespaced(self.client.clone(), self.namespace);
        match api
            .create(&PostParams { field_manager: Some(OPERATOR.to_owned()), ..PostParams::default() }, secret)
            .await
        {
            Ok(_) => true,
            Err(kube::Error::Api(status)) if status.is_already_exists() => true,
            Err(error) => {
                self.refused::<Secret>(&secret.name_any(), error);
                false
            }
        }
    }

    /// Applies all children of one kind, then removes those that are not wanted any more. A migration of before is such an orphan, a budget of a
    /// service that was scaled to one, the database of a Board that has another one now (its volume stays).
    async fn all<K: Child>(&mut self, wanted: Vec<K>, live: &[K]) -> Vec<K> {
        let api = Api::<K>::namespaced(self.client.clone(), self.namespace);
        let owner = self.owner;
        for orphan in live.iter().filter(|live| named(&wanted, &live.name_any()).is_none() && owns(owner, *live)) {
            let params = DeleteParams {
                preconditions: Some(Preconditions { uid: orphan.uid(), resource_version: None }),
                ..DeleteParams::background()
            };
            match api.delete(&orphan.name_any(), &params).await {
                Ok(_) => tracing::info!(kind = %K::kind(&()), name = orphan.name_any(), "removed, not wanted any more"),
                Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
                Err(error) => self.refused::<K>(&orphan.name_any(), error),
            }
        }
        let mut applied = Vec::new();
        for wanted in wanted {
            let name = wanted.name_any();
            let live = named(live, &name);
            match one(&api, &name, wanted, live).await {
                Ok(now) => applied.push(now),
                Err(error) => {
                    self.refused::<K>(&name, error);
                    applied.extend(live.cloned());
                }
            }
        }
        applied
    }

    fn refused<K: Child>(&mut self, name: &str, error: kube::Error) {
        let kind = K::kind(&()).into_owned();
        let why = match &error {
            kube::Error::Api(status) => status.message.clone(),
            // The address of the API server or the state of a connection is nothing for users; the log has it.
            _ => "the API server did not answer".to_owned(),
        };
        if let kube::Error::Api(status) = &error
            && status.is_invalid()
        {
            // The same request would be refused again, so there is no hurry.
            let immutable = ["immutable", "updates to"].iter().any(|sign| why.contains(sign));
            let reason = if immutable { Reason::ImmutableField } else { Reason::ApplyFailed };
            self.problems.push(Problem::new(reason, format!("{kind} {name} was left as it is: {why}")));
            return;
        }
        self.problems.push(Problem::new(Reason::ApplyFailed, format!("{kind} {name} could not be applied: {why}")));
        self.failed.get_or_insert(Error { kind, name: name.to_owned(), source: error });
    }
}

/// Labels can be copied; only what this Board owns, and what is not going already, is its orphan.
fn owns(owner: &OwnerReference, object: &impl Resource) -> bool {
    let meta = object.meta();
    let owned = meta.owner_references.iter().flatten().any(|other| other.uid == owner.uid);
    owned && meta.deletion_timestamp.is_none()
}

async fn one<K: Child>(api: &Api<K>, name: &str, mut wanted: K, live: Option<&K>) -> Result<K, kube::Error> {
    let applied = hash(&wanted);
    wanted.annotations_mut().insert(APPLIED.to_owned(), applied);
    if let Some(live) = live
        && contains(&json(live)?, &json(&wanted)?)
    {
        return Ok(live.clone());
    }
    let now = api.patch(name, &PatchParams::apply(OPERATOR).force(), &Patch::Apply(&wanted)).await?;
    tracing::info!(kind = %K::kind(&()), name, "applied");
    Ok(now)
}

fn json(object: &impl Serialize) -> Result<serde_json::Value, kube::Error> {
    serde_json::to_value(object).map_err(kube::Error::SerdeError)
}
