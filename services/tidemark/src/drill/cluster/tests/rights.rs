use std::{collections::BTreeSet, fs};

use clap::ValueEnum;
use serde_json::Value;

use super::{ClusterFault, args, world::World};
use crate::drill::{
    args::tests::plan,
    cluster::{Error, Rule},
};

const VERBS: [&str; 5] = ["get", "list", "patch", "delete", "create"];

#[tokio::test(start_paused = true)]
async fn a_missing_right_is_named_with_its_fault_before_anything_is_done() {
    let world = World::with_board();
    world.state().forbidden = ["patch nodes", "create pods", "patch boards"].into();
    let cluster = world.cluster(&args(""));
    let error = cluster.check(ClusterFault::value_variants()).await.unwrap_err();
    assert!(matches!(error, Error::Forbidden(_)), "{error}");
    let expected = "this account may not do the faults; it lacks:
  patch nodes in the cluster (drain)
  create pods/eviction in the cluster (drain)
  patch boards/scale.tidemark.dev harbor in namespace quay (scale)
k8s/samples/drill-job.yaml has all rules";
    assert_eq!(error.to_string(), expected);
    assert_eq!(world.writes(), Vec::<String>::new());
    cluster.check(&[ClusterFault::PodDelete, ClusterFault::DatabaseDelete]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn only_what_a_fault_does_is_asked_for() {
    let world = World::with_board();
    world.cluster(&args("")).check(&[ClusterFault::Rollout]).await.unwrap();
    let asked: Vec<String> = world
        .state()
        .reviewed
        .iter()
        .map(|asked| {
            let text = |field: &str| asked[field].as_str().unwrap_or("-").to_owned();
            [text("verb"), text("group"), text("resource"), text("name"), text("namespace")].join(" ")
        })
        .collect();
    assert_eq!(
        asked,
        ["list  pods - quay", "get apps deployments dashboard quay", "patch apps deployments dashboard quay"]
    );
}

/// The rules that a Role or ClusterRole of the manifest gives.
fn given(role: &Value) -> impl Iterator<Item = Rule> {
    let namespace = role["metadata"]["namespace"].as_str().map(str::to_owned);
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    role["rules"].as_array().unwrap().iter().flat_map(move |rule| {
        let mut names: Vec<_> = texts(&rule["resourceNames"]).into_iter().map(Some).collect();
        if names.is_empty() {
            names.push(None);
        }
        let mut rules = Vec::new();
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for name in &names {
                    for verb in texts(&rule["verbs"]) {
                        let verb = VERBS.into_iter().find(|known| *known == verb).expect("no other verb is needed");
                        let (namespace, group, resource, name) =
                            (namespace.clone(), group.clone(), resource.clone(), name.clone());
                        rules.push(Rule { namespace, group, resource, name, verb });
                    }
                }
            }
        }
        rules
    })
}

fn sample() -> Vec<Value> {
    // Cargo runs tests in the folder of their package.
    let yaml = fs::read_to_string("../../k8s/samples/drill-job.yaml").unwrap();
    serde_saphyr::from_multiple(&yaml).unwrap()
}

fn of<'a>(documents: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    documents.iter().filter(move |document| document["kind"] == kind)
}

#[tokio::test(start_paused = true)]
async fn the_sample_gives_exactly_what_the_check_asks_for() {
    let sample = sample();
    let roles = of(&sample, "Role").chain(of(&sample, "ClusterRole"));
    let given: Vec<Rule> = roles.flat_map(given).collect();
    let once: BTreeSet<Rule> = given.iter().cloned().collect();
    assert_eq!(given.len(), once.len(), "a rule stands there twice");

    let world = World::with_board();
    world.state().set("dashboard").namespace = "tidemark";
    world.state().set("dashboard").owner = Some("tidemark");
    let cluster = world.cluster(&args("--namespace tidemark"));
    let scaler = cluster.scaler().await.unwrap();
    let needed: BTreeSet<Rule> = cluster.rules(ClusterFault::value_variants(), Some(&scaler)).into_keys().collect();
    assert_eq!(once, needed);
}

#[test]
fn the_sample_binds_each_role_to_the_account_of_its_job() {
    let sample = sample();
    let job = of(&sample, "Job").next().unwrap();
    let account = of(&sample, "ServiceAccount").next().unwrap();
    assert_eq!(job["spec"]["template"]["spec"]["serviceAccountName"], account["metadata"]["name"]);
    for (role, binding) in [("Role", "RoleBinding"), ("ClusterRole", "ClusterRoleBinding")] {
        let whose = |object: &Value| (object["metadata"]["namespace"].clone(), object["metadata"]["name"].clone());
        let roles: Vec<_> = of(&sample, role).map(whose).collect();
        let bound: Vec<_> = of(&sample, binding)
            .map(|binding| {
                assert_eq!(binding["roleRef"]["kind"], role);
                let subject = &binding["subjects"][0];
                assert_eq!(
                    (&subject["kind"], &subject["name"]),
                    (&"ServiceAccount".into(), &account["metadata"]["name"])
                );
                assert_eq!(subject["namespace"], account["metadata"]["namespace"]);
                (binding["metadata"]["namespace"].clone(), binding["roleRef"]["name"].clone())
            })
            .collect();
        assert_eq!(roles, bound);
    }
}

#[test]
fn the_samples_job_waits_for_a_word_and_its_pod_may_do_nothing_but_ask() {
    let sample = sample();
    let spec = &of(&sample, "Job").next().unwrap()["spec"];
    // `kubectl apply -f k8s/samples` must not drain a worker.
    assert_eq!(spec["suspend"], true);
    let pod = &spec["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let container = &pod["containers"][0]["securityContext"];
    assert_eq!(container["readOnlyRootFilesystem"], true);
    assert_eq!(container["allowPrivilegeEscalation"], false);
    assert_eq!(container["capabilities"]["drop"][0], "ALL");
    let flags: Vec<_> =
        pod["containers"][0]["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
    let plan = plan(&flags[1..].join(" ")).unwrap();
    assert!(plan.faults.iter().any(|fault| fault.name() == "drain"));
    assert_eq!((flags[0], flags.contains(&"--kube")), ("drill", true));
}
