use serde_json::{Value, json};

use crate::{crds, fixtures::harbor};

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
        "metricGenerator": {"image": "metric-generator:0.1.0", "replicas": 2, "serverCount": 3, "retention": "24h"},
        "tidemark": {"image": "tidemark:0.1.0"},
        "feeds": [],
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
        let sentence = refusal(json!({"metricGenerator": {"replicas": replicas}}));
        assert!(sentence.contains("metricGenerator.replicas must be between 1 and 100"), "{sentence}");
    }
    for replicas in [1, 100] {
        let service = json!({"replicas": replicas});
        assert_eq!(refusal(json!({"app": service, "dashboard": service, "metricGenerator": service})), "accepted");
    }
}

#[test]
fn there_are_one_to_a_thousand_servers() {
    for (count, legal) in [(0, false), (1, true), (1000, true), (1001, false)] {
        let sentence = refusal(json!({"metricGenerator": {"serverCount": count}}));
        assert_eq!(sentence == "accepted", legal, "{sentence}");
        assert!(legal || sentence.contains("metricGenerator.serverCount must be between 1 and 1000"), "{sentence}");
    }
}

#[test]
fn figures_are_kept_for_a_number_of_hours_or_days_from_an_hour_to_a_week() {
    for retention in ["", "0h", "24", "h", "1.5h", "-1h", "24 h", "7w", "1h30m", "forever", "90m", "169h", "8d", "10d"]
    {
        let sentence = refusal(json!({"metricGenerator": {"retention": retention}}));
        assert!(sentence.contains("metricGenerator.retention must be a whole number"), "{retention}: {sentence}");
    }
    for retention in ["1h", "24h", "100h", "168h", "7d"] {
        assert_eq!(refusal(json!({"metricGenerator": {"retention": retention}})), "accepted", "{retention}");
    }
}

#[test]
fn a_feed_has_a_name_of_its_own_and_a_table_with_its_schema() {
    let feed = |name: &str, table: &str| refusal(json!({"feeds": [{"name": name, "table": table}]}));
    for name in ["", "Orders", "7seas", "-a", "a.b", "a b", "hafén"] {
        let sentence = feed(name, "public.orders");
        assert!(sentence.contains("a feed's name must begin with a letter"), "{name}: {sentence}");
    }
    for name in ["texts", "visitors", "servers"] {
        let sentence = feed(name, "public.orders");
        assert!(sentence.contains("must not be texts, visitors or servers"), "{name}: {sentence}");
    }
    for table in ["", "orders", ".orders", "public.", "a.b.c", "public orders", "public.my orders", "\"public.orders"] {
        let sentence = feed("orders", table);
        assert!(sentence.contains("a feed's table must be named with its schema"), "{table}: {sentence}");
    }
    for table in
        ["public.orders", "sales_2026.Orders$1", "häfen.boote", "\"my schema\".\"my.orders\"", "public.\"Orders\""]
    {
        assert_eq!(feed("open-orders_2", table), "accepted", "{table}");
    }
    let filtered = json!({"feeds": [{"name": "open", "table": "public.orders", "where": "status = 'open'"}]});
    assert_eq!(refusal(filtered), "accepted");
}

/// What the API server holds, since it checks it by the definition's schema and not by a rule: lengths, and that a name is there once.
#[test]
fn the_definition_has_each_feed_once_and_bounds_what_is_in_it() {
    let definition: Value = serde_saphyr::from_str(&crds::yaml().unwrap()).unwrap();
    let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let feeds = &spec["properties"]["feeds"];
    assert_eq!(feeds["x-kubernetes-list-type"], "map");
    assert_eq!(feeds["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(feeds["maxItems"], 64);
    assert_eq!(feeds["items"]["required"], json!(["name", "table"]));
    let longest = |field: &str| feeds["items"]["properties"][field]["maxLength"].as_u64();
    assert_eq!(["name", "table", "where"].map(longest), [Some(48), Some(131), Some(1000)]);
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
