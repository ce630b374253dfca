//! The Job that brings the list of feeds into the database.

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use serde_json::{Value, from_str, from_value, json, to_value};

use super::{ended, migrated};
use crate::{
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
