//! What a Board says about what can go wrong: pure, from what was seen.

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, StatefulSet},
        batch::v1::Job,
        core::v1::Pod,
    },
    jiff::Timestamp,
};
use serde_json::{Value, json};

use crate::{
    board::BoardStatus,
    events::{Told, told},
    fixtures::{harbor, pod_labels},
    problem::{Problem, Reason},
    reconcile::{
        dereference::Seen,
        pods,
        resources::{Applied, Resources},
        status::status,
        validate::validate,
    },
};

fn pod(service: &str, name: &str, container: Value) -> Pod {
    let mut status = json!({"name": service, "image": "", "imageID": "", "ready": false, "restartCount": 0});
    status.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
    let pod = json!({
        "metadata": {"name": name, "labels": pod_labels(service)},
        "spec": {"containers": [{"name": service, "image": format!("{service}:0.9.9")}]},
        "status": {"phase": "Pending", "containerStatuses": [status]}
    });
    serde_json::from_value(pod).unwrap()
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({"state": {"waiting": {"reason": reason, "message": message}}})
}

/// The status of `harbor` at the second `at`, with `old` before it.
fn at(at: i64, old: Option<BoardStatus>, seen: &Seen, resources: &Resources<Applied>) -> BoardStatus {
    let mut board = harbor(json!({}));
    board.status = old;
    status(&board, resources, seen, Vec::new(), Timestamp::from_second(at).unwrap())
}

fn degraded(status: &BoardStatus) -> (&str, &str) {
    let condition = status.conditions.iter().find(|condition| condition.type_ == "Degraded").unwrap();
    (&condition.reason, &condition.message)
}

#[test]
fn each_thing_that_goes_wrong_has_its_reason_and_names_the_object() {
    let claim = |phase: &str, class: Value| {
        let claim = json!({"metadata": {"name": "data-postgres-0"}, "spec": {"storageClassName": class}, "status": {"phase": phase}});
        Seen { claim: Some(serde_json::from_value(claim).unwrap()), ..Seen::default() }
    };
    let pods = |pod: Pod| Seen { pods: vec![pod], ..Seen::default() };
    let missing_class = Seen { missing_class: Some("fast".into()), ..claim("Pending", json!("fast")) };
    let oom = json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}});
    let between = json!({"restartCount": 4, "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 2, "reason": "Error"}}});
    let refused = waiting("ImagePullBackOff", "Back-off pulling image \"app:0.9.9\": ErrImagePull: not found");
    let secret = waiting("CreateContainerConfigError", "couldn't find key url in Secret quay/postgres");
    let table: [(Seen, &str, &[&str]); 9] = [
        (pods(pod("app", "app-1", refused)), "ImageUnavailable", &["app-1", "app:0.9.9", "not found"]),
        (pods(pod("app", "app-1", waiting("InvalidImageName", "bad"))), "ImageUnavailable", &["app:0.9.9", "bad"]),
        (pods(pod("dashboard", "dashboard-1", secret)), "SecretMissing", &["dashboard-1", "key url"]),
        (pods(pod("dashboard", "dashboard-1", oom)), "CrashLoop", &["dashboard-1", "memory", "kubectl logs"]),
        (pods(pod("postgres", "postgres-0", between)), "CrashLoop", &["postgres-0", "exit code 2"]),
        (missing_class, "StorageUnavailable", &["data-postgres-0", "fast", "does not exist"]),
        (claim("Pending", Value::Null), "StorageUnavailable", &["no default"]),
        (claim("Lost", json!("standard")), "StorageUnavailable", &["data-postgres-0", "backup"]),
        (claim("Pending", json!("standard")), "AsExpected", &["nothing is wrong"]),
    ];
    for (seen, reason, words) in table {
        let status = at(0, None, &seen, &Resources::default());
        let (found, message) = degraded(&status);
        assert_eq!(found, reason, "{message}");
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    }
}

#[test]
fn a_failed_migration_says_how_to_try_again() {
    let job = json!({
        "metadata": {"name": "migrate-0123456789"}, "spec": {"template": {}},
        "status": {"conditions": [{"type": "Failed", "status": "True", "message": "it has reached the specified backoff limit"}]}
    });
    let jobs = vec![serde_json::from_value::<Job>(job).unwrap()];
    let status = at(0, None, &Seen::default(), &Resources { jobs, ..Resources::default() });
    let (reason, message) = degraded(&status);
    assert_eq!(reason, "MigrationFailed");
    assert!(
        ["kubectl logs job/migrate-0123456789", "delete the Job", "backoff limit"]
            .iter()
            .all(|word| message.contains(word))
    );
    assert_eq!(status.conditions[1].status, "False");
}

/// The conditions `Progressing`, `Degraded` and `FeedsApplied` of a Board whose migration is done, as (status, reason, message).
fn with_feeds(job: Option<Value>, pods: Vec<Pod>) -> [(String, String, String); 3] {
    let migration = json!({
        "metadata": {"name": "migrate-0123456789"}, "spec": {"template": {}},
        "status": {"conditions": [{"type": "Complete", "status": "True"}]}
    });
    let feeds =
        job.map(|status| json!({"metadata": {"name": "feeds-0123456789"}, "spec": {"template": {}}, "status": status}));
    let jobs = [Some(migration), feeds].into_iter().flatten().map(|job| serde_json::from_value(job).unwrap()).collect();
    let status = at(0, None, &Seen { pods, ..Seen::default() }, &Resources { jobs, ..Resources::default() });
    ["Progressing", "Degraded", "FeedsApplied"].map(|type_| {
        let one = status.conditions.iter().find(|condition| condition.type_ == type_).unwrap();
        (one.status.clone(), one.reason.clone(), one.message.clone())
    })
}

/// A pod of the Job, that ended at this minute with these words.
fn ended(minute: u8, code: i32, words: &str) -> Pod {
    let end = json!({"exitCode": code, "message": words, "finishedAt": format!("2026-11-21T10:{minute:02}:00Z")});
    let mut pod = pod("feeds", &format!("feeds-{minute}"), json!({"state": {"terminated": end}}));
    pod.metadata
        .labels
        .get_or_insert_default()
        .insert("batch.kubernetes.io/job-name".into(), "feeds-0123456789".into());
    pod
}

#[test]
fn feeds_that_are_being_applied_are_a_change_under_way_and_applied_ones_are_not() {
    let done = json!({"conditions": [{"type": "Complete", "status": "True"}]});
    let table = [
        (None, Vec::new(), ("True", "FeedsWait"), ("False", "FeedsWait")),
        (Some(json!({})), Vec::new(), ("True", "ApplyingFeeds"), ("False", "ApplyingFeeds")),
        (Some(json!({})), vec![ended(1, 1, "error: away")], ("True", "ApplyingFeeds"), ("False", "ApplyingFeeds")),
        (Some(done), vec![ended(1, 1, "error: away"), ended(2, 0, "")], ("False", "Settled"), ("True", "Applied")),
    ];
    for (job, pods, change, feeds) in table {
        let [progressing, degraded, applied] = with_feeds(job, pods);
        assert_eq!((progressing.0.as_str(), progressing.1.as_str()), change);
        assert_eq!((applied.0.as_str(), applied.1.as_str()), feeds);
        assert_eq!(degraded.1, "AsExpected");
    }
}

#[test]
fn feeds_that_cannot_be_applied_are_told_in_the_words_of_the_last_try() {
    let failed = || {
        Some(
            json!({"conditions": [{"type": "Failed", "status": "True", "message": "it has reached the specified backoff limit"}]}),
        )
    };
    let tries = vec![
        ended(2, 1, "orders: added\nerror: open: column \"state\" does not exist\n"),
        ended(1, 1, "error: the database is away"),
    ];
    let [progressing, degraded, applied] = with_feeds(failed(), tries);
    assert_eq!(progressing.0, "False", "nothing more is tried");
    assert_eq!((degraded.0.as_str(), degraded.1.as_str()), ("True", "FeedsFailed"));
    assert_eq!((applied.0.as_str(), applied.1.as_str()), ("False", "FeedsFailed"));
    assert_eq!(applied.2, degraded.2);
    for words in [
        "feeds-0123456789",
        "into the database: open: column \"state\" does not exist; mend spec.feeds",
        "delete the Job",
    ] {
        assert!(applied.2.contains(words), "{}", applied.2);
    }
    for silent in [Vec::new(), vec![ended(1, 137, "")]] {
        let [_, _, applied] = with_feeds(failed(), silent);
        assert!(applied.2.contains("backoff limit"), "{}", applied.2);
    }
}

#[test]
fn the_words_stay_the_same_while_a_pod_waits_for_the_next_try() {
    let cause = "failed to pull: not found";
    let tries = [
        waiting("ErrImagePull", cause),
        waiting("ImagePullBackOff", &format!("Back-off pulling image \"app:0.9.9\": ErrImagePull: {cause}")),
    ];
    let [one, other] = tries.map(|state| pods::problems(&[pod("app", "app-1", state)]));
    assert_eq!(one, other);
    let runs = json!({"restartCount": 5, "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 1}}});
    let waits = json!({"restartCount": 5, "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 1}}});
    let [one, other] = [runs, waits].map(|state| pods::problems(&[pod("app", "app-1", state)]));
    assert_eq!(one, other);
}

#[test]
fn the_same_trouble_of_two_pods_is_told_once_and_that_of_a_pod_that_goes_not_at_all() {
    let bad = || waiting("ErrImagePull", "not found");
    let mut going = pod("dashboard", "dashboard-1", bad());
    going.metadata.deletion_timestamp = serde_json::from_value(json!("2026-11-21T10:00:00Z")).unwrap();
    let found = pods::problems(&[pod("app", "app-2", bad()), pod("app", "app-1", bad()), going]);
    assert_eq!(found.len(), 1);
    assert!(found[0].message.contains("app-1"));
}

#[test]
fn the_same_sight_gives_the_same_status_and_a_transition_keeps_its_time() {
    let (fine, seen) = (Seen { connections: Some(7), ..Seen::default() }, Resources::default());
    let first = at(100, None, &fine, &seen);
    assert_eq!(at(200, Some(first.clone()), &fine, &seen), first);

    let broken = Seen { pods: vec![pod("app", "app-1", waiting("ErrImagePull", "not found"))], ..Seen::default() };
    let second = at(300, Some(first.clone()), &broken, &seen);
    let times = |status: &BoardStatus| {
        status.conditions.iter().map(|one| one.last_transition_time.0.as_second()).collect::<Vec<_>>()
    };
    assert_eq!((times(&first), times(&second)), (vec![100; 4], vec![100, 100, 300, 100]));
    assert_eq!(second.connections, Some(7), "the last answer stays while nobody answers");
}

#[test]
fn a_new_trouble_and_its_end_are_events_and_what_is_known_is_not() {
    let resources = Resources::default();
    let broken = Seen { pods: vec![pod("app", "app-1", waiting("ErrImagePull", "not found"))], ..Seen::default() };
    let fine = at(0, None, &Seen::default(), &resources);
    let bad = at(1, Some(fine.clone()), &broken, &resources);
    let [event] = &told(&fine, &bad)[..] else { panic!("one event") };
    assert_eq!((event.warning, event.reason.as_str()), (true, "ImageUnavailable"));
    assert_eq!(told(&bad, &bad), []);
    let mended = Told { warning: false, reason: "Recovered".into(), note: "nothing is wrong any more".into() };
    assert_eq!(told(&bad, &fine), [mended]);
}

#[test]
fn a_spec_that_came_through_an_older_crd_is_refused_in_sentences() {
    let spec = json!({
        "app": {"replicas": 0}, "metricGenerator": {"serverCount": 1001, "replicas": 0}, "dashboard": {"drainSeconds": 900, "resources": {"limits": {"memory": "much"}}}, "database": {}
    });
    let problems = validate(&harbor(spec), &Seen::default()).unwrap_err();
    assert!(problems.iter().all(|problem| problem.reason == Reason::InvalidSpec));
    let words = [
        "app.replicas",
        "metricGenerator.replicas",
        "metricGenerator.serverCount",
        "dashboard.drainSeconds",
        "resources",
        "exactly one of postgres and external",
    ];
    let told = |word: &&str| problems.iter().any(|Problem { message, .. }| message.contains(word));
    assert!(words.iter().all(told) && problems.len() == words.len(), "{problems:?}");
}

#[test]
fn a_board_is_available_without_metric_generators_and_not_without_dashboards() {
    let deployment = |name: &str| -> Deployment {
        serde_json::from_value(json!({"metadata": {"name": name}, "status": {"readyReplicas": 1}})).unwrap()
    };
    let database: StatefulSet = serde_json::from_value(
        json!({"metadata": {"name": "postgres"}, "status": {"replicas": 1, "readyReplicas": 1}}),
    )
    .unwrap();
    let available = |names: &[&str]| {
        let deployments = names.iter().map(|name| deployment(name)).collect();
        let resources = Resources { deployments, stateful_sets: vec![database.clone()], ..Resources::default() };
        let status = at(0, None, &Seen::default(), &resources);
        let available = status.conditions.iter().find(|condition| condition.type_ == "Available").unwrap();
        (available.status.clone(), available.message.clone())
    };
    assert_eq!(available(&["app", "dashboard"]), ("True".into(), "users are served".into()));
    assert_eq!(available(&["app", "metric-generator"]), ("False".into(), "no ready replica of dashboard".into()));
}
