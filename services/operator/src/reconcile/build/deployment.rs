//! Deployments of app, dashboard and metric generator.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::{
            Container, ContainerPort, EnvVar, Lifecycle, LifecycleHandler, PodSpec, PodTemplateSpec, SleepAction,
            TopologySpreadConstraint,
        },
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{meta, pod};
use crate::{
    board::Resources,
    contains::contains,
    names::{APP, CONFIG_HASH, DASHBOARD, METRIC_GENERATOR, label_selector},
    reconcile::{resources::named, validate::Valid},
};

/// How long a pod that ends still serves, so that endpoints and the ingress learn of it: Traefik alone may take 2 s. It counts inside the grace
/// period.
const PRE_STOP: i64 = 5;
/// The app answers every request within 10 s, and stops its own tasks within 2 s after that.
const APP_FINISH: i64 = 10;
/// What is left for stopping the tasks of app and metric generator.
const MARGIN: i64 = 5;
/// A metric generator answers what it was asked, and stores what it has.
const GENERATOR_FINISH: i64 = 10;
/// The longest that a dashboard may need to move its clients no faster than one other takes them: its 20,000 connections at 2,000 a second, the
/// dashboard's own defaults.
const LONGEST_DRAIN: i32 = 10;
/// A dashboard ends at most 4 s after its window; the rest is for a slow machine.
const DASHBOARD_MARGIN: i64 = 10;
/// A new pod counts only after so long: a version that falls over in its first seconds stops the rollout, not the service. Longer would only stretch
/// the time in which a rollout runs twice as many dashboards; endpoints need no more, because the old pods serve on during [`PRE_STOP`].
const MIN_READY: i32 = 3;
/// How many old templates are kept to go back to.
const HISTORY: i32 = 5;

/// What differs between them.
struct Service<'a> {
    name: &'static str,
    image: &'a str,
    replicas: i32,
    resources: Option<&'a Resources>,
    defaults: pod::Defaults,
    env: Vec<EnvVar>,
    grace: i64,
    max_surge: IntOrString,
}

/// The app. It never migrates: the Job has.
pub fn app(valid: &Valid, config_hash: &str) -> Deployment {
    let spec = &valid.spec.app;
    let service = Service {
        name: APP,
        image: &spec.image,
        replicas: spec.replicas,
        resources: spec.resources.as_ref(),
        defaults: super::job::APP_DEFAULTS,
        env: vec![pod::env("MIGRATE", "false")],
        grace: PRE_STOP + APP_FINISH + MARGIN,
        max_surge: IntOrString::Int(1),
    };
    deployment(valid, service, config_hash)
}

/// The dashboard. It rolls with as many new pods as old ones, so that a client moves once, to a new pod.
pub fn dashboard(valid: &Valid, config_hash: &str) -> Deployment {
    let spec = &valid.spec.dashboard;
    let drain_max = spec.drain_seconds.max(LONGEST_DRAIN);
    let service = Service {
        name: DASHBOARD,
        image: &spec.image,
        replicas: spec.replicas,
        resources: spec.resources.as_ref(),
        // Twice what it needs: on a busy node a pod with a small share waits for its turn, and a push waits with it.
        defaults: pod::Defaults { cpu: "100m", memory: "64Mi", memory_limit: "512Mi" },
        env: vec![
            pod::env("DRAIN_SECONDS", &spec.drain_seconds.to_string()),
            pod::env("DRAIN_MAX_SECONDS", &drain_max.to_string()),
            pod::env("ALLOWED_ORIGINS", &spec.allowed_origins.join(",")),
            pod::env("GENERATOR_URL", &format!("http://{METRIC_GENERATOR}")),
        ],
        grace: PRE_STOP + i64::from(drain_max) + DASHBOARD_MARGIN,
        max_surge: IntOrString::String("100%".into()),
    };
    deployment(valid, service, config_hash)
}

/// The metric generator. The seed is left alone, so that all replicas make the same figures.
pub fn metric_generator(valid: &Valid, config_hash: &str) -> Deployment {
    let spec = &valid.spec.metric_generator;
    let service = Service {
        name: METRIC_GENERATOR,
        image: &spec.image,
        replicas: spec.replicas,
        resources: spec.resources.as_ref(),
        // Samples wait in memory while the database is away: five minutes of a thousand servers are some 30 MB.
        defaults: pod::Defaults { cpu: "50m", memory: "64Mi", memory_limit: "256Mi" },
        env: vec![
            pod::env("SERVER_COUNT", &spec.server_count.to_string()),
            pod::env("METRICS_RETENTION", &spec.retention),
        ],
        grace: PRE_STOP + GENERATOR_FINISH + MARGIN,
        max_surge: IntOrString::Int(1),
    };
    deployment(valid, service, config_hash)
}

/// Before the migration is done: the Deployment with the pod template that it has today, so that it is still scaled and healed. `None` if it does not
/// exist: a service of this version must not start yet.
pub fn as_today(mut wanted: Deployment, live: &[Deployment]) -> Option<Deployment> {
    let live = named(live, wanted.metadata.name.as_deref()?)?.spec.as_ref()?;
    let spec = wanted.spec.as_mut()?;
    let (today, tomorrow) = (serde_json::to_value(&live.template).ok()?, serde_json::to_value(&spec.template).ok()?);
    if !contains(&today, &tomorrow) {
        spec.template = live.template.clone();
        // Annotations of others (`kubectl rollout restart` leaves one) stay theirs: owning them would remove them later, and roll the pods once more.
        let annotations = spec.template.metadata.as_mut().and_then(|metadata| metadata.annotations.as_mut());
        if let Some(annotations) = annotations {
            annotations.retain(|key, _| key == CONFIG_HASH);
        }
    }
    Some(wanted)
}

fn deployment(valid: &Valid, service: Service<'_>, config_hash: &str) -> Deployment {
    let selector = label_selector(service.name, &valid.name);
    let mut metadata = meta::pod(valid, service.name);
    metadata.annotations = Some(BTreeMap::from([(CONFIG_HASH.to_owned(), config_hash.to_owned())]));
    Deployment {
        metadata: meta::owned(valid, service.name, service.name),
        spec: Some(DeploymentSpec {
            replicas: Some(service.replicas),
            min_ready_seconds: Some(MIN_READY),
            revision_history_limit: Some(HISTORY),
            selector,
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(service.max_surge.clone()),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            template: PodTemplateSpec { metadata: Some(metadata), spec: Some(pod_spec(valid, service)) },
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

fn pod_spec(valid: &Valid, service: Service<'_>) -> PodSpec {
    let spread = TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "kubernetes.io/hostname".into(),
        when_unsatisfiable: "ScheduleAnyway".into(),
        label_selector: Some(label_selector(service.name, &valid.name)),
        // During a rollout new pods are spread among themselves; the old ones go anyway.
        match_label_keys: Some(vec!["pod-template-hash".into()]),
        ..TopologySpreadConstraint::default()
    };
    let mut env = pod::environment(valid);
    env.extend(service.env);
    let container = Container {
        name: service.name.to_owned(),
        image: Some(service.image.to_owned()),
        image_pull_policy: Some(valid.spec.image_pull_policy.as_str().to_owned()),
        env: Some(env),
        env_from: Some(pod::env_from_config()),
        ports: Some(vec![port("http", pod::HTTP_PORT), port("admin", pod::ADMIN_PORT)]),
        resources: Some(pod::resources(service.resources, service.defaults)),
        // A replica that cannot work is out after 2 s at most. A database that is away makes no replica unready.
        readiness_probe: Some(pod::probe("/readyz", 1, 2, 1)),
        // Only a loop that no longer turns is worth a restart, which costs every client its connection.
        liveness_probe: Some(pod::probe("/healthz", 10, 3, 5)),
        // A service starts within 100 ms; a node under load may take its time.
        startup_probe: Some(pod::probe("/healthz", 1, 60, 1)),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                sleep: Some(SleepAction { seconds: PRE_STOP }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        ..Container::default()
    };
    PodSpec {
        topology_spread_constraints: Some(vec![spread]),
        ..pod::service(valid, service.name, container, service.grace)
    }
}

fn port(name: &str, port: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: port,
        protocol: Some("TCP".into()),
        ..ContainerPort::default()
    }
}
