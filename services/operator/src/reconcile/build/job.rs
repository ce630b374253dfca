//! Jobs that do their work once for each pod template, after which they are named. They stay when they are done, as the mark that it is done.

use k8s_openapi::{
    api::{
        batch::v1::{Job, JobCondition, JobSpec},
        core::v1::{
            Container, DownwardAPIVolumeFile, DownwardAPIVolumeSource, ObjectFieldSelector, Pod, PodSpec,
            PodTemplateSpec, Volume, VolumeMount,
        },
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::Timestamp,
};
use kube::ResourceExt;

use super::{meta, pod};
use crate::{
    hash::hash,
    names::{FEED_LIST, FEEDS, JOB_NAME, MIGRATE, URL_KEY},
    reconcile::{dereference::Seen, validate::Valid},
};

/// What the app needs; the migration is the same program.
pub const APP_DEFAULTS: pod::Defaults = pod::Defaults { cpu: "50m", memory: "64Mi", memory_limit: "256Mi" };
/// One connection to the database, for as long as the rows of a new feed are counted.
const FEEDS_DEFAULTS: pod::Defaults = pod::Defaults { cpu: "10m", memory: "32Mi", memory_limit: "128Mi" };
/// New tries, 10, 20 and 40 s apart: enough for a database that starts anew. What fails every time is told in the Board's status.
const RETRIES: i32 = 3;
/// The work is done in transactions; what is ended is rolled back.
const GRACE: i64 = 30;
/// The folder of the list of feeds, and the file in it.
const LIST: (&str, &str) = ("/feeds", "feeds.json");

/// The migration: `app migrate`, of the Board's app image.
pub fn migrate(valid: &Valid) -> Job {
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
    once(valid, MIGRATE, meta::pod(valid, MIGRATE), pod::service(valid, MIGRATE, container, GRACE))
}

/// The list of feeds: `tidemark feed sync`. Also for an empty list: a Board that is made again has the volume of the one before it, and so its feeds.
///
/// The list travels in an annotation of the pod, which sees it as a file: so it is a part of what the Job is named after, and cannot change under it.
pub fn feeds(valid: &Valid) -> Job {
    let (folder, file) = LIST;
    // The list is this Board's alone, also in a database that other Boards share.
    let args = ["feed", "sync", "--file", &format!("{folder}/{file}"), "--owner", &valid.namespace].map(str::to_owned);
    let container = Container {
        name: FEEDS.to_owned(),
        image: Some(valid.spec.tidemark.image.clone()),
        image_pull_policy: Some(valid.spec.image_pull_policy.as_str().to_owned()),
        args: Some(args.into()),
        env: Some(vec![pod::env_secret("DATABASE_URL", valid.database.secret(), URL_KEY)]),
        resources: Some(pod::resources(None, FEEDS_DEFAULTS)),
        // What it says when it fails is in the pod's status, where the Board's own status gets it from.
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        volume_mounts: Some(vec![VolumeMount {
            name: FEEDS.to_owned(),
            mount_path: folder.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        }]),
        ..Container::default()
    };
    let annotation = ObjectFieldSelector {
        api_version: Some("v1".into()),
        field_path: format!("metadata.annotations['{FEED_LIST}']"),
    };
    let item = DownwardAPIVolumeFile {
        path: file.to_owned(),
        field_ref: Some(annotation),
        ..DownwardAPIVolumeFile::default()
    };
    let source = DownwardAPIVolumeSource { items: Some(vec![item]), ..DownwardAPIVolumeSource::default() };
    let volume = Volume { name: FEEDS.to_owned(), downward_api: Some(source), ..Volume::default() };
    // A list of texts can always be JSON.
    let list = serde_json::to_string(&valid.spec.feeds).unwrap_or_default();
    let mut metadata = meta::pod(valid, FEEDS);
    metadata.annotations = Some([(FEED_LIST.to_owned(), list)].into());
    let spec = PodSpec { volumes: Some(vec![volume]), ..pod::service(valid, FEEDS, container, GRACE) };
    once(valid, FEEDS, metadata, spec)
}

/// Whether an earlier list, or an earlier run of this one, is still being applied. It could come to
/// its end after this one, and win.
pub fn earlier_feeds(feeds: &Job, seen: &Seen) -> bool {
    let own = feeds.metadata.name.as_deref();
    let other = |name: Option<&str>| is_of(name, FEEDS) && name != own;
    let job = |job: &Job| other(job.metadata.name.as_deref()) && !completed(job) && failed(job).is_none();
    let pod = |pod: &Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        other(pod.labels().get(JOB_NAME).map(String::as_str)) && !matches!(phase, Some("Succeeded" | "Failed"))
    };
    seen.children.jobs.iter().any(job) || seen.pods.iter().any(pod)
}

/// The Job of this kind of work: its name begins with it.
pub fn of<'a>(jobs: &'a [Job], work: &str) -> Option<&'a Job> {
    jobs.iter().find(|job| is_of(job.metadata.name.as_deref(), work))
}

fn is_of(name: Option<&str>, work: &str) -> bool {
    name.and_then(|name| name.strip_prefix(work)).is_some_and(|rest| rest.starts_with('-'))
}

/// Whether a Job has done its work.
pub fn completed(job: &Job) -> bool {
    condition(job, "Complete").is_some()
}

/// Why a Job gave up, if it did.
pub fn failed(job: &Job) -> Option<String> {
    condition(job, "Failed").map(|condition| condition.message.clone().unwrap_or_default())
}

/// When a Job completed or gave up; none while it runs.
pub fn ended_at(job: &Job) -> Option<Timestamp> {
    let end = condition(job, "Complete").or_else(|| condition(job, "Failed"))?;
    end.last_transition_time.as_ref().map(|time| time.0)
}

fn condition<'a>(job: &'a Job, type_: &str) -> Option<&'a JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == type_ && condition.status == "True")
}

fn once(valid: &Valid, work: &str, metadata: ObjectMeta, spec: PodSpec) -> Job {
    // Failed pods stay, so that their logs can be read.
    let spec = PodSpec { restart_policy: Some("Never".into()), ..spec };
    let template = PodTemplateSpec { metadata: Some(metadata), spec: Some(spec) };
    Job {
        metadata: meta::owned(valid, &format!("{work}-{}", hash(&template)), work),
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
