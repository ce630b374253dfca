//! What the generator answers, read and checked. Pure.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

/// Most servers: as many as a generator makes.
const MAX_SERVERS: usize = 1_000;
/// Longest id, bytes: the longest key of a feed.
const MAX_ID: usize = 128;

/// The answer is not what a generator answers.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Rubbish {
    /// Not the expected JSON.
    #[error("not the expected JSON: {0}")]
    Json(String),
    /// Ids that nobody could ask for.
    #[error("an id must have 1 to {MAX_ID} bytes, no comma and no control character")]
    Id,
    /// More servers than a generator has.
    #[error("{0} servers; at most {MAX_SERVERS} are shown")]
    TooMany(usize),
    /// A percentage outside 0 to 100.
    #[error("{0} is not from 0 to 100")]
    Range(&'static str),
    /// A time before 1970.
    #[error("the timestamp is before 1970")]
    Timestamp,
    /// A sample of a server that was not asked for.
    #[error("a sample of another server")]
    Other,
}

impl From<serde_json::Error> for Rubbish {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error.to_string())
    }
}

/// The latest sample of a server.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The second in which it was taken, since 1970.
    pub version: u64,
    /// What clients see.
    pub value: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct List {
    server_ids: Vec<String>,
}

/// The ids of `GET /servers`.
pub(super) fn list(body: &[u8]) -> Result<Vec<String>, Rubbish> {
    let List { server_ids } = serde_json::from_slice(body)?;
    if server_ids.len() > MAX_SERVERS {
        return Err(Rubbish::TooMany(server_ids.len()));
    }
    let fits = |id: &String| (1..=MAX_ID).contains(&id.len()) && !id.contains(|c: char| c == ',' || c.is_control());
    if server_ids.iter().all(fits) { Ok(server_ids) } else { Err(Rubbish::Id) }
}

#[derive(Deserialize)]
struct Metrics {
    metrics: Vec<Metric>,
}

#[derive(Deserialize)]
struct Metric {
    id: String,
    cpu_usage: f64,
    memory_usage: f64,
    disk_usage: f64,
    timestamp: DateTime<Utc>,
}

/// The sample of `GET /metrics?limit=1&serverId=…`; `None` if the server has none.
pub(super) fn latest(body: &[u8], server: &str) -> Result<Option<Sample>, Rubbish> {
    let Metrics { metrics } = serde_json::from_slice(body)?;
    let Some(metric) = metrics.into_iter().next() else { return Ok(None) };
    let Metric { id, cpu_usage, memory_usage, disk_usage, timestamp } = metric;
    if id != server {
        return Err(Rubbish::Other);
    }
    for (name, percent) in [("cpu_usage", cpu_usage), ("memory_usage", memory_usage), ("disk_usage", disk_usage)] {
        if !(0.0..=100.0).contains(&percent) {
            return Err(Rubbish::Range(name));
        }
    }
    let version = u64::try_from(timestamp.timestamp()).map_err(|_| Rubbish::Timestamp)?;
    let value = json!({
        "cpu_usage": cpu_usage,
        "memory_usage": memory_usage,
        "disk_usage": disk_usage,
        "timestamp": timestamp.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
    });
    Ok(Some(Sample { version, value }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(id: &str, cpu: f64, timestamp: &str) -> Vec<u8> {
        let metric =
            json!({ "id": id, "cpu_usage": cpu, "memory_usage": 2.5, "disk_usage": 100, "timestamp": timestamp });
        json!({ "metrics": [metric] }).to_string().into_bytes()
    }

    #[test]
    fn a_sample_is_its_second_and_its_four_fields() {
        let sample = latest(&metric("s-1", 12.5, "2026-11-21T12:00:01.25Z"), "s-1").unwrap().unwrap();
        assert_eq!(sample.version, 1_795_262_401);
        let value =
            json!({ "cpu_usage": 12.5, "memory_usage": 2.5, "disk_usage": 100.0, "timestamp": "2026-11-21T12:00:01Z" });
        assert_eq!(sample.value, value);
        assert_eq!(latest(br#"{"metrics":[]}"#, "s-1"), Ok(None));
    }

    #[test]
    fn rubbish_is_no_sample() {
        let now = "2026-11-21T12:00:00Z";
        assert_eq!(latest(&metric("s-2", 1.0, now), "s-1"), Err(Rubbish::Other));
        assert_eq!(latest(&metric("s-1", 100.1, now), "s-1"), Err(Rubbish::Range("cpu_usage")));
        assert_eq!(latest(&metric("s-1", -0.1, now), "s-1"), Err(Rubbish::Range("cpu_usage")));
        assert_eq!(latest(&metric("s-1", 1.0, "1969-12-31T23:59:59Z"), "s-1"), Err(Rubbish::Timestamp));
        for body in ["", "[]", "<html>", r#"{"metrics":[{"id":"s-1"}]}"#] {
            assert!(matches!(latest(body.as_bytes(), "s-1"), Err(Rubbish::Json(_))), "{body}");
        }
        assert!(matches!(latest(&metric("s-1", 1.0, "yesterday"), "s-1"), Err(Rubbish::Json(_))));
    }

    #[test]
    fn a_list_holds_ids_that_clients_can_ask_for() {
        assert_eq!(list(br#"{"serverIds":["server-1","b"]}"#), Ok(vec!["server-1".into(), "b".into()]));
        assert_eq!(list(br#"{"serverIds":[]}"#), Ok(Vec::new()));
        for id in ["", "a,b", "a\u{7}", &"x".repeat(129)] {
            assert_eq!(list(json!({ "serverIds": [id] }).to_string().as_bytes()), Err(Rubbish::Id), "{id}");
        }
        let many: Vec<_> = (0..1_001).map(|n| n.to_string()).collect();
        assert_eq!(list(json!({ "serverIds": many }).to_string().as_bytes()), Err(Rubbish::TooMany(1_001)));
        assert!(matches!(list(b"{}"), Err(Rubbish::Json(_))));
    }
}
