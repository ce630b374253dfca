//! The migration: `app migrate`, in a Job named after its own pod template. It stays when it is done, as the mark that this version is migrated.

use k8s_openapi::api::{
    batch::v1::{Job, JobSpec},
    core::v1::{Container, PodSpec, PodTemplateSpec},
};

use super::{meta, pod};
use crate::{hash::hash, names::MIGRATE, reconcile::validate::Valid};

/// What the app needs; the migration is the same program.
pub const APP_DEFAULTS: pod::Defaults = pod::Defaults { cpu: "50m", memory: "64Mi", memory_limit: "256Mi" };
/// New tries, 10, 20 and 40 s apart. The program itself waits for the database, so that a failure is one of the migration.
const RETRIES: i32 = 3;
/// A migration is a transaction; ended, it is rolled back.
const GRACE: i64 = 30;

/// The Job of the Board's app image.
pub fn job(valid: &Valid) -> Job {
    let container = Container {
        name: MIGRATE.to_owned(),
        image: Some(valid.spec.app.image.clone()),
        image_pull_policy: Some(valid.spec.image_pull_policy.as_str().to_owned()),
        args: Some(vec![MIGRATE.to_owned()]),
        env: Some(pod::environment(valid)),
        env_from: Some(pod::env_from_config()),
        resources: Some(pod::resources(None, APP_DEFAULTS)),
        ..Container::default()
    };
    let spec = PodSpec {
        // Failed pods stay, so that their logs can be read.
        restart_policy: Some("Never".into()),
        ..pod::service(valid, MIGRATE, container, GRACE)
    };
    let template = PodTemplateSpec { metadata: Some(meta::pod(valid, MIGRATE)), spec: Some(spec) };
    Job {
        metadata: meta::owned(valid, &format!("{MIGRATE}-{}", hash(&template)), MIGRATE),
        spec: Some(JobSpec {
            completions: Some(1),
            parallelism: Some(1),
            backoff_limit: Some(RETRIES),
            suspend: Some(false),
            template,
            ..JobSpec::default()
        }),
        ..Job::default()
    }
}
