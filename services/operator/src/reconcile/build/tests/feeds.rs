//! The Job that brings the list of feeds into the database.

use k8s_openapi::{
    api::{batch::v1::Job, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use serde_json::{Value, from_str, from_value, json, to_value};

use super::{ended, migrated};
use crate::{
    feed_problem::FeedProblem,
    fixtures::{metadata, pod_labels, valid},
    names::FEEDS,
    reconcile::{
        build::{build, job_of},
        dereference::Seen,
    },
};

fn orders() -> Value {
    json!({"feeds": [
        {"name": "orders", "table": "public.orders"},
        {"name": "open", "table": "public.orders", "where": "status = 'open'"}
    ]})
}

/// The Job that is wanted, when this is seen.
fn wanted(spec: Value, seen: &Seen) -> Option<Job> {
    job_of(&build(&valid(spec, seen), seen, "").resources.jobs, FEEDS).cloned()
}

fn name(job: &Job) -> &str {
    job.metadata.name.as_deref().unwrap()
}

#[test]
fn the_list_is_a_file_in_a_hardened_pod_of_the_command_line() {
    let job = wanted(orders(), &migrated(json!({}))).unwrap();
    let list = job.spec.as_ref().unwrap().template.metadata.as_ref().unwrap().annotations.as_ref().unwrap()["tidemark.dev/feeds"].clone();
    assert_eq!(from_str::<Value>(&list).unwrap(), orders()["feeds"]);
    let wanted = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(name(&job), "feeds"),
        "spec": {
            "completions": 1,
            "parallelism": 1,
            "backoffLimit": 3,
            "suspend": false,
            "template": {
                "metadata": {"labels": pod_labels("feeds"), "annotations": {"tidemark.dev/feeds": list}},
                "spec": {
                    "serviceAccountName": "feeds",
                    "automountServiceAccountToken": false,
                    "enableServiceLinks": false,
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": 30,
                    "securityContext": {
                        "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}
                    },
                    "containers": [{
                        "name": "feeds",
                        "image": "tidemark:0.1.0",
                        "imagePullPolicy": "IfNotPresent",
                        "args": ["feed", "sync", "--file", "/feeds/feeds.json", "--owner", "quay"],
                        "env": [{"name": "DATABASE_URL", "valueFrom": {"secretKeyRef": {"name": "postgres", "key": "url"}}}],
                        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
                        "terminationMessagePolicy": "FallbackToLogsOnError",
                        "volumeMounts": [{"name": "feeds", "mountPath": "/feeds", "readOnly": true}],
                        "securityContext": {
                            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}
                        }
                    }],
                    "volumes": [{"name": "feeds", "downwardAPI": {"items": [{
                        "path": "feeds.json",
                        "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.annotations['tidemark.dev/feeds']"}
                    }]}}]
                }
            }
        }
    });
    assert_eq!(to_value(&job).unwrap(), wanted);
}

#[test]
fn another_list_or_another_command_line_is_another_job_and_nothing_else_is() {
    let name_for = |mut spec: Value, more: Value| {
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        // Another image of the app is another migration, which is done here.
        name(&wanted(spec.clone(), &migrated(spec)).unwrap()).to_owned()
    };
    let plain = name_for(orders(), json!({}));
    for same in [
        json!({"dashboard": {"replicas": 4}}),
        json!({"app": {"image": "app:7"}}),
        json!({"telemetry": {"logFilter": "debug"}}),
    ] {
        assert_eq!(name_for(orders(), same.clone()), plain, "{same}");
    }
    for other in
        [json!({"feeds": []}), json!({"feeds": [orders()["feeds"][0]]}), json!({"tidemark": {"image": "tidemark:7"}})]
    {
        assert_ne!(name_for(orders(), other.clone()), plain, "{other}");
    }
}

/// A Board that is made again finds the volume of the one before it, and in it the feeds of a list that nobody has any more.
#[test]
fn an_empty_list_is_applied_too() {
    let job = to_value(wanted(json!({}), &migrated(json!({}))).unwrap()).unwrap();
    assert_eq!(job["spec"]["template"]["metadata"]["annotations"]["tidemark.dev/feeds"], "[]");
}

#[test]
fn feeds_wait_for_the_migration_and_stay_applied_during_the_next_one() {
    assert_eq!(wanted(orders(), &Seen::default()), None);
    let job = wanted(orders(), &migrated(json!({}))).unwrap();
    let mut seen = Seen::default();
    seen.children.jobs.push(ended("Complete", job.clone()));
    assert_eq!(wanted(orders(), &seen).as_ref().map(name), Some(name(&job)));
    assert_eq!(wanted(json!({}), &seen), None, "another list is not applied before the migration");
}

#[test]
fn a_new_list_waits_until_nobody_is_applying_the_one_before_it() {
    let earlier = wanted(json!({}), &migrated(json!({}))).unwrap();
    let pod = |phase: &str| {
        let labels = json!({"batch.kubernetes.io/job-name": name(&earlier)});
        from_value::<Pod>(json!({"metadata": {"name": "feeds-1", "labels": labels}, "status": {"phase": phase}}))
            .unwrap()
    };
    let seen = |jobs: Vec<Job>, pods: Vec<Pod>| {
        let mut seen = migrated(json!({}));
        seen.children.jobs.extend(jobs);
        Seen { pods, ..seen }
    };
    assert_eq!(wanted(orders(), &seen(vec![earlier.clone()], vec![])), None, "it may be about to start a pod");
    assert_eq!(wanted(orders(), &seen(vec![], vec![pod("Running")])), None, "it is gone, its pod is not");
    for (jobs, phase) in [
        (vec![], "Succeeded"),
        (vec![ended("Complete", earlier.clone())], "Succeeded"),
        (vec![ended("Failed", earlier.clone())], "Failed"),
    ] {
        assert!(wanted(orders(), &seen(jobs, vec![pod(phase)])).is_some(), "{phase}");
    }
    // Its own pod keeps nobody waiting.
    assert!(wanted(json!({}), &seen(vec![earlier.clone()], vec![pod("Running")])).is_some());
}

/// The second at which the runs below ended.
const END: i64 = 1_800_000_000;

/// The run of [`orders`] with this number, which ended with this condition.
fn run(number: u32, how: &str) -> Job {
    let mut job = wanted(orders(), &migrated(orders())).unwrap();
    if number > 0 {
        job.metadata.name = Some(format!("{}-{number}", name(&job)));
    }
    let mut job = ended(how, job);
    let status = job.status.as_mut().unwrap();
    let condition = &mut status.conditions.as_mut().unwrap()[0];
    condition.last_transition_time = Some(Time(Timestamp::from_second(END).unwrap()));
    job
}

/// What is seen this number of seconds after the end of the last run, while dashboards report
/// these problems.
fn after(seconds: i64, run: &Job, problems: &[(&str, &str)]) -> Seen {
    let mut seen = migrated(orders());
    seen.children.jobs.push(run.clone());
    let problem = |(feed, reason): &(&str, &str)| FeedProblem { feed: (*feed).into(), reason: (*reason).into() };
    let problems = problems.iter().map(problem).collect();
    Seen { at: Timestamp::from_second(END + seconds).unwrap(), feed_problems: Some(problems), ..seen }
}

/// The number of the run that is wanted then.
fn number(seen: &Seen) -> u32 {
    let (first, job) = (run(0, "Complete"), wanted(orders(), seen).unwrap());
    let rest = name(&job).strip_prefix(name(&first)).unwrap();
    rest.strip_prefix('-').map_or(0, |rest| rest.parse().unwrap())
}

#[test]
fn a_run_of_its_own_applies_the_list_again_while_a_run_can_fix_a_problem() {
    let (first, seen) = (run(0, "Complete"), |problems: &[_]| after(60, &run(0, "Complete"), problems));
    let again = wanted(orders(), &seen(&[("orders", "swapped")])).unwrap();
    let mut same = again.clone();
    same.metadata.name = Some(name(&first).to_owned());
    assert_eq!(name(&again), format!("{}-1", name(&first)));
    assert_eq!(to_value(same).unwrap(), to_value(Job { status: None, ..first }).unwrap(), "only the name differs");

    for reason in ["swapped", "switched_off", "denied", "filter_failed", "filter_gone"] {
        assert_eq!(number(&seen(&[("open", reason)])), 1, "{reason}");
    }
    for reason in ["gone", "partition", "partitioned", "subscribed", "hidden_rows", "of_tomorrow"] {
        assert_eq!(number(&seen(&[("open", reason)])), 0, "{reason}");
    }
    assert_eq!(number(&seen(&[("boats", "swapped")])), 0, "it is not on the list");
    assert_eq!(number(&seen(&[("boats", "swapped"), ("open", "gone"), ("orders", "swapped")])), 1);
    assert_eq!(number(&Seen { feed_problems: None, ..seen(&[]) }), 0, "no dashboard answers");
}

#[test]
fn each_run_waits_longer_up_to_five_minutes_whether_the_one_before_failed_or_not() {
    let swapped = [("orders", "swapped")];
    for how in ["Complete", "Failed"] {
        for (last, wait) in [(0, 60), (1, 120), (2, 240), (3, 300), (40, 300), (u32::MAX, 300)] {
            assert_eq!(number(&after(wait - 1, &run(last, how), &swapped)), last, "{how}, {wait} s");
            assert_eq!(number(&after(wait, &run(last, how), &swapped)), last.saturating_add(1), "{how}, {wait} s");
        }
    }
    // A problem that comes after a long time is the first one again.
    for (last, next) in [(0, 1), (1, 0), (7, 0)] {
        assert_eq!(number(&after(600, &run(last, "Complete"), &swapped)), next);
    }
}

#[test]
fn there_is_never_a_second_run_beside_one_that_is_not_over() {
    let swapped = [("orders", "swapped")];
    let running = Job { status: None, ..run(2, "Complete") };
    assert_eq!(number(&after(9_000, &running, &swapped)), 2);
    // Its Job has ended, a pod of it has not.
    let labels = json!({"batch.kubernetes.io/job-name": name(&running)});
    let pod = json!({"metadata": {"name": "feeds-1", "labels": labels}, "status": {"phase": "Running"}});
    let seen = Seen { pods: vec![from_value(pod).unwrap()], ..after(300, &run(2, "Complete"), &swapped) };
    assert_eq!(number(&seen), 2);
    assert_eq!(number(&Seen { pods: Vec::new(), ..seen }), 3);
}

#[test]
fn a_run_waits_for_the_migration_and_the_last_one_stays_meanwhile() {
    let mut seen = after(300, &run(1, "Complete"), &[("orders", "swapped")]);
    seen.children.jobs.retain(|job| name(job).starts_with("feeds-"));
    assert_eq!(number(&seen), 1);
}

#[test]
fn the_run_that_was_made_last_counts_and_one_that_is_being_deleted_does_not() {
    let at = |mut job: Job, second: i64| {
        job.metadata.creation_timestamp = Some(Time(Timestamp::from_second(second).unwrap()));
        job
    };
    let mut seen = after(10, &at(run(7, "Complete"), END - 900), &[("orders", "swapped")]);
    seen.children.jobs.insert(0, at(run(0, "Complete"), END - 10));
    assert_eq!(number(&seen), 0);
    seen.children.jobs[0].metadata.deletion_timestamp = Some(Time(Timestamp::from_second(END).unwrap()));
    assert_eq!(number(&seen), 7);
}
