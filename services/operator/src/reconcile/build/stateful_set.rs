//! Postgres: one pod, one volume.

use k8s_openapi::{
    api::{
        apps::v1::{StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec},
        core::v1::{
            Container, ContainerPort, EmptyDirVolumeSource, ExecAction, PersistentVolumeClaim,
            PersistentVolumeClaimSpec, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, Volume, VolumeMount,
            VolumeResourceRequirements,
        },
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};

use super::{meta, pod};
use crate::{
    board::{Postgres, Storage},
    names::{CLAIM, CLAIM_TEMPLATE, POSTGRES, PRODUCT, label_selector, labels},
    problem::{Problem, Reason},
    quantity,
    reconcile::{dereference::Seen, resources::named, validate::Valid},
};

/// Where the claim is mounted: the directory that images since 18 declare as their volume. Images before 18 declare `data` below it, and container
/// runtimes then put an anonymous volume there, which goes with the container; so the data must not be in `data` or below.
const MOUNT: &str = "/var/lib/postgresql";
/// On the claim for every image; not the mount itself, which may hold `lost+found`.
const PGDATA: &str = "/var/lib/postgresql/pgdata";
/// The user `postgres` of the official images that are based on Debian.
const USER: i64 = 999;
/// The images stop by SIGINT: clients are cut and a checkpoint is written, which takes as long as the disk takes. No preStop: it would only make the
/// outage longer.
const GRACE: i64 = 60;
const DEFAULTS: pod::Defaults = pod::Defaults { cpu: "100m", memory: "128Mi", memory_limit: "1Gi" };
/// Shared memory of parallel queries; a container's own 64 MB are soon used up.
const SHARED_MEMORY: &str = "256Mi";

/// The StatefulSet, and what the Board wants of a volume that is there already and cannot have it.
pub fn stateful_set(valid: &Valid, postgres: &Postgres, seen: &Seen) -> (StatefulSet, Option<Problem>) {
    let live = named(&seen.children.stateful_sets, POSTGRES).and_then(|live| live.spec.as_ref());
    let template =
        live.and_then(|spec| spec.volume_claim_templates.as_ref()?.first()).and_then(|claim| claim.spec.as_ref());
    let claim = seen.claim.as_ref().and_then(|claim| claim.spec.as_ref());
    let refused = claim.or(template).and_then(|there| refused(&postgres.storage, there));
    // What cannot be changed is applied as it is, so that the rest of the StatefulSet can still be changed.
    let storage = template.map_or_else(|| claim_spec(&postgres.storage), |template| claim_spec(&storage_of(template)));
    let claim_template = PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(CLAIM_TEMPLATE.to_owned()),
            labels: Some(labels(POSTGRES, &valid.name)),
            ..ObjectMeta::default()
        },
        spec: Some(storage),
        ..PersistentVolumeClaim::default()
    };
    let stateful_set = StatefulSet {
        metadata: meta::owned(valid, POSTGRES, POSTGRES),
        spec: Some(StatefulSetSpec {
            replicas: Some(1),
            service_name: Some(POSTGRES.to_owned()),
            selector: label_selector(POSTGRES, &valid.name),
            // With the default a pod that never becomes ready (an image that does not exist) would keep its own fix from being rolled out.
            pod_management_policy: Some("Parallel".into()),
            persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: Some("Retain".into()),
                when_scaled: Some("Retain".into()),
            }),
            template: PodTemplateSpec {
                metadata: Some(meta::pod(valid, POSTGRES)),
                spec: Some(pod_spec(valid, postgres)),
            },
            volume_claim_templates: Some(vec![claim_template]),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    };
    (stateful_set, refused)
}

/// A claim that was made larger by hand has what the Board wants.
fn refused(wanted: &Storage, there: &PersistentVolumeClaimSpec) -> Option<Problem> {
    let there = storage_of(there);
    let smaller = quantity::parse(&there.size.0) < quantity::parse(&wanted.size.0);
    let other_class = wanted.class_name.is_some() && wanted.class_name != there.class_name;
    (smaller || other_class).then(|| {
        let say = |storage: &Storage| {
            let class = storage.class_name.as_ref().map(|class| format!(" of the class {class}"));
            format!("{}{}", storage.size.0, class.unwrap_or_default())
        };
        let message = format!(
            "the volume claim {CLAIM} has {} and the Board wants {}, which a volume cannot become; nothing was changed: set \
             spec.database.postgres.storage to what the claim has, or move the data to a new Board",
            say(&there),
            say(wanted),
        );
        Problem::new(Reason::ImmutableField, message)
    })
}

fn storage_of(claim: &PersistentVolumeClaimSpec) -> Storage {
    let requests = claim.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let size = requests.and_then(|requests| requests.get("storage"));
    Storage {
        size: size.map_or_else(Default::default, |size| crate::board::StorageSize(size.0.clone())),
        class_name: claim.storage_class_name.clone(),
    }
}

fn claim_spec(storage: &Storage) -> PersistentVolumeClaimSpec {
    PersistentVolumeClaimSpec {
        access_modes: Some(vec!["ReadWriteOnce".into()]),
        storage_class_name: storage.class_name.clone(),
        resources: Some(VolumeResourceRequirements {
            requests: Some([("storage".to_owned(), Quantity(storage.size.0.clone()))].into()),
            ..VolumeResourceRequirements::default()
        }),
        ..PersistentVolumeClaimSpec::default()
    }
}

fn pod_spec(valid: &Valid, postgres: &Postgres) -> PodSpec {
    // Without -h it would already say yes to the server that the image starts on a socket while it makes the database.
    let ready = ["pg_isready", "-h", "127.0.0.1", "-U", PRODUCT, "-d", PRODUCT].map(str::to_owned).to_vec();
    let probe = |period, failures| Probe {
        exec: Some(ExecAction { command: Some(ready.clone()) }),
        period_seconds: Some(period),
        timeout_seconds: Some(3),
        failure_threshold: Some(failures),
        ..Probe::default()
    };
    let container = Container {
        name: POSTGRES.to_owned(),
        image: Some(postgres.image.clone()),
        image_pull_policy: Some(valid.spec.image_pull_policy.as_str().to_owned()),
        env: Some(vec![
            pod::env_secret("POSTGRES_USER", POSTGRES, "username"),
            pod::env_secret("POSTGRES_PASSWORD", POSTGRES, "password"),
            pod::env_secret("POSTGRES_DB", POSTGRES, "database"),
            pod::env("PGDATA", PGDATA),
        ]),
        ports: Some(vec![ContainerPort {
            name: Some(POSTGRES.to_owned()),
            container_port: 5432,
            protocol: Some("TCP".into()),
            ..ContainerPort::default()
        }]),
        // No liveness probe: a database that is busy with recovery must not be killed for it.
        // Every look starts a process in the container, so the quick ones end with the start. They may go on for a day of recovery.
        startup_probe: Some(probe(1, 86_400)),
        readiness_probe: Some(probe(5, 2)),
        resources: Some(pod::resources(postgres.resources.as_ref(), DEFAULTS)),
        security_context: Some(pod::locked()),
        volume_mounts: Some(vec![
            mount(CLAIM_TEMPLATE, MOUNT),
            mount("run", "/var/run/postgresql"),
            mount("tmp", "/tmp"),
            mount("shm", "/dev/shm"),
        ]),
        ..Container::default()
    };
    PodSpec {
        containers: vec![container],
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            // Walking a large volume at each start would only take time.
            fs_group_change_policy: Some("OnRootMismatch".into()),
            seccomp_profile: Some(pod::runtime_default()),
            ..PodSecurityContext::default()
        }),
        termination_grace_period_seconds: Some(GRACE),
        volumes: Some(vec![
            volume("run", EmptyDirVolumeSource::default()),
            volume("tmp", EmptyDirVolumeSource::default()),
            volume(
                "shm",
                EmptyDirVolumeSource {
                    medium: Some("Memory".into()),
                    size_limit: Some(Quantity(SHARED_MEMORY.to_owned())),
                },
            ),
        ]),
        ..pod::base(valid, POSTGRES)
    }
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount { name: name.to_owned(), mount_path: path.to_owned(), ..VolumeMount::default() }
}

fn volume(name: &str, source: EmptyDirVolumeSource) -> Volume {
    Volume { name: name.to_owned(), empty_dir: Some(source), ..Volume::default() }
}
