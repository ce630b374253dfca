//! Reconciles against an API server in memory: what is written, in which order, and what is never written.

mod cluster;
mod conditions;
mod feeds;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::cluster::{BOARDS, Cluster, board_path};
use super::*;
use crate::{
    controller::wait_for_crd,
    fixtures::{harbor, owners, pod_labels},
};

const HARBOR: &str = "/apis/tidemark.dev/v1alpha1/namespaces/quay/boards/harbor";
const JOBS: &str = "/apis/batch/v1/namespaces/quay/jobs";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/quay/deployments";
const POSTGRES: &str = "/apis/apps/v1/namespaces/quay/statefulsets/postgres";
const BUDGETS: &str = "/apis/policy/v1/namespaces/quay/poddisruptionbudgets";
const SECRET: &str = "/api/v1/namespaces/quay/secrets/postgres";
const CLAIM: &str = "/api/v1/namespaces/quay/persistentvolumeclaims/data-postgres-0";

fn condition(cluster: &Cluster, board: &str, type_: &str) -> Value {
    let board = cluster.get(board);
    let conditions = board["status"]["conditions"].as_array().unwrap();
    conditions.iter().find(|condition| condition["type"] == type_).unwrap().clone()
}

fn degraded(cluster: &Cluster) -> (String, String) {
    let condition = condition(cluster, HARBOR, "Degraded");
    let text = |key: &str| condition[key].as_str().unwrap().to_owned();
    (text("reason"), text("message"))
}

/// What the other controllers of a cluster do: the Job completes, pods get ready, and defaults are filled in.
fn work(cluster: &Cluster) {
    for job in cluster.list(JOBS) {
        cluster.edit(&job, |job| job["status"] = json!({"conditions": [{"type": "Complete", "status": "True"}]}));
    }
    for path in cluster.list(DEPLOYMENTS).into_iter().chain([POSTGRES.to_owned()]) {
        cluster.edit(&path, |object| {
            let replicas = object["spec"]["replicas"].clone();
            object["spec"]["progressDeadlineSeconds"] = json!(600);
            object["spec"]["template"]["spec"]["restartPolicy"] = json!("Always");
            object["status"] = json!({"replicas": replicas, "updatedReplicas": replicas, "readyReplicas": replicas});
        });
    }
}

/// A Board that is installed.
async fn installed(spec: Value) -> Cluster {
    install(Cluster::with(&harbor(spec))).await
}

/// Installs the Board of this cluster.
async fn install(cluster: Cluster) -> Cluster {
    for _ in 0..3 {
        cluster.reconcile(HARBOR).await.0.unwrap();
        work(&cluster);
    }
    cluster.reconcile(HARBOR).await.0.unwrap();
    cluster
}

#[tokio::test]
async fn services_start_only_after_the_migration() {
    let cluster = Cluster::with(&harbor(json!({})));
    let (result, writes) = cluster.reconcile(HARBOR).await;
    assert_eq!(result.unwrap(), Action::requeue(LOOK_AGAIN));
    let at = |sign: &str| writes.iter().position(|write| write.contains(sign)).unwrap();
    assert_eq!(writes[0], "POST secrets");
    assert!(at("statefulsets") < at("jobs") && at("jobs") < at("ingresses"), "{writes:?}");
    assert!(cluster.list(DEPLOYMENTS).is_empty());
    assert_eq!(condition(&cluster, HARBOR, "Progressing")["reason"], "Migrating");
    assert_eq!(condition(&cluster, HARBOR, "Available")["status"], "False");

    work(&cluster);
    let (_, writes) = cluster.reconcile(HARBOR).await;
    assert_eq!(cluster.list(DEPLOYMENTS).len(), 3);
    assert!(!writes.iter().any(|write| write.contains("jobs/migrate") || write.contains("secrets")), "{writes:?}");
}

#[tokio::test]
async fn an_installed_board_says_so_and_is_never_written_again() {
    let cluster = installed(json!({"host": "harbor.example", "ingress": {"port": 8443}})).await;
    for _ in 0..2 {
        let (result, writes) = cluster.reconcile(HARBOR).await;
        assert_eq!((result.unwrap(), writes), (Action::requeue(LOOK_AGAIN), Vec::new()));
    }
    let mut status = cluster.get(HARBOR)["status"].clone();
    for condition in status["conditions"].as_array_mut().unwrap() {
        condition.as_object_mut().unwrap().remove("lastTransitionTime").unwrap();
    }
    let condition = |type_, status, reason, message| json!({"type": type_, "status": status, "reason": reason, "message": message, "observedGeneration": 3});
    let wanted = json!({
        "conditions": [
            condition("Available", "True", "Serving", "users are served"),
            condition("Progressing", "False", "Settled", "no change is under way"),
            condition("Degraded", "False", "AsExpected", "nothing is wrong"),
            condition("FeedsApplied", "True", "Applied", "the database has the feeds of the list"),
        ],
        "observedGeneration": 3,
        "url": "https://harbor.example:8443",
        "app": "2/2",
        "dashboards": "2/2",
        "metricGenerators": "2/2",
        "replicas": 2,
        "selector": "app.kubernetes.io/instance=harbor,app.kubernetes.io/name=dashboard",
        "connections": 0
    });
    assert_eq!(status, wanted);
}

#[tokio::test]
async fn a_child_that_is_edited_or_deleted_comes_back_alone() {
    let cluster = installed(json!({})).await;
    let dashboard = format!("{DEPLOYMENTS}/dashboard");
    cluster.edit(&dashboard, |object| object["spec"]["replicas"] = json!(7));
    let (_, writes) = cluster.reconcile(HARBOR).await;
    assert_eq!(writes[0], "PATCH deployments/dashboard");
    assert!(writes[1..].iter().all(|write| write == "PATCH boards/harbor/status"), "{writes:?}");
    assert_eq!(cluster.get(&dashboard)["spec"]["replicas"], 2);

    cluster.edit(&dashboard, |object| object["metadata"]["labels"] = json!({}));
    cluster.remove(&format!("{BUDGETS}/app"));
    let (_, writes) = cluster.reconcile(HARBOR).await;
    assert_eq!(writes[..2], ["PATCH poddisruptionbudgets/app", "PATCH deployments/dashboard"]);
}

#[tokio::test]
async fn a_setting_that_is_taken_out_of_the_board_is_applied_although_the_rest_is_there() {
    let cluster = installed(json!({"telemetry": {"otlpEndpoint": "http://collector:4318"}})).await;
    cluster.edit(HARBOR, |board| board["spec"]["telemetry"] = json!({}));
    let (_, writes) = cluster.reconcile(HARBOR).await;
    let deployments = ["app", "dashboard", "metric-generator"].map(|name| format!("PATCH deployments/{name}"));
    assert_eq!(writes[0], "PATCH configmaps/config");
    assert_eq!(writes[1..4], deployments);
}

#[tokio::test]
async fn a_list_of_feeds_that_changes_is_applied_by_a_new_job_and_stops_nobody_if_it_fails() {
    let cluster = installed(json!({})).await;
    let before = cluster.list(JOBS);
    cluster.edit(HARBOR, |board| board["spec"]["feeds"] = json!([{"name": "orders", "table": "public.orders"}]));
    let (_, writes) = cluster.reconcile(HARBOR).await;
    let jobs = cluster.list(JOBS);
    let (new, old) = (jobs.iter().find(|job| !before.contains(job)), before.iter().find(|job| !jobs.contains(job)));
    let name = |job: Option<&String>| job.unwrap().rsplit_once('/').unwrap().1.to_owned();
    let change = [format!("DELETE jobs/{}", name(old)), format!("PATCH jobs/{}", name(new))];
    assert_eq!(writes[..2], change);
    assert!(writes[2..].iter().all(|write| write == "PATCH boards/harbor/status"), "{writes:?}");
    assert_eq!(condition(&cluster, HARBOR, "FeedsApplied")["reason"], "ApplyingFeeds");

    let gave_up = json!({"conditions": [{"type": "Failed", "status": "True", "message": "backoff limit"}]});
    cluster.edit(new.unwrap(), |job| job["status"] = gave_up);
    cluster.edit(HARBOR, |board| board["spec"]["dashboard"]["image"] = json!("dashboard:0.2.0"));
    let (_, writes) = cluster.reconcile(HARBOR).await;
    assert_eq!(writes[0], "PATCH deployments/dashboard", "a new version is rolled out all the same");
    assert_eq!(degraded(&cluster).0, "FeedsFailed");
    assert_eq!(condition(&cluster, HARBOR, "Available")["status"], "True");
    // Deleted, as the message says: it is made again.
    cluster.remove(new.unwrap());
    assert_eq!(cluster.reconcile(HARBOR).await.1[0], change[1]);
}

#[tokio::test]
async fn a_cluster_without_the_crd_makes_the_operator_unready_with_the_command_that_helps() {
    let (cluster, readiness, stop) =
        (Cluster::with(&harbor(json!({}))), runtime::Readiness::default(), CancellationToken::new());
    let ready = readiness.condition("crd");
    let (client, stopped) = (cluster.client(), stop.clone());
    let waiting = tokio::spawn(async move { wait_for_crd(&client, &ready, &stopped).await });
    let said = async {
        while !readiness.report().1.contains("kubectl apply --server-side -f k8s/crds") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), said).await.unwrap();
    assert!(!readiness.report().0);
    stop.cancel();
    assert!(!waiting.await.unwrap());
}

#[tokio::test]
async fn what_is_not_wanted_any_more_goes_but_neither_the_secret_nor_what_belongs_to_others() {
    let cluster = installed(json!({})).await;
    let job = |owners: Value| {
        let metadata = json!({"name": "old", "uid": "1", "labels": pod_labels("migrate"), "ownerReferences": owners});
        json!({"metadata": metadata, "spec": {"template": {}}})
    };
    let others = json!([{"apiVersion": "v1", "kind": "Board", "name": "harbor", "uid": "uid-of-another"}]);
    cluster.put(&format!("{JOBS}/old"), job(owners()));
    let mut copied = job(others);
    copied["metadata"]["name"] = json!("copied");
    cluster.put(&format!("{JOBS}/copied"), copied);
    cluster.edit(HARBOR, |board| board["spec"]["app"]["replicas"] = json!(1));
    let (_, writes) = cluster.reconcile(HARBOR).await;
    let deleted: Vec<_> = writes.iter().filter(|write| write.starts_with("DELETE")).collect();
    assert_eq!(deleted, ["DELETE poddisruptionbudgets/app", "DELETE jobs/old"]);

    cluster.edit(HARBOR, |board| board["spec"]["database"] = json!({"external": {"secretName": "elsewhere"}}));
    let (_, writes) = cluster.reconcile(HARBOR).await;
    assert!(writes.contains(&"DELETE statefulsets/postgres".to_owned()), "{writes:?}");
    assert!(!writes.iter().any(|write| write.contains("secrets") || write.contains("claims")), "{writes:?}");
    assert_ne!(cluster.get(SECRET), Value::Null);
}

#[tokio::test]
async fn a_refused_immutable_field_is_a_condition_and_keeps_nothing_from_running() {
    let cluster = installed(json!({})).await;
    cluster.refuse(
        POSTGRES,
        422,
        "Invalid",
        "spec: Forbidden: updates to statefulset spec for fields other than 'replicas' are forbidden",
    );
    cluster.edit(HARBOR, |board| {
        board["spec"]["app"]["replicas"] = json!(3);
        board["spec"]["database"]["postgres"]["image"] = json!("postgres:19");
    });
    let (result, writes) = cluster.reconcile(HARBOR).await;
    assert_eq!(result.unwrap(), Action::requeue(LOOK_AGAIN));
    let children: Vec<_> =
        writes.iter().filter(|write| !write.contains("boards") && !write.contains("events")).collect();
    assert_eq!(children, ["PATCH statefulsets/postgres", "PATCH deployments/app"]);
    let (reason, message) = degraded(&cluster);
    assert_eq!(reason, "ImmutableField");
    assert!(message.contains("StatefulSet postgres was left as it is"), "{message}");
    assert_eq!(condition(&cluster, HARBOR, "Available")["status"], "True");
}

#[tokio::test]
async fn a_volume_without_its_secret_never_gets_a_new_password() {
    let cluster = installed(json!({})).await;
    let claim = json!({"metadata": {"name": "data-postgres-0"}, "spec": {"storageClassName": "standard"}, "status": {"phase": "Bound"}});
    cluster.put(CLAIM, claim);
    let secret = cluster.get(SECRET);
    cluster.remove(SECRET);
    cluster.remove(&format!("{DEPLOYMENTS}/app"));
    let (result, writes) = cluster.reconcile(HARBOR).await;
    result.unwrap();
    assert!(!writes.iter().any(|write| write.contains("secrets")), "{writes:?}");
    assert!(writes.contains(&"PATCH deployments/app".to_owned()), "the rest is still healed: {writes:?}");
    let (reason, message) = degraded(&cluster);
    assert_eq!(reason, "SecretMissing");
    assert!(message.contains("data-postgres-0") && message.contains("restore the Secret"), "{message}");

    cluster.put(SECRET, secret);
    work(&cluster);
    cluster.reconcile(HARBOR).await.0.unwrap();
    assert_eq!(degraded(&cluster).0, "AsExpected");
}

#[tokio::test]
async fn without_the_secret_no_volume_is_made() {
    let cluster = Cluster::with(&harbor(json!({})));
    cluster.refuse("/api/v1/namespaces/quay/secrets", 403, "Forbidden", "exceeded quota: secrets");
    let (result, writes) = cluster.reconcile(HARBOR).await;
    assert!(matches!(result, Err(Error::Apply(_))));
    let children: Vec<_> = writes.iter().filter(|write| !write.contains("events")).collect();
    assert_eq!(children, ["POST secrets", "PATCH boards/harbor/status"]);
    let (reason, message) = degraded(&cluster);
    assert_eq!(reason, "ApplyFailed");
    assert!(message.contains("exceeded quota"), "{message}");
}

#[tokio::test]
async fn an_install_that_stopped_in_the_middle_is_finished() {
    let cluster = Cluster::with(&harbor(json!({})));
    cluster.refuse(POSTGRES, 500, "InternalError", "etcd is away");
    assert!(matches!(cluster.reconcile(HARBOR).await.0, Err(Error::Apply(_))));
    cluster.allow(POSTGRES);
    let secret = cluster.get(SECRET);
    for _ in 0..3 {
        cluster.reconcile(HARBOR).await.0.unwrap();
        work(&cluster);
    }
    cluster.reconcile(HARBOR).await.0.unwrap();
    assert_eq!(condition(&cluster, HARBOR, "Available")["status"], "True");
    assert_eq!(cluster.get(SECRET), secret);
}

#[tokio::test]
async fn a_younger_board_of_the_namespace_does_nothing() {
    let cluster = installed(json!({})).await;
    let mut younger = harbor(json!({}));
    younger.metadata.name = Some("anchor".into());
    younger.metadata.uid = Some("uid-of-anchor".into());
    younger.metadata.creation_timestamp = serde_json::from_value(json!("2026-11-21T09:00:00Z")).unwrap();
    let path = board_path(&younger);
    cluster.put(&path, serde_json::to_value(&younger).unwrap());
    let (result, writes) = cluster.reconcile(&path).await;
    result.unwrap();
    assert!(writes.iter().all(|write| write == "PATCH boards/anchor/status" || write.contains("events")), "{writes:?}");
    let degraded = condition(&cluster, &path, "Degraded");
    assert_eq!(degraded["reason"], "NamespaceOccupied");
    assert!(degraded["message"].as_str().unwrap().contains("harbor"));
    assert_eq!(cluster.reconcile(&path).await.1, Vec::<String>::new());
    assert_eq!(cluster.reconcile(HARBOR).await.1, Vec::<String>::new());
}

#[tokio::test]
async fn a_board_that_cannot_be_decoded_gets_an_event_and_is_left_alone() {
    let cluster = installed(json!({})).await;
    cluster.edit(HARBOR, |board| board["spec"]["app"]["replicas"] = json!("two"));
    let (result, writes) = cluster.reconcile(HARBOR).await;
    assert_eq!((result.unwrap(), writes), (Action::await_change(), vec!["POST events".to_owned()]));
}

#[tokio::test]
async fn a_board_that_is_being_deleted_makes_nothing() {
    let cluster = Cluster::with(&harbor(json!({})));
    cluster.edit(HARBOR, |board| board["metadata"]["deletionTimestamp"] = json!("2026-11-21T10:00:00Z"));
    assert_eq!(cluster.reconcile(HARBOR).await.1, Vec::<String>::new());
    assert_eq!(cluster.list(BOARDS).len(), 1);
}

#[test]
fn passwords_differ_and_fit_into_a_url() {
    let (one, other) = (password().unwrap(), password().unwrap());
    assert_ne!(one, other);
    assert_eq!(one.len(), PASSWORD);
    assert!(one.bytes().all(|byte| byte.is_ascii_alphanumeric()));
}
