mod feeds;
mod generator;

use k8s_openapi::api::{apps::v1::Deployment, batch::v1::Job, core::v1::PersistentVolumeClaim};
use serde_json::{Value, json, to_value};

use super::*;
use crate::{
    fixtures::{metadata, owners, pod_labels, valid},
    problem::Reason,
    reconcile::{dereference::SecretSeen, resources::Live},
};

/// A cluster in which the Board's migration is done.
fn migrated(spec: Value) -> Seen {
    let children = Resources::<Live> {
        jobs: vec![ended("Complete", job::migrate(&valid(spec, &Seen::default())))],
        ..Resources::default()
    };
    Seen { secret: SecretSeen::Usable, children, ..Seen::default() }
}

fn ended(how: &str, mut job: Job) -> Job {
    job.status = serde_json::from_value(json!({"conditions": [{"type": how, "status": "True"}]})).unwrap();
    job
}

fn plan(spec: Value) -> Resources<Prepared> {
    let seen = migrated(spec.clone());
    build(&valid(spec, &seen), &seen, "").resources
}

fn deployments(spec: Value) -> [Value; 3] {
    let made = plan(spec).deployments;
    [APP, DASHBOARD, METRIC_GENERATOR].map(|name| to_value(named(&made, name).unwrap()).unwrap())
}

#[test]
fn the_dashboard_is_hardened_spread_and_given_time_to_move_its_clients() {
    let [_, dashboard, _] = deployments(
        json!({"dashboard": {"replicas": 3, "drainSeconds": 20, "allowedOrigins": ["https://a.example", "https://b.example"]}}),
    );
    let selector =
        json!({"matchLabels": {"app.kubernetes.io/name": "dashboard", "app.kubernetes.io/instance": "harbor"}});
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
        "metadata": metadata("dashboard", "dashboard"),
        "spec": {
            "replicas": 3,
            "minReadySeconds": 3,
            "revisionHistoryLimit": 5,
            "selector": selector,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "100%", "maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": pod_labels("dashboard"), "annotations": {"tidemark.dev/config": hash(&config)}},
                "spec": {
                    "serviceAccountName": "dashboard",
                    "automountServiceAccountToken": false,
                    "enableServiceLinks": false,
                    "securityContext": {
                        "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}
                    },
                    // 5 s in which it still serves, its window, and 10 s of margin.
                    "terminationGracePeriodSeconds": 35,
                    "topologySpreadConstraints": [{
                        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": selector, "matchLabelKeys": ["pod-template-hash"]
                    }],
                    "containers": [{
                        "name": "dashboard",
                        "image": "dashboard:0.1.0",
                        "imagePullPolicy": "IfNotPresent",
                        "env": [
                            {"name": "HOST", "value": "0.0.0.0"},
                            {"name": "PORT", "value": "8080"},
                            {"name": "ADMIN_PORT", "value": "9090"},
                            {"name": "LOG_FORMAT", "value": "json"},
                            {"name": "REPLICA_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
                            {"name": "DATABASE_URL", "valueFrom": {"secretKeyRef": {"name": "postgres", "key": "url"}}},
                            {"name": "DRAIN_SECONDS", "value": "20"},
                            {"name": "DRAIN_MAX_SECONDS", "value": "20"},
                            {"name": "ALLOWED_ORIGINS", "value": "https://a.example,https://b.example"},
                            {"name": "GENERATOR_URL", "value": "http://metric-generator"}
                        ],
                        "envFrom": [{"configMapRef": {"name": "config"}}],
                        "ports": [
                            {"name": "http", "containerPort": 8080, "protocol": "TCP"},
                            {"name": "admin", "containerPort": 9090, "protocol": "TCP"}
                        ],
                        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
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
    assert_eq!(dashboard, wanted);
}

#[test]
fn a_short_drain_may_take_longer_when_there_are_many_clients_to_move() {
    let [_, dashboard, _] = deployments(json!({"dashboard": {"drainSeconds": 3}}));
    let pod = &dashboard["spec"]["template"]["spec"];
    let env = pod["containers"][0]["env"].as_array().unwrap();
    let value = |name: &str| env.iter().find(|env| env["name"] == name).unwrap()["value"].clone();
    assert_eq!((value("DRAIN_SECONDS"), value("DRAIN_MAX_SECONDS")), (json!("3"), json!("10")));
    assert_eq!(pod["terminationGracePeriodSeconds"], json!(25));
}

#[test]
fn the_app_surges_by_one_never_migrates_and_takes_the_resources_of_the_board() {
    let resources = json!({"requests": {"cpu": 1}, "limits": {"memory": "1Gi"}});
    let [app, dashboard, _] =
        deployments(json!({"app": {"image": "quay.example/app:7", "replicas": 1, "resources": resources}}));
    let (spec, container) = (&app["spec"], &app["spec"]["template"]["spec"]["containers"][0]);
    assert_eq!(spec["strategy"]["rollingUpdate"], json!({"maxSurge": 1, "maxUnavailable": 0}));
    assert_eq!(spec["template"]["spec"]["terminationGracePeriodSeconds"], json!(20));
    assert_eq!(spec["replicas"], json!(1));
    assert_eq!(container["image"], json!("quay.example/app:7"));
    assert_eq!(container["env"][6], json!({"name": "MIGRATE", "value": "false"}));
    assert_eq!(
        container["resources"],
        json!({"requests": {"cpu": "1", "memory": "64Mi"}, "limits": {"memory": "1Gi"}})
    );
    assert_eq!(dashboard["spec"]["template"]["spec"]["containers"][0]["image"], json!("dashboard:0.1.0"));
}

#[test]
fn a_change_of_the_settings_rolls_the_services_but_does_not_migrate_again() {
    let telemetry = json!({"telemetry": {"logFilter": "debug", "otlpEndpoint": "http://collector:4318"}});
    let (before, after) = (plan(json!({})), plan(telemetry));
    let data = json!({"RUST_LOG": "debug", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"});
    assert_eq!(to_value(&after.config_maps[0].data).unwrap(), data);
    assert_ne!(before.deployments, after.deployments);
    assert_eq!(before.jobs, after.jobs);
}

#[test]
fn another_image_of_the_app_is_another_migration() {
    let (before, after) = (plan(json!({})).jobs.remove(0), plan(json!({"app": {"image": "app:0.2.0"}})).jobs.remove(0));
    assert_ne!(before.metadata.name, after.metadata.name);
    let pod = to_value(after).unwrap()["spec"]["template"]["spec"].clone();
    assert_eq!(pod["containers"][0]["args"], json!(["migrate"]));
    assert_eq!(pod["containers"][0]["image"], json!("app:0.2.0"));
    assert_eq!(pod["restartPolicy"], json!("Never"));
}

#[test]
fn before_the_migration_no_service_starts_and_a_running_one_keeps_its_template() {
    let seen = Seen { secret: SecretSeen::Usable, ..Seen::default() };
    let spec = json!({"app": {"image": "app:0.2.0", "replicas": 4}});
    assert_eq!(build(&valid(spec.clone(), &seen), &seen, "").resources.deployments, Vec::<Deployment>::new());

    let mut running = plan(json!({})).deployments.remove(0);
    let template = running.spec.as_mut().unwrap().template.metadata.as_mut().unwrap();
    template.annotations.get_or_insert_default().insert("kubectl.kubernetes.io/restartedAt".into(), "now".into());
    let seen = Seen { children: Resources { deployments: vec![running], ..Resources::default() }, ..seen };
    let kept = build(&valid(spec, &seen), &seen, "").resources.deployments;
    let kept = to_value(&kept[..]).unwrap();
    assert_eq!(kept.as_array().unwrap().len(), 1);
    assert_eq!(kept[0]["spec"]["replicas"], json!(4));
    assert_eq!(kept[0]["spec"]["template"]["spec"]["containers"][0]["image"], json!("app:0.1.0"));
    let annotations = &kept[0]["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(annotations.as_object().unwrap().keys().collect::<Vec<_>>(), ["tidemark.dev/config"]);
}

#[test]
fn budgets_are_only_where_a_replica_can_be_spared() {
    let budgets = plan(json!({"app": {"replicas": 1}, "metricGenerator": {"replicas": 1}})).budgets;
    let wanted = json!([{
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata("dashboard", "dashboard"),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": {"app.kubernetes.io/name": "dashboard", "app.kubernetes.io/instance": "harbor"}},
            "unhealthyPodEvictionPolicy": "AlwaysAllow"
        }
    }]);
    assert_eq!(to_value(budgets).unwrap(), wanted);
}

#[test]
fn the_ingress_leads_live_connections_to_the_dashboards_and_the_rest_to_the_app() {
    let annotation = json!({"traefik.ingress.kubernetes.io/router.middlewares": "retry@file"});
    let ingress = json!({"annotations": annotation, "tlsSecretName": "certificate"});
    let ingress = plan(json!({"host": "harbor.example", "ingress": ingress})).ingresses;
    let mut with_annotation = metadata("board", "board");
    with_annotation["annotations"] = annotation;
    let path = |path, service| json!({"path": path, "pathType": "Prefix", "backend": {"service": {"name": service, "port": {"number": 80}}}});
    let wanted = json!([{
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": with_annotation,
        "spec": {
            "ingressClassName": "traefik",
            "rules": [{"host": "harbor.example", "http": {"paths": [
                path("/ws", "dashboard"), path("/events", "dashboard"), path("/", "app")
            ]}}],
            "tls": [{"hosts": ["harbor.example"], "secretName": "certificate"}]
        }
    }]);
    assert_eq!(to_value(ingress).unwrap(), wanted);
}

#[test]
fn services_are_inside_only_and_postgres_is_headless() {
    let services = to_value(plan(json!({})).services).unwrap();
    let service = |index: usize, name: &str, spec: Value| {
        let wanted = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata(name, name), "spec": spec});
        assert_eq!(services[index], wanted);
    };
    let selector = |name| json!({"app.kubernetes.io/name": name, "app.kubernetes.io/instance": "harbor"});
    let http = json!([{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http"}]);
    service(0, "app", json!({"type": "ClusterIP", "ports": http, "selector": selector("app")}));
    service(1, "dashboard", json!({"type": "ClusterIP", "ports": http, "selector": selector("dashboard")}));
    service(
        2,
        "metric-generator",
        json!({"type": "ClusterIP", "ports": http, "selector": selector("metric-generator")}),
    );
    let port = json!([{"name": "postgres", "port": 5432, "protocol": "TCP", "targetPort": "postgres"}]);
    service(3, "postgres", json!({"clusterIP": "None", "ports": port, "selector": selector("postgres")}));
}

#[test]
fn every_service_has_an_account_without_a_token() {
    let accounts = to_value(plan(json!({})).service_accounts).unwrap();
    let wanted = ["app", "dashboard", "metric-generator", "migrate", "feeds", "postgres"].map(|name| {
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(name, name), "automountServiceAccountToken": false
        })
    });
    assert_eq!(accounts, json!(wanted));
}

#[test]
fn the_secret_belongs_to_nobody_and_holds_the_whole_url() {
    let spec = valid(json!({}), &Seen::default());
    let secret = to_value(build(&spec, &Seen::default(), "pw").secret.unwrap()).unwrap();
    let mut unowned = metadata("postgres", "postgres");
    assert_eq!(unowned.as_object_mut().unwrap().remove("ownerReferences"), Some(owners()));
    let data = json!({
        "username": "tidemark", "password": "pw", "database": "tidemark", "url": "postgres://tidemark:pw@postgres:5432/tidemark"
    });
    assert_eq!(secret, json!({"apiVersion": "v1", "kind": "Secret", "metadata": unowned, "stringData": data}));
}

#[test]
fn the_data_of_postgres_is_on_the_claim_for_images_before_and_after_18() {
    let stateful_set =
        to_value(plan(json!({"database": {"postgres": {"image": "postgres:15"}}})).stateful_sets).unwrap();
    let spec = &stateful_set[0]["spec"];
    let (pod, container) = (&spec["template"]["spec"], &spec["template"]["spec"]["containers"][0]);
    let (mounts, env) = (&container["volumeMounts"], &container["env"]);
    assert_eq!(mounts[0], json!({"name": "data", "mountPath": "/var/lib/postgresql"}));
    // Not below /var/lib/postgresql/data, where runtimes put an anonymous volume for images before 18.
    assert_eq!(env[3], json!({"name": "PGDATA", "value": "/var/lib/postgresql/pgdata"}));
    let ready = json!(["pg_isready", "-h", "127.0.0.1", "-U", "tidemark", "-d", "tidemark"]);
    assert_eq!(container["readinessProbe"]["exec"]["command"], ready);
    assert_eq!(container["startupProbe"]["exec"]["command"], ready);
    assert_eq!(container.get("lifecycle"), None);
    assert_eq!(container.get("livenessProbe"), None);
    assert_eq!(pod["securityContext"]["runAsUser"], json!(999));
    assert_eq!(pod["terminationGracePeriodSeconds"], json!(60));
    assert_eq!(spec["persistentVolumeClaimRetentionPolicy"], json!({"whenDeleted": "Retain", "whenScaled": "Retain"}));
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    assert_eq!(spec["volumeClaimTemplates"][0]["spec"], claim);
    assert_eq!(spec["volumeClaimTemplates"][0]["metadata"], json!({"name": "data", "labels": pod_labels("postgres")}));
}

#[test]
fn an_external_database_has_no_postgres_of_its_own() {
    let spec = json!({"database": {"external": {"secretName": "elsewhere"}}});
    let made = plan(spec);
    assert_eq!(made.stateful_sets, []);
    assert!(named(&made.services, "postgres").is_none());
    let url = json!({"name": "DATABASE_URL", "valueFrom": {"secretKeyRef": {"name": "elsewhere", "key": "url"}}});
    for pod in [to_value(&made.jobs[0]).unwrap(), to_value(&made.deployments[0]).unwrap()] {
        assert_eq!(pod["spec"]["template"]["spec"]["containers"][0]["env"][5], url);
    }
}

#[test]
fn a_volume_that_cannot_become_what_the_board_wants_is_told_and_left_as_it_is() {
    let storage = |storage: Value| json!({"database": {"postgres": {"storage": storage, "image": "postgres:16"}}});
    let claim = json!({"spec": {"storageClassName": "standard", "resources": {"requests": {"storage": "1Gi"}}}});
    let claim: PersistentVolumeClaim = serde_json::from_value(claim).unwrap();
    let before = plan(storage(json!({}))).stateful_sets;
    let children = Resources { stateful_sets: before.clone(), ..Resources::default() };
    let seen = Seen { secret: SecretSeen::Usable, claim: Some(claim), children, ..Seen::default() };
    for (wanted, word) in [(json!({"size": "2Gi"}), "2Gi"), (json!({"className": "fast"}), "fast")] {
        let Plan { resources, problems, .. } = build(&valid(storage(wanted), &seen), &seen, "");
        assert_eq!(resources.stateful_sets, before);
        assert_eq!(problems.iter().map(|problem| problem.reason).collect::<Vec<_>>(), [Reason::ImmutableField]);
        assert!(problems[0].message.contains(word) && problems[0].message.contains("data-postgres-0"), "{problems:?}");
    }
    for same in [json!({}), json!({"size": "1024Mi", "className": "standard"}), json!({"size": "500Mi"})] {
        assert_eq!(build(&valid(storage(same), &seen), &seen, "").problems, []);
    }
}
