//! The chart `tidemark-board`: what it renders, what it refuses, and what it says about its values.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use charts::{Chart, default_at, leaves, spec_schema, undescribed, undocumented, violations};
use serde_json::{Value, json};

const CHART: Chart = Chart("tidemark-board");

/// The labels of every object of the chart; `name` says what it is.
fn labels(name: &str) -> Value {
    json!({
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/part-of": "tidemark",
        "app.kubernetes.io/managed-by": "Helm",
        "app.kubernetes.io/version": env!("CARGO_PKG_VERSION"),
        "helm.sh/chart": concat!("tidemark-board-", env!("CARGO_PKG_VERSION")),
    })
}

/// Every value with one database, and none of them a default.
fn full() -> Value {
    json!({
        "name": "pier",
        "host": "board.example",
        "ingress": {
            "className": "heron",
            "annotations": { "heron.example/retry": "3" },
            "tlsSecretName": "board-certificate",
            "port": 8443,
        },
        "app": {
            "image": "registry.example:5000/app@sha256:0123",
            "replicas": 3,
            "resources": { "requests": { "cpu": 1 } },
        },
        "dashboard": {
            "image": "registry.example:5000/dashboard:7.1",
            "replicas": 100,
            "drainSeconds": 0,
            "allowedOrigins": ["https://wall.example", "http://localhost:5173"],
            "resources": { "limits": { "memory": "1Gi" } },
        },
        "metricGenerator": {
            "image": "registry.example:5000/metric-generator:7.1",
            "replicas": 4,
            "serverCount": 1000,
            "retention": "7d",
            "resources": { "requests": { "cpu": "200m" } },
        },
        "feeds": [
            { "name": "orders", "table": "public.orders" },
            { "name": "open", "table": "sales.\"Orders\"", "where": "status = 'open' AND note <> '{{ x }}'" },
        ],
        "tidemark": { "image": "registry.example:5000/tidemark:7.1" },
        "database": {
            "postgres": {
                "image": "postgres:17.9",
                "storage": { "size": "20Gi", "className": "fast" },
                "resources": { "requests": { "memory": "2Gi" } },
            },
        },
        "imagePullPolicy": "Always",
        "imagePullSecrets": [{ "name": "gangway" }],
        "telemetry": { "logFilter": "warn", "otlpEndpoint": "http://collector.example:4318" },
    })
}

/// The spec of the Board that these values make.
fn spec(values: &Value) -> Value {
    CHART.render(values).only("Board")["spec"].clone()
}

#[test]
#[ignore = "needs helm"]
fn each_template_makes_the_object_of_its_name_and_nothing_else() {
    let made = ["templates/board.yaml Board/harbor", "templates/tests/check.yaml Pod/check"];
    assert_eq!(CHART.render(&json!({})).contents(), made);
}

#[test]
#[ignore = "needs helm"]
fn without_values_the_board_has_the_name_of_the_release_and_says_little() {
    let mut labels = labels("board");
    labels["app.kubernetes.io/instance"] = json!("harbor");
    let expected = json!({
        "apiVersion": "tidemark.dev/v1alpha1",
        "kind": "Board",
        "metadata": { "name": "harbor", "namespace": "quay", "labels": labels },
        "spec": {
            "ingress": { "className": "traefik", "port": 443 },
            "app": { "replicas": 2 },
            "dashboard": { "replicas": 2, "drainSeconds": 10 },
            "metricGenerator": { "replicas": 2, "serverCount": 3, "retention": "24h" },
            "database": { "postgres": {} },
            "imagePullPolicy": "IfNotPresent",
            "telemetry": { "logFilter": "info" },
        },
    });
    assert_eq!(CHART.render(&json!({})).only("Board"), &expected);
}

#[test]
#[ignore = "needs helm"]
fn every_value_reaches_the_board() {
    let mut labels = labels("board");
    labels["app.kubernetes.io/instance"] = json!("pier");
    let mut values = full();
    let spec = values.as_object_mut().unwrap();
    spec.remove("name");
    let expected = json!({
        "apiVersion": "tidemark.dev/v1alpha1",
        "kind": "Board",
        "metadata": { "name": "pier", "namespace": "quay", "labels": labels },
        "spec": spec,
    });
    assert_eq!(CHART.render(&full()).only("Board"), &expected);
}

#[test]
#[ignore = "needs helm"]
fn a_secret_with_an_address_takes_the_place_of_postgres() {
    let database = json!({ "external": { "secretName": "moored" } });
    assert_eq!(spec(&json!({ "database": database }))["database"], database);
}

#[test]
#[ignore = "needs helm"]
fn replicas_of_dashboards_can_be_left_to_others() {
    assert_eq!(spec(&json!({ "dashboard": { "replicas": null } }))["dashboard"], json!({ "drainSeconds": 10 }));
}

#[test]
#[ignore = "needs helm"]
fn defaults_are_those_of_the_custom_resource() {
    let schema = spec_schema(&Chart("tidemark-operator").yaml("files/boards.yaml"));
    let rendered = spec(&json!({}));
    for (path, value) in leaves(&rendered) {
        // `postgres: {}` chooses the database; what is in it is left to the custom resource.
        if path != "database.postgres" {
            assert_eq!(default_at(&schema, &path), Some(&value), "default of {path}");
        }
    }
}

#[test]
#[ignore = "needs helm"]
fn boards_pass_the_schema_of_the_custom_resource() {
    let schema = spec_schema(&Chart("tidemark-operator").yaml("files/boards.yaml"));
    let external = json!({ "database": { "external": { "secretName": "moored" } } });
    for values in [json!({}), full(), external] {
        assert_eq!(violations(&schema, &spec(&values)), [""; 0], "{values}");
    }
    // The schema is strict: a field that it does not know is seen.
    assert!(!violations(&schema, &json!({ "hots": "board.example" })).is_empty());
}

#[test]
#[ignore = "needs helm"]
fn helm_test_runs_a_hardened_pod_that_the_operator_does_not_take_for_its_own() {
    let mut expected = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "check",
            "namespace": "quay",
            "labels": labels("check"),
            "annotations": { "helm.sh/hook": "test", "helm.sh/hook-delete-policy": "before-hook-creation" },
        },
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "seccompProfile": { "type": "RuntimeDefault" },
            },
            "containers": [{
                "name": "check",
                "image": concat!("tidemark:", env!("CARGO_PKG_VERSION")),
                "imagePullPolicy": "IfNotPresent",
                "args": ["check", "--app", "http://app", "--dashboard", "http://dashboard"],
                "resources": { "requests": { "cpu": "10m", "memory": "16Mi" }, "limits": { "memory": "64Mi" } },
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": { "drop": ["ALL"] },
                },
            }],
        },
    });
    assert_eq!(CHART.render(&json!({})).only("Pod"), &expected);

    expected["spec"]["imagePullSecrets"] = json!([{ "name": "gangway" }]);
    let container = &mut expected["spec"]["containers"][0];
    container["image"] = json!("registry.example:5000/tidemark:7.1");
    container["imagePullPolicy"] = json!("Always");
    assert_eq!(CHART.render(&full()).only("Pod"), &expected);
}

#[test]
#[ignore = "needs helm"]
fn a_wrong_value_is_refused_with_its_name() {
    let cases = [
        (json!({ "hots": "board.example" }), "additional properties 'hots' not allowed"),
        (json!({ "ingress": { "prot": 80 } }), "at '/ingress': additional properties 'prot' not allowed"),
        (json!({ "ingress": { "port": 65536 } }), "at '/ingress/port': maximum: got 65,536, want 65,535"),
        (json!({ "ingress": { "className": "" } }), "at '/ingress/className'"),
        (json!({ "ingress": { "annotations": { "retry": 3 } } }), "at '/ingress/annotations/retry': got number"),
        (json!({ "name": "Pier" }), "at '/name'"),
        (json!({ "host": "Board.example" }), "at '/host'"),
        (json!({ "host": "board..example" }), "at '/host'"),
        (json!({ "host": "a".repeat(254) }), "at '/host'"),
        (json!({ "app": null }), "missing property 'app'"),
        (json!({ "app": { "replicas": 0 } }), "at '/app/replicas': minimum: got 0, want 1"),
        (json!({ "app": { "replicas": "two" } }), "at '/app/replicas': got string, want integer"),
        (json!({ "dashboard": { "replicas": 500 } }), "at '/dashboard/replicas': maximum: got 500, want 100"),
        (json!({ "dashboard": { "drainSeconds": 301 } }), "at '/dashboard/drainSeconds': maximum: got 301"),
        (json!({ "dashboard": { "allowedOrigins": ["wall.example"] } }), "at '/dashboard/allowedOrigins/0'"),
        (json!({ "dashboard": { "resources": { "limits": { "memory": "1GB" } } } }), "at '/dashboard/resources/limits"),
        (json!({ "app": { "resources": { "requests": { "cpu": 1.5 } } } }), "at '/app/resources/requests/cpu'"),
        (json!({ "database": { "postgres": { "storage": { "size": "0" } } } }), "at '/database/postgres/storage/size'"),
        (json!({ "database": { "external": { "url": "x" } } }), "additional properties 'url' not allowed"),
        (json!({ "imagePullPolicy": "Sometimes" }), "at '/imagePullPolicy': value must be one of"),
        (json!({ "imagePullSecrets": [{ "nmae": "x" }] }), "at '/imagePullSecrets/0'"),
        (json!({ "telemetry": { "logFilter": 3 } }), "at '/telemetry/logFilter': got number, want string"),
        (json!({ "telemetry": { "otlpEndpoint": "collector:4318" } }), "at '/telemetry/otlpEndpoint'"),
        (json!({ "metricGenerator": { "serverCount": 0 } }), "at '/metricGenerator/serverCount': minimum: got 0"),
        (
            json!({ "metricGenerator": { "serverCount": 1001 } }),
            "at '/metricGenerator/serverCount': maximum: got 1,001",
        ),
        (json!({ "metricGenerator": { "replicas": 0 } }), "at '/metricGenerator/replicas': minimum: got 0, want 1"),
        (json!({ "metricGenerator": { "retention": "1 day" } }), "at '/metricGenerator/retention'"),
        (json!({ "metricGenerator": { "source": "host" } }), "additional properties 'source' not allowed"),
        (json!({ "feeds": [{ "name": "orders" }] }), "at '/feeds/0': missing property 'table'"),
        (json!({ "feeds": [{ "name": "Orders", "table": "public.orders" }] }), "at '/feeds/0/name'"),
        (json!({ "feeds": [{ "name": "visitors", "table": "public.orders" }] }), "at '/feeds/0/name'"),
        (json!({ "feeds": [{ "name": "orders", "table": "orders" }] }), "at '/feeds/0/table'"),
        (json!({ "feeds": [{ "name": "orders", "table": "public.orders", "where": "" }] }), "at '/feeds/0/where'"),
        (json!({ "tidemark": { "image": ["x"] } }), "at '/tidemark/image': got array, want string"),
    ];
    for (values, reason) in cases {
        let message = CHART.refusal(&values);
        assert!(message.contains(reason), "{values} should be refused with {reason:?}, not with {message}");
    }
}

#[test]
#[ignore = "needs helm"]
fn values_that_contradict_each_other_are_refused_with_a_sentence() {
    let both =
        |postgres: Value| json!({ "database": { "postgres": postgres, "external": { "secretName": "moored" } } });
    let databases = "database.external.secretName and values of database.postgres are both given";
    let cases = [
        (both(json!({ "image": "postgres:17.9" })), databases),
        (both(json!({ "storage": { "size": "2Gi" } })), databases),
        (both(json!({ "storage": { "className": "fast" } })), databases),
        (both(json!({ "resources": { "limits": { "memory": "1Gi" } } })), databases),
        (
            json!({ "feeds": [{ "name": "sea", "table": "public.a" }, { "name": "sea", "table": "public.b" }] }),
            "feeds has the name sea twice",
        ),
        (json!({ "ingress": { "tlsSecretName": "x" } }), "ingress.tlsSecretName is given without host"),
        (json!({ "host": "10.0.0.7" }), "host 10.0.0.7 is an address"),
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
fn the_notes_name_the_next_commands_and_the_address() {
    let notes = CHART.notes(&full());
    let lines = [
        "kubectl --namespace quay wait --for=condition=Available board/pier --timeout=5m",
        "https://board.example:8443/",
        "helm test harbor --namespace quay",
        "kubectl --namespace quay describe board pier",
    ];
    for line in lines {
        assert!(notes.contains(line), "{line:?} is not in {notes}");
    }
    let notes = CHART.notes(&json!({ "host": "board.example" }));
    assert!(notes.contains("https://board.example/\n"), "{notes}");
    let notes = CHART.notes(&json!({}));
    assert!(notes.contains("any host name") && !notes.contains("https://"), "{notes}");
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
    // Helm fills it.
    assert_eq!(undescribed(&CHART.yaml("values.schema.json"), &["/global"]), [""; 0]);
}

#[test]
fn the_chart_has_the_version_of_the_workspace() {
    let (chart, version) = (CHART.yaml("Chart.yaml"), json!(env!("CARGO_PKG_VERSION")));
    assert_eq!((&chart["version"], &chart["appVersion"]), (&version, &version));
}
