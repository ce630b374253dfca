//! The chart `tidemark-operator`: what it renders, what it refuses, and what it says about its values.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, fs};

use charts::{Chart, parse, root, undescribed, undocumented};
use serde_json::{Value, json};

const CHART: Chart = Chart("tidemark-operator");

/// The labels of every object of the release `harbor`.
fn labels() -> Value {
    json!({
        "app.kubernetes.io/name": "operator",
        "app.kubernetes.io/instance": "harbor",
        "app.kubernetes.io/part-of": "tidemark",
        "app.kubernetes.io/managed-by": "Helm",
        "app.kubernetes.io/version": env!("CARGO_PKG_VERSION"),
        "helm.sh/chart": concat!("tidemark-operator-", env!("CARGO_PKG_VERSION")),
    })
}

#[test]
#[ignore = "needs helm"]
fn each_template_makes_the_object_of_its_name_and_nothing_else() {
    let made = [
        "templates/clusterrole.yaml ClusterRole/tidemark-operator",
        "templates/clusterrolebinding.yaml ClusterRoleBinding/tidemark-operator",
        "templates/crds.yaml CustomResourceDefinition/boards.tidemark.dev",
        "templates/deployment.yaml Deployment/operator",
        "templates/serviceaccount.yaml ServiceAccount/operator",
    ];
    assert_eq!(CHART.render(&json!({})).contents(), made);
}

#[test]
#[ignore = "needs helm"]
fn the_deployment_is_one_hardened_pod_that_replaces_itself() {
    let expected = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": "operator", "namespace": "quay", "labels": labels() },
        "spec": {
            "replicas": 1,
            "strategy": { "type": "Recreate" },
            "selector": {
                "matchLabels": { "app.kubernetes.io/name": "operator", "app.kubernetes.io/instance": "harbor" },
            },
            "template": {
                "metadata": { "labels": labels() },
                "spec": {
                    "serviceAccountName": "operator",
                    "automountServiceAccountToken": true,
                    "enableServiceLinks": false,
                    "securityContext": {
                        "runAsNonRoot": true,
                        "runAsUser": 65532,
                        "runAsGroup": 65532,
                        "seccompProfile": { "type": "RuntimeDefault" },
                    },
                    "containers": [{
                        "name": "operator",
                        "image": concat!("operator:", env!("CARGO_PKG_VERSION")),
                        "imagePullPolicy": "IfNotPresent",
                        "env": [
                            { "name": "HOST", "value": "0.0.0.0" },
                            { "name": "ADMIN_PORT", "value": "9090" },
                            { "name": "REPLICA_NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                            { "name": "RUST_LOG", "value": "info" },
                            { "name": "LOG_FORMAT", "value": "json" },
                        ],
                        "ports": [{ "name": "admin", "containerPort": 9090 }],
                        "livenessProbe": {
                            "httpGet": { "path": "/healthz", "port": "admin" },
                            "periodSeconds": 10,
                            "failureThreshold": 3,
                        },
                        "readinessProbe": { "httpGet": { "path": "/readyz", "port": "admin" }, "periodSeconds": 5 },
                        "resources": {
                            "requests": { "cpu": "50m", "memory": "64Mi" },
                            "limits": { "memory": "256Mi" },
                        },
                        "securityContext": {
                            "allowPrivilegeEscalation": false,
                            "readOnlyRootFilesystem": true,
                            "capabilities": { "drop": ["ALL"] },
                        },
                    }],
                },
            },
        },
    });
    assert_eq!(CHART.render(&json!({})).only("Deployment"), &expected);
}

#[test]
#[ignore = "needs helm"]
fn every_value_reaches_the_pod() {
    let affinity = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["pier"] }] }],
    } } });
    let tolerations = json!([{ "key": "tide", "operator": "Equal", "value": "low", "effect": "NoSchedule" }]);
    let values = json!({
        "image": { "repository": "registry.example:5000/live/operator", "tag": "7.1", "pullPolicy": "Always" },
        "imagePullSecrets": [{ "name": "gangway" }],
        "logFilter": "warn,operator=trace",
        "otlpEndpoint": "http://collector.example:4318",
        "resources": { "requests": { "cpu": 2 }, "limits": { "memory": "1Gi", "ephemeral-storage": "2Gi" } },
        "nodeSelector": { "deck": "upper" },
        "tolerations": tolerations,
        "affinity": affinity,
        "podLabels": { "crew": "night", "app.kubernetes.io/name": "impostor" },
        "podAnnotations": { "log": "book" },
    });
    let rendered = CHART.render(&values);
    let template = &rendered.only("Deployment")["spec"]["template"];
    let (pod, container) = (&template["spec"], &template["spec"]["containers"][0]);

    assert_eq!(container["image"], "registry.example:5000/live/operator:7.1");
    assert_eq!(container["imagePullPolicy"], "Always");
    assert_eq!(pod["imagePullSecrets"], json!([{ "name": "gangway" }]));
    assert_eq!(container["env"][3], json!({ "name": "RUST_LOG", "value": "warn,operator=trace" }));
    let endpoint = json!({ "name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector.example:4318" });
    assert_eq!(container["env"][5], endpoint);
    let resources = json!({
        "requests": { "cpu": 2, "memory": "64Mi" },
        "limits": { "memory": "1Gi", "ephemeral-storage": "2Gi" },
    });
    assert_eq!(container["resources"], resources);
    assert_eq!(pod["nodeSelector"], json!({ "deck": "upper" }));
    assert_eq!(pod["tolerations"], tolerations);
    assert_eq!(pod["affinity"], affinity);
    assert_eq!(template["metadata"]["annotations"], json!({ "log": "book" }));
    // The chart's own labels win: otherwise the selector would not find the pod.
    let mut expected = labels();
    expected["crew"] = json!("night");
    assert_eq!(template["metadata"]["labels"], expected);
}

#[test]
#[ignore = "needs helm"]
fn the_service_account_gives_no_token_unasked_and_is_bound_to_the_role() {
    let rendered = CHART.render(&json!({}));
    let account = json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": { "name": "operator", "namespace": "quay", "labels": labels() },
        "automountServiceAccountToken": false,
    });
    assert_eq!(rendered.only("ServiceAccount"), &account);
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": { "name": "tidemark-operator", "labels": labels() },
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "tidemark-operator",
        },
        "subjects": [{ "kind": "ServiceAccount", "name": "operator", "namespace": "quay" }],
    });
    assert_eq!(rendered.only("ClusterRoleBinding"), &binding);
}

#[test]
#[ignore = "needs helm"]
fn the_operator_may_do_exactly_this() {
    let child = "get list watch create patch delete";
    let expected = BTreeMap::from([
        ("tidemark.dev/boards", "get list watch"),
        ("tidemark.dev/boards/status", "patch"),
        ("tidemark.dev/boards/finalizers", "update"),
        ("apps/deployments", child),
        ("apps/statefulsets", child),
        ("/services", child),
        ("/configmaps", child),
        ("/serviceaccounts", child),
        ("policy/poddisruptionbudgets", child),
        ("networking.k8s.io/ingresses", child),
        ("networking.k8s.io/networkpolicies", child),
        ("batch/jobs", child),
        // Never changed, never deleted: the password outlives the Board as the volume does.
        ("/secrets", "get list watch create"),
        ("/persistentvolumeclaims", "get list watch"),
        ("/pods", "get list watch"),
        ("storage.k8s.io/storageclasses", "get"),
        ("events.k8s.io/events", "create patch"),
    ]);
    let rendered = CHART.render(&json!({}));
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
    };
    let mut found = BTreeMap::new();
    for rule in rendered.only("ClusterRole")["rules"].as_array().unwrap() {
        for (group, resource) in strings(&rule["apiGroups"])
            .iter()
            .flat_map(|group| strings(&rule["resources"]).into_iter().map(move |resource| (group.clone(), resource)))
        {
            let twice = found.insert(format!("{group}/{resource}"), strings(&rule["verbs"]).join(" "));
            assert_eq!(twice, None, "{resource} is in two rules");
        }
    }
    let expected: BTreeMap<_, _> =
        expected.into_iter().map(|(key, verbs)| (key.to_owned(), verbs.to_owned())).collect();
    assert_eq!(found, expected);
}

#[test]
fn every_rule_says_which_feature_needs_it() {
    let role = CHART.file("templates/clusterrole.yaml");
    let lines: Vec<_> = role.lines().skip_while(|line| *line != "rules:").collect();
    let rules: Vec<_> = (1..lines.len()).filter(|&at| lines[at].starts_with("  - ")).collect();
    assert!(rules.len() > 10, "{} rules found", rules.len());
    for at in rules {
        let comment = lines[at - 1].strip_prefix("  # ").unwrap_or_default();
        assert!(comment.len() > 20, "no comment above the rule with {}", lines[at + 1].trim());
    }
}

#[test]
#[ignore = "needs helm"]
fn the_custom_resource_is_the_generated_one_and_outlives_the_release() {
    let mut expected = CHART.yaml("files/boards.yaml");
    expected["metadata"]["labels"] = labels();
    let rendered = |crds: Value| CHART.render(&json!({ "crds": crds }));
    assert_eq!(rendered(json!({ "keep": false })).only("CustomResourceDefinition"), &expected);
    expected["metadata"]["annotations"] = json!({ "helm.sh/resource-policy": "keep" });
    assert_eq!(rendered(json!({})).only("CustomResourceDefinition"), &expected);
    let contents = rendered(json!({ "install": false })).contents();
    assert!(contents.iter().all(|line| !line.contains("CustomResourceDefinition")), "{contents:?}");
}

#[test]
fn the_chart_has_the_same_custom_resource_as_the_folder_k8s() {
    let path = root().join("k8s/crds/boards.yaml");
    let generated = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let help = "run `cargo run -p operator -- crds`";
    assert_eq!(parse(&CHART.file("files/boards.yaml")), parse(&generated), "{help}");
}

#[test]
#[ignore = "needs helm"]
fn a_wrong_value_is_refused_with_its_name() {
    let cases = [
        (json!({ "replicas": 2 }), "additional properties 'replicas' not allowed"),
        (json!({ "image": { "tga": "1" } }), "at '/image': additional properties 'tga' not allowed"),
        (json!({ "image": { "tag": 1.5 } }), "at '/image/tag': got number, want string"),
        (json!({ "image": { "repository": "" } }), "at '/image/repository'"),
        (json!({ "image": { "pullPolicy": "Sometimes" } }), "at '/image/pullPolicy': value must be one of"),
        (json!({ "imagePullSecrets": ["gangway"] }), "at '/imagePullSecrets/0': got string, want object"),
        (json!({ "crds": { "keep": "yes" } }), "at '/crds/keep': got string, want boolean"),
        (json!({ "crds": null }), "missing property 'crds'"),
        (json!({ "logFilter": "" }), "at '/logFilter'"),
        (json!({ "otlpEndpoint": "collector:4318" }), "at '/otlpEndpoint'"),
        (json!({ "resources": { "limits": { "memroy": "1Gi" } } }), "at '/resources/limits'"),
        (json!({ "resources": { "limits": { "memory": "1GB" } } }), "at '/resources/limits/memory'"),
        (json!({ "nodeSelector": { "disk": true } }), "at '/nodeSelector/disk': got boolean, want string"),
        (json!({ "tolerations": [{ "effect": "No" }] }), "at '/tolerations/0/effect': value must be one of"),
        (json!({ "affinity": { "nodes": {} } }), "at '/affinity': additional properties 'nodes' not allowed"),
    ];
    for (values, reason) in cases {
        let message = CHART.refusal(&values);
        assert!(message.contains(reason), "{values} should be refused with {reason:?}, not with {message}");
    }
}

#[test]
#[ignore = "needs helm"]
fn a_kubernetes_that_is_too_old_is_refused() {
    assert!(CHART.on_kubernetes("1.33.0").is_ok());
    let message = CHART.on_kubernetes("1.32.9").unwrap_err();
    assert!(message.contains("requires kubeVersion"), "{message}");
}

#[test]
#[ignore = "needs helm"]
fn the_notes_name_the_next_commands() {
    let notes = CHART.notes(&json!({}));
    for command in
        ["kubectl --namespace quay wait --for=condition=Available deployment/operator", "helm install tidemark"]
    {
        assert!(notes.contains(command), "{command:?} is not in {notes}");
    }
    assert!(!notes.contains("crds.install"), "{notes}");
    let notes = CHART.notes(&json!({ "crds": { "install": false } }));
    assert!(notes.contains("crds.install is false"), "{notes}");
}

#[test]
#[ignore = "needs helm"]
fn a_strict_lint_finds_nothing() {
    assert_eq!(CHART.complaints(), "");
}

#[test]
fn every_value_is_commented_described_and_in_the_table() {
    assert_eq!(undocumented(CHART), [""; 0]);
}

#[test]
fn the_schema_lets_no_unknown_key_through() {
    // What Kubernetes checks itself, and what Helm fills.
    let open = ["nodeAffinity", "podAffinity", "podAntiAffinity"].map(|key| format!("/affinity/{key}"));
    let open: Vec<_> = open.iter().map(String::as_str).chain(["/global"]).collect();
    assert_eq!(undescribed(&CHART.yaml("values.schema.json"), &open), [""; 0]);
}

#[test]
fn the_chart_has_the_version_of_the_workspace() {
    let (chart, version) = (CHART.yaml("Chart.yaml"), json!(env!("CARGO_PKG_VERSION")));
    assert_eq!((&chart["version"], &chart["appVersion"]), (&version, &version));
}
