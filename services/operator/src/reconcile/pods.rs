//! What pods tell about what is wrong. Pure.
//!
//! A pod that fails goes back and forth between states (an image is tried, then waited for). The sentences leave out what changes with it, so that
//! the status is written once and not every few seconds.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;

use crate::{
    names::{JOB_NAME, NAME},
    problem::{Problem, Reason},
};

/// How much of a container runtime's message is quoted.
const QUOTE: usize = 300;
/// A container that was started so often and is not ready is in a loop, also in the moments in which it runs.
const RESTARTS: i32 = 3;

/// The problems of all pods, the same one only once per service and image.
pub fn problems(pods: &[Pod]) -> Vec<Problem> {
    let mut pods: Vec<_> = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
    pods.sort_by_key(|pod| pod.name_any());
    let mut found: Vec<((Reason, String, String), Problem)> = Vec::new();
    for pod in pods {
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        for problem in statuses.filter_map(|status| problem(pod, status).map(|problem| (status, problem))) {
            let (status, problem) = problem;
            let service = pod.labels().get(NAME).cloned().unwrap_or_default();
            let key = (problem.reason, service, image(pod, status));
            if !found.iter().any(|(other, _)| *other == key) {
                found.push((key, problem));
            }
        }
    }
    found.into_iter().map(|(_, problem)| problem).collect()
}

/// What the last try of a Job said when it failed: its last error, or the end of its log.
pub fn last_words(pods: &[Pod], job: &str) -> Option<String> {
    let tries = pods.iter().filter(|pod| pod.labels().get(JOB_NAME).is_some_and(|name| name == job));
    let statuses =
        tries.flat_map(|pod| pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten()));
    let ends = statuses.filter_map(|status| status.state.as_ref()?.terminated.as_ref());
    let last = ends.filter(|end| end.exit_code != 0).max_by_key(|end| end.finished_at.as_ref().map(|time| time.0))?;
    let said = last.message.as_deref()?;
    // Our programs tell what they do, and at the end what went wrong.
    let error = said.strip_prefix("error: ").or_else(|| Some(said.rsplit_once("\nerror: ")?.1)).unwrap_or(said);
    Some(quote(error)).filter(|words| !words.is_empty())
}

/// As the spec has it: the status may know the image by another name.
fn image(pod: &Pod, status: &ContainerStatus) -> String {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let image =
        containers.filter(|container| container.name == status.name).find_map(|container| container.image.clone());
    image.unwrap_or_else(|| status.image.clone())
}

fn problem(pod: &Pod, status: &ContainerStatus) -> Option<Problem> {
    let (name, image) = (pod.name_any(), image(pod, status));
    let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
    let why =
        |text: &str| waiting.and_then(|waiting| waiting.message.as_deref()).map_or_else(|| text.to_owned(), quote);
    match waiting.and_then(|waiting| waiting.reason.as_deref()) {
        Some("ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" | "ImageInspectError") => {
            let why = why("no reason is given");
            let message = format!(
                "the pod {name} cannot get the image {image}: {why}; put the right image into the Board, or make this one available"
            );
            Some(Problem::new(Reason::ImageUnavailable, message))
        }
        Some("CreateContainerConfigError") if why("").to_lowercase().contains("secret") => {
            let message = format!("the pod {name} cannot start: {}; complete that Secret", why(""));
            Some(Problem::new(Reason::SecretMissing, message))
        }
        Some("CrashLoopBackOff") => Some(crash_loop(&name, status)),
        _ if !status.ready && status.restart_count >= RESTARTS => Some(crash_loop(&name, status)),
        _ => None,
    }
}

fn crash_loop(pod: &str, status: &ContainerStatus) -> Problem {
    let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let how = last.map_or_else(String::new, |last| match last.reason.as_deref() {
        Some("OOMKilled") => " (it needs more memory than its limit)".to_owned(),
        _ => format!(" (exit code {})", last.exit_code),
    });
    let message = format!("the pod {pod} ends again and again{how}; read why: kubectl logs {pod} --previous");
    Problem::new(Reason::CrashLoop, message)
}

/// The runtime's own words: while the kubelet waits before the next try, it puts its own in front of them.
fn quote(message: &str) -> String {
    let message = message.split_once("ErrImagePull: ").map_or(message, |(_, cause)| cause);
    let end = message.char_indices().nth(QUOTE).map_or(message.len(), |(index, _)| index);
    message[..end].trim().to_owned()
}
