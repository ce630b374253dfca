//! Whether a live object already has everything that would be applied.

use serde_json::{Map, Value};

use crate::quantity;

/// Whether `live` has all of `wanted`. The API server adds fields (defaults, status, what others own), so maps may have more; lists must have the
/// same length and order. When in doubt this says no: applying what is there already is no write for the API server.
pub fn contains(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted.iter().all(|(key, wanted)| match live.get(key) {
            Some(Value::Object(live)) if key == "requests" || key == "limits" => same_amounts(live, wanted),
            Some(live) => contains(live, wanted),
            // The API server drops what is empty.
            None => is_empty(wanted),
        }),
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| contains(live, wanted))
        }
        (live, wanted) => live == wanted,
    }
}

/// The API server writes amounts in its own way: `0.05` comes back as `50m`.
fn same_amounts(live: &Map<String, Value>, wanted: &Value) -> bool {
    let amount = |value: &Value| value.as_str().and_then(quantity::parse);
    wanted.as_object().is_some_and(|wanted| {
        wanted.iter().all(|(name, wanted)| {
            live.get(name)
                .is_some_and(|live| live == wanted || (amount(live).is_some() && amount(live) == amount(wanted)))
        })
    })
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_live_object_may_have_more_but_nothing_else() {
        let live = json!({"spec": {"replicas": 2, "paused": false, "ports": [{"port": 80, "protocol": "TCP"}]}});
        for same in [json!({}), json!({"spec": {"replicas": 2, "ports": [{"port": 80}], "note": ""}})] {
            assert!(contains(&live, &same), "{same}");
        }
        for other in [
            json!({"spec": {"replicas": 3}}),
            json!({"spec": {"ports": []}}),
            json!({"spec": {"ports": [{"port": 80}, {"port": 81}]}}),
            json!({"spec": {"ports": [{"port": 80, "name": "http"}]}}),
            json!({"spec": {"absent": 0}}),
        ] {
            assert!(!contains(&live, &other), "{other}");
        }
    }

    #[test]
    fn amounts_are_the_same_however_they_are_written() {
        let live = json!({"resources": {"requests": {"cpu": "50m", "memory": "1Gi"}}});
        let wanted = |cpu, memory| json!({"resources": {"requests": {"cpu": cpu, "memory": memory}}});
        assert!(contains(&live, &wanted("0.05", "1024Mi")));
        assert!(!contains(&live, &wanted("0.06", "1Gi")));
        assert!(!contains(&live, &wanted("50m", "")));
        assert!(!contains(&live, &json!({"resources": {"requests": {"disk": "1"}}})));
    }
}
