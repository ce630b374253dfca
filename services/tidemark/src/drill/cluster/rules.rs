//! What an account has to be allowed for a fault, and whether it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{Api, api::PostParams};

use super::{Beside, Cluster, ClusterFault, Error, Kind, Place, api::persist, objects::resource, scale::Scaler};

/// One verb on one resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// In which namespace; in the whole cluster if there is none.
    pub namespace: Option<String>,
    /// The API group.
    pub group: String,
    /// The plural, with the subresource behind a slash.
    pub resource: String,
    /// Only the object of this name.
    pub name: Option<String>,
    /// What is done to it.
    pub verb: &'static str,
}

/// A rule that an account lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The rule.
    pub rule: Rule,
    /// What it is for.
    pub faults: Vec<ClusterFault>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule: Rule { namespace, group, resource, name, verb }, faults } = self;
        write!(f, "{verb} {resource}")?;
        if !group.is_empty() {
            write!(f, ".{group}")?;
        }
        if let Some(name) = name {
            write!(f, " {name}")?;
        }
        match namespace {
            Some(namespace) => write!(f, " in namespace {namespace}")?,
            None => f.write_str(" in the cluster")?,
        }
        let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
        write!(f, " ({})", faults.join(", "))
    }
}

impl Cluster {
    /// Everything that these faults do, each with the faults that do it. What `scale` needs depends on who owns the target.
    pub(super) fn rules(
        &self,
        faults: &[ClusterFault],
        scaler: Option<&Scaler>,
    ) -> BTreeMap<Rule, BTreeSet<ClusterFault>> {
        let mut rules: BTreeMap<Rule, BTreeSet<ClusterFault>> = BTreeMap::new();
        for fault in faults {
            for rule in self.rules_of(*fault, scaler) {
                rules.entry(rule).or_default().insert(*fault);
            }
        }
        rules
    }

    fn rules_of(&self, fault: ClusterFault, scaler: Option<&Scaler>) -> Vec<Rule> {
        let target = &self.target;
        let beside = |beside: &Beside| beside.place().map(|place| self.taking(place)).unwrap_or_default();
        match fault {
            ClusterFault::PodDelete | ClusterFault::ForceDelete => self.taking(target),
            ClusterFault::IngressRestart => beside(&self.ingress),
            ClusterFault::DatabaseDelete => beside(&self.database),
            ClusterFault::Rollout => {
                let mut rules = self.looking(target);
                rules.push(self.on(target, "patch"));
                rules
            }
            ClusterFault::Scale => {
                let mut rules = self.looking(target);
                rules.extend(scaler.into_iter().flat_map(|scaler| ["get", "patch"].map(|verb| scaler.rule(verb))));
                rules
            }
            ClusterFault::Drain => {
                let places = [Some(target), self.ingress.place(), self.database.place()].into_iter().flatten();
                // Pods are seen everywhere anyway.
                let named = places.filter(|place| place.kind != Kind::Pod).map(|place| self.on(place, "get"));
                named.chain(DRAIN.map(everywhere)).collect()
            }
        }
    }

    /// To delete one of its pods.
    fn taking(&self, place: &Place) -> Vec<Rule> {
        let mut rules = self.looking(place);
        rules.push(self.on_pods(place, "delete"));
        rules
    }

    /// To see its pods.
    fn looking(&self, place: &Place) -> Vec<Rule> {
        let mut rules = vec![self.on_pods(place, "list")];
        // A pod is found by its name.
        if place.kind != Kind::Pod {
            rules.push(self.on(place, "get"));
        }
        rules
    }

    fn on(&self, place: &Place, verb: &'static str) -> Rule {
        let resource = resource(place.kind);
        Rule {
            namespace: Some(self.kube.namespace(place).to_owned()),
            group: resource.group,
            resource: resource.plural,
            name: Some(place.name.clone()),
            verb,
        }
    }

    fn on_pods(&self, place: &Place, verb: &'static str) -> Rule {
        let namespace = Some(self.kube.namespace(place).to_owned());
        Rule { namespace, group: String::new(), resource: "pods".to_owned(), name: None, verb }
    }

    /// Asks the API server for each rule.
    pub(super) async fn review(&self, rules: BTreeMap<Rule, BTreeSet<ClusterFault>>) -> Result<(), Error> {
        let reviews = Api::<SelfSubjectAccessReview>::all(self.kube.client.clone());
        let (params, mut missing) = (PostParams::default(), Vec::new());
        for (rule, faults) in rules {
            let review = review(&rule);
            let answer = persist(|| reviews.create(&params, &review))
                .await
                .map_err(|error| Error::request("ask what this account may do", error))?;
            if !answer.status.is_some_and(|status| status.allowed) {
                missing.push(Missing { rule, faults: faults.into_iter().collect() });
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(Error::Forbidden(missing)) }
    }
}

/// What only `drain` does, everywhere: nodes belong to no namespace, and a worker hosts pods of all of them.
const DRAIN: [(&str, &str); 4] = [("nodes", "list"), ("nodes", "patch"), ("pods", "list"), ("pods/eviction", "create")];

fn everywhere((resource, verb): (&str, &'static str)) -> Rule {
    Rule { namespace: None, group: String::new(), resource: resource.to_owned(), name: None, verb }
}

fn review(rule: &Rule) -> SelfSubjectAccessReview {
    let Rule { namespace, group, resource, name, verb } = rule.clone();
    let (resource, subresource) = match resource.split_once('/') {
        Some((resource, sub)) => (resource.to_owned(), Some(sub.to_owned())),
        None => (resource, None),
    };
    let attributes = ResourceAttributes {
        namespace,
        group: Some(group),
        resource: Some(resource),
        subresource,
        name,
        verb: Some(verb.to_owned()),
        ..ResourceAttributes::default()
    };
    SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() },
        ..SelfSubjectAccessReview::default()
    }
}
