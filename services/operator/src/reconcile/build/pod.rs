//! What the pods of all services have in common: hardening, environment, resources.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Capabilities, ConfigMapEnvSource, Container, EnvFromSource, EnvVar, EnvVarSource, HTTPGetAction,
        LocalObjectReference, ObjectFieldSelector, PodSecurityContext, PodSpec, Probe, ResourceRequirements,
        SeccompProfile, SecretKeySelector, SecurityContext,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};

use crate::{
    board::{Quantities, Resources},
    names::{CONFIG, URL_KEY},
    quantity,
    reconcile::validate::Valid,
};

/// The user of our own images.
pub const SERVICE_USER: i64 = 65532;
/// The port for users.
pub const HTTP_PORT: i32 = 8080;
/// The port for health and metrics.
pub const ADMIN_PORT: i32 = 9090;

/// What a container has unless the Board says otherwise. No limit of CPU: it would only add latency to a service that is idle most of the time.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// CPU that a node must have free.
    pub cpu: &'static str,
    /// Memory that a node must have free.
    pub memory: &'static str,
    /// Memory that the container may use at most.
    pub memory_limit: &'static str,
}

/// A pod of our own images, without what is special to one.
pub fn service(valid: &Valid, account: &str, container: Container, grace: i64) -> PodSpec {
    PodSpec {
        containers: vec![Container { security_context: Some(locked()), ..container }],
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(SERVICE_USER),
            run_as_group: Some(SERVICE_USER),
            seccomp_profile: Some(runtime_default()),
            ..PodSecurityContext::default()
        }),
        termination_grace_period_seconds: Some(grace),
        ..base(valid, account)
    }
}

/// What even the pod of Postgres shares.
pub fn base(valid: &Valid, account: &str) -> PodSpec {
    let secrets = &valid.spec.image_pull_secrets;
    let secrets = secrets.iter().map(|secret| LocalObjectReference { name: secret.name.clone() }).collect::<Vec<_>>();
    PodSpec {
        service_account_name: Some(account.to_owned()),
        automount_service_account_token: Some(false),
        // Variables about every Service of the namespace would only get in the way of ours.
        enable_service_links: Some(false),
        image_pull_secrets: Some(secrets).filter(|secrets| !secrets.is_empty()),
        ..PodSpec::default()
    }
}

/// Nothing that a container does not need.
pub fn locked() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), ..Capabilities::default() }),
        read_only_root_filesystem: Some(true),
        ..SecurityContext::default()
    }
}

/// The container runtime's own filter of system calls.
pub fn runtime_default() -> SeccompProfile {
    SeccompProfile { type_: "RuntimeDefault".into(), ..SeccompProfile::default() }
}

/// What every process of ours is told.
pub fn environment(valid: &Valid) -> Vec<EnvVar> {
    vec![
        env("HOST", "0.0.0.0"),
        env("PORT", &HTTP_PORT.to_string()),
        env("ADMIN_PORT", &ADMIN_PORT.to_string()),
        env("LOG_FORMAT", "json"),
        env_of(
            "REPLICA_NAME",
            EnvVarSource {
                field_ref: Some(ObjectFieldSelector {
                    api_version: Some("v1".into()),
                    field_path: "metadata.name".into(),
                }),
                ..EnvVarSource::default()
            },
        ),
        env_secret("DATABASE_URL", valid.database.secret(), URL_KEY),
    ]
}

/// A plain variable.
pub fn env(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None }
}

/// A variable out of a Secret.
pub fn env_secret(name: &str, secret: &str, key: &str) -> EnvVar {
    let key = SecretKeySelector { name: secret.to_owned(), key: key.to_owned(), optional: None };
    env_of(name, EnvVarSource { secret_key_ref: Some(key), ..EnvVarSource::default() })
}

fn env_of(name: &str, source: EnvVarSource) -> EnvVar {
    EnvVar { name: name.to_owned(), value: None, value_from: Some(source) }
}

/// The variables of the ConfigMap.
pub fn env_from_config() -> Vec<EnvFromSource> {
    let config = ConfigMapEnvSource { name: CONFIG.to_owned(), optional: None };
    vec![EnvFromSource { config_map_ref: Some(config), ..EnvFromSource::default() }]
}

/// A probe of the admin port.
pub fn probe(path: &str, period: i32, failures: i32, timeout: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("admin".into()),
            scheme: Some("HTTP".into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        failure_threshold: Some(failures),
        timeout_seconds: Some(timeout),
        ..Probe::default()
    }
}

/// The defaults, and over them what the Board says.
pub fn resources(wanted: Option<&Resources>, defaults: Defaults) -> ResourceRequirements {
    let amounts = |defaults: &[(&str, &str)], wanted: Option<&Quantities>| {
        let mut amounts: BTreeMap<_, _> =
            defaults.iter().map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned()))).collect();
        let wanted = wanted.into_iter().flatten();
        amounts.extend(wanted.map(|(name, amount)| (name.clone(), Quantity(quantity::text(amount)))));
        Some(amounts)
    };
    let requests = [("cpu", defaults.cpu), ("memory", defaults.memory)];
    ResourceRequirements {
        requests: amounts(&requests, wanted.map(|resources| &resources.requests)),
        limits: amounts(&[("memory", defaults.memory_limit)], wanted.map(|resources| &resources.limits)),
        claims: None,
    }
}
