use serde_json::{Value, json};

use crate::fixtures::harbor;

/// The sentence with which a spec is refused.
fn refusal(spec: Value) -> String {
    harbor(spec).validate_cel().map_or_else(|errors| format!("{errors:?}"), |()| "accepted".to_owned())
}

#[test]
fn an_empty_spec_is_a_whole_board() {
    let spec = serde_json::to_value(harbor(json!({})).spec).unwrap();
    let wanted = json!({
        "ingress": {"className": "traefik", "annotations": {}, "port": 443},
        "app": {"image": "app:0.1.0", "replicas": 2},
        "dashboard": {"image": "dashboard:0.1.0", "replicas": 2, "drainSeconds": 10, "allowedOrigins": []},
        "database": {"postgres": {"image": "postgres:18.4", "storage": {"size": "1Gi"}}},
        "imagePullPolicy": "IfNotPresent",
        "imagePullSecrets": [],
        "telemetry": {"logFilter": "info"}
    });
    assert_eq!(spec, wanted);
    assert_eq!(refusal(json!({})), "accepted");
}

#[test]
fn replicas_below_one_and_above_a_hundred_are_refused_with_a_sentence() {
    for replicas in [0, 101, 500] {
        let sentence = refusal(json!({"dashboard": {"replicas": replicas}}));
        assert!(sentence.contains("dashboard.replicas must be between 1 and 100"), "{sentence}");
        let sentence = refusal(json!({"app": {"replicas": replicas}}));
        assert!(sentence.contains("app.replicas must be between 1 and 100"), "{sentence}");
    }
    for replicas in [1, 100] {
        assert_eq!(refusal(json!({"app": {"replicas": replicas}, "dashboard": {"replicas": replicas}})), "accepted");
    }
}

#[test]
fn exactly_one_database_is_accepted() {
    let (own, other) = (json!({"image": "postgres:15"}), json!({"secretName": "url-of-harbor"}));
    for databases in [json!({}), json!({"postgres": own, "external": other})] {
        let sentence = refusal(json!({"database": databases}));
        assert!(sentence.contains("exactly one of postgres and external"), "{sentence}");
    }
    for databases in [json!({"postgres": own}), json!({"external": other})] {
        assert_eq!(refusal(json!({"database": databases})), "accepted");
    }
}

#[test]
fn a_host_is_a_dns_name_in_lower_case() {
    for host in ["Harbor.example", "under_score.example", "-a.example", "a..b", "10.0.0.1", "https://a.example", ""] {
        let sentence = refusal(json!({"host": host}));
        assert!(sentence.contains("host must be a DNS name in lower case"), "{host}: {sentence}");
    }
    for host in ["localhost", "quay-3.harbor.example", "xn--hfen-loa.example", "1.example"] {
        assert_eq!(refusal(json!({"host": host})), "accepted", "{host}");
    }
}

#[test]
fn a_drain_takes_at_most_five_minutes() {
    for (seconds, legal) in [(-1, false), (0, true), (300, true), (301, false)] {
        let sentence = refusal(json!({"dashboard": {"drainSeconds": seconds}}));
        assert_eq!(sentence == "accepted", legal, "{sentence}");
        assert!(legal || sentence.contains("dashboard.drainSeconds must be between 0 and 300"), "{sentence}");
    }
}

/// The operator answers it by a condition: a refusal would keep a Board from being applied again with everything else that changed in it.
#[test]
fn a_change_of_the_volume_is_not_refused() {
    let with = |size: &str| harbor(json!({"database": {"postgres": {"storage": {"size": size}}}}));
    with("2Gi").validate_cel_update(&with("1Gi")).unwrap();
}

#[test]
fn a_name_that_cannot_be_a_label_is_refused() {
    let mut board = harbor(json!({}));
    board.metadata.name = Some("h".repeat(64));
    let sentence = format!("{:?}", board.validate_cel().unwrap_err());
    assert!(sentence.contains("at most 63 characters"), "{sentence}");
}
