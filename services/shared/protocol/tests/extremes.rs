//! Numbers of a server at their limits do no harm to a client.
#![allow(clippy::unwrap_used, reason = "a test that panics has said what it found")]

use protocol::{
    Frame,
    client::{Event, Machine, Status},
};
use serde_json::{Value, json};

#[test]
fn the_greatest_numbers_of_a_server_are_taken_as_they_are() {
    let mut machine = Machine::default();
    machine.step(1, Event::Start, 0.0);
    let mut tell = |frame: Value| {
        let frame = Frame::parse(frame.to_string().as_bytes()).unwrap();
        machine.step(2, Event::Frame { conn: 1, frame: Some(frame) }, 0.0);
        machine.wake_at()
    };
    tell(json!({"type": "hello", "protocol": "tidemark.v1", "replica": "r", "version": "1", "store": "s",
        "timeline": u32::MAX, "beatMs": u64::MAX, "resumed": false}));
    let item = json!({"feed": "texts", "version": u64::MAX, "value": {}});
    let wake_at = tell(json!({"type": "set", "cursor": "c", "ageMs": {"texts": u64::MAX}, "items": [item]}));
    assert!(wake_at.is_some_and(|at| at > u64::from(u32::MAX)), "a silence that never ends: {wake_at:?}");
    tell(json!({"type": "move", "graceMs": u64::MAX}));
    assert_eq!(machine.status(), Status::Moving);
    assert_eq!(machine.values.items["texts:"].version, u64::MAX);
    assert_eq!(machine.values.known_at["texts"], i64::MIN);
}
