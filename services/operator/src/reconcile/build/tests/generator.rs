//! The metric generator: as hardened as the others, and for the dashboards of its Board alone.

use serde_json::{json, to_value};

use super::{deployments, plan};
use crate::{
    fixtures::{metadata, pod_labels},
    hash::hash,
};

#[test]
fn the_metric_generator_is_hardened_and_told_how_many_servers_there_are() {
    let [_, _, generator] = deployments(
        json!({"metricGenerator": {"replicas": 3, "serverCount": 40, "retention": "7d", "resources": {"limits": {"memory": "1Gi"}}}}),
    );
    let selector =
        json!({"matchLabels": {"app.kubernetes.io/name": "metric-generator", "app.kubernetes.io/instance": "harbor"}});
    let probe = |path, period, failures, timeout| {
        json!({
            "httpGet": {"path": path, "port": "admin", "scheme": "HTTP"},
            "periodSeconds": period, "failureThreshold": failures, "timeoutSeconds": timeout
        })
    };
    let config = plan(json!({})).config_maps.remove(0).data;
    let wanted = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata("metric-generator", "metric-generator"),
        "spec": {
            "replicas": 3,
            "minReadySeconds": 3,
            "revisionHistoryLimit": 5,
            "selector": selector,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": pod_labels("metric-generator"), "annotations": {"tidemark.dev/config": hash(&config)}},
                "spec": {
                    "serviceAccountName": "metric-generator",
                    "automountServiceAccountToken": false,
                    "enableServiceLinks": false,
                    "securityContext": {
                        "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}
                    },
                    "terminationGracePeriodSeconds": 20,
                    "topologySpreadConstraints": [{
                        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": selector, "matchLabelKeys": ["pod-template-hash"]
                    }],
                    "containers": [{
                        "name": "metric-generator",
                        "image": "metric-generator:0.1.0",
                        "imagePullPolicy": "IfNotPresent",
                        "env": [
                            {"name": "HOST", "value": "0.0.0.0"},
                            {"name": "PORT", "value": "8080"},
                            {"name": "ADMIN_PORT", "value": "9090"},
                            {"name": "LOG_FORMAT", "value": "json"},
                            {"name": "REPLICA_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
                            {"name": "DATABASE_URL", "valueFrom": {"secretKeyRef": {"name": "postgres", "key": "url"}}},
                            {"name": "SERVER_COUNT", "value": "40"},
                            {"name": "METRICS_RETENTION", "value": "7d"}
                        ],
                        "envFrom": [{"configMapRef": {"name": "config"}}],
                        "ports": [
                            {"name": "http", "containerPort": 8080, "protocol": "TCP"},
                            {"name": "admin", "containerPort": 9090, "protocol": "TCP"}
                        ],
                        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}},
                        "readinessProbe": probe("/readyz", 1, 2, 1),
                        "livenessProbe": probe("/healthz", 10, 3, 5),
                        "startupProbe": probe("/healthz", 1, 60, 1),
                        "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
                        "securityContext": {
                            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}
                        }
                    }]
                }
            }
        }
    });
    assert_eq!(generator, wanted);
}

#[test]
fn only_dashboards_of_the_board_may_ask_the_metric_generator() {
    let pods =
        |name: &str| json!({"matchLabels": {"app.kubernetes.io/name": name, "app.kubernetes.io/instance": "harbor"}});
    let wanted = json!([{
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata("metric-generator", "metric-generator"),
        "spec": {
            "podSelector": pods("metric-generator"),
            // Nothing is said about the way out.
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [{"podSelector": pods("dashboard")}], "ports": [{"port": 8080, "protocol": "TCP"}]},
                {"ports": [{"port": 9090, "protocol": "TCP"}]}
            ]
        }
    }]);
    assert_eq!(to_value(plan(json!({})).network_policies).unwrap(), wanted);
}
