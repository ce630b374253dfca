//! The frames of `tidemark.v1`: one JSON object per text frame, server to client.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One frame. Unknown types are [`Frame::Unknown`], unknown fields are ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Frame {
    /// Who speaks; the first frame, and again when the history changed.
    Hello(Hello),
    /// New values.
    Set(Set),
    /// No new values, but still here.
    Beat(Beat),
    /// Take your connection elsewhere.
    Move(Move),
    /// A type of a later version.
    #[serde(other, skip_serializing)]
    Unknown,
}

impl Frame {
    /// Reads a frame; `None` if it is not a JSON object of a known shape.
    pub fn parse(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }
}

/// Who speaks, and of which history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// `tidemark.v1`.
    pub protocol: String,
    /// Name of the replica.
    pub replica: String,
    /// Version of the service.
    pub version: String,
    /// The database's random id.
    pub store: String,
    /// The database server's timeline; it grows with each failover.
    pub timeline: u32,
    /// Longest silence between two frames, ms.
    pub beat_ms: u64,
    /// Whether the client's cursor was of this history.
    pub resumed: bool,
}

/// Whether the replica can read the database. Only the bad news is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Database {
    /// It can.
    #[default]
    Up,
    /// It cannot: values keep growing older.
    Down,
}

impl Database {
    fn is_up(&self) -> bool {
        *self == Self::Up
    }
}

/// New values of some items.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Set {
    /// Where the client stands after this frame.
    pub cursor: String,
    /// Per subscribed feed: how long ago its value was last known to be true, ms.
    #[serde(default)]
    pub age_ms: BTreeMap<String, u64>,
    /// Keyed feeds that are whole in this frame.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub complete: Vec<String>,
    /// Take the items whatever their versions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reset: bool,
    /// Whether the database can be read.
    #[serde(default, skip_serializing_if = "Database::is_up")]
    pub database: Database,
    /// The values.
    pub items: Vec<Item>,
}

/// One (feed, key) with its value and version. The key of a scalar feed is empty.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Name of the feed.
    pub feed: String,
    /// Key within the feed.
    #[serde(default)]
    pub key: String,
    /// Grows with every committed change, the same on every replica.
    pub version: u64,
    /// The value, an object.
    pub value: Value,
}

/// A sign of life, with the ages of the values.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Beat {
    /// As in [`Set`].
    #[serde(default)]
    pub age_ms: BTreeMap<String, u64>,
    /// As in [`Set`].
    #[serde(default, skip_serializing_if = "Database::is_up")]
    pub database: Database,
}

/// A request to connect elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Move {
    /// After this long the connection is closed with 1012, ms.
    pub grace_ms: u64,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn frames_are_written_as_the_protocol_describes_them() {
        let set = Frame::Set(Set {
            cursor: "c".into(),
            age_ms: [("texts".to_owned(), 2)].into(),
            items: vec![Item { feed: "texts".into(), key: String::new(), version: 42, value: json!({"count": 7}) }],
            ..Set::default()
        });
        let expected = json!({"type": "set", "cursor": "c", "ageMs": {"texts": 2},
            "items": [{"feed": "texts", "key": "", "version": 42, "value": {"count": 7}}]});
        assert_eq!(serde_json::to_value(&set).unwrap(), expected);
        assert_eq!(Frame::parse(expected.to_string().as_bytes()), Some(set));
        let beat = Frame::Beat(Beat { database: Database::Down, ..Beat::default() });
        assert_eq!(serde_json::to_value(beat).unwrap(), json!({"type": "beat", "ageMs": {}, "database": "down"}));
        assert_eq!(
            serde_json::to_value(Frame::Move(Move { grace_ms: 5 })).unwrap(),
            json!({"type": "move", "graceMs": 5})
        );
    }

    #[test]
    fn unknown_types_and_fields_are_ignored() {
        assert_eq!(Frame::parse(br#"{"type":"song","text":"la"}"#), Some(Frame::Unknown));
        let beat = Frame::parse(br#"{"type":"beat","ageMs":{},"colour":"blue"}"#);
        assert_eq!(beat, Some(Frame::Beat(Beat::default())));
        assert_eq!(Frame::parse(b"no json"), None);
    }
}
