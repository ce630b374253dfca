//! Runs `tests/vectors/*.json` through the client's state machine; `frontend/client` runs the same files.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

use std::{fs, path::Path};

use protocol::{
    Frame, Transport,
    client::{Conn, Effect, Event, Machine},
};
use serde_json::{Map, Value, json};

#[test]
fn the_machine_does_what_every_vector_says() {
    // Asked at run time: a build kept outside the checkout may have been made in another one.
    let folder = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../../tests/vectors");
    let mut cases = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let file: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        for case in file.as_array().unwrap() {
            run(case);
            cases += 1;
        }
    }
    assert!(cases > 0, "no vectors in {}", folder.display());
}

fn run(case: &Value) {
    let mut machine = Machine::default();
    for (index, step) in case["steps"].as_array().unwrap().iter().enumerate() {
        let place = format!("{}, step {index}", case["name"]);
        let random = step["random"].as_f64().unwrap_or(0.0);
        let effects = machine.step(step["at"].as_u64().unwrap(), event(&step["event"]), random);
        let effects: Vec<Value> = effects.iter().map(effect).collect();
        let expected: Vec<Value> =
            step.get("effects").and_then(Value::as_array).into_iter().flatten().cloned().map(complete).collect();
        assert_eq!(effects, expected, "effects of {place}");
        let state = state(&machine);
        for (field, expected) in step.get("state").and_then(Value::as_object).unwrap_or(&Map::new()) {
            assert_eq!(state.get(field), Some(expected), "{field} of {place}");
        }
    }
}

fn event(event: &Value) -> Event {
    let conn = || event["conn"].as_u64().unwrap() as Conn;
    match event["type"].as_str().unwrap() {
        "start" => Event::Start,
        "tick" => Event::Tick,
        "nudge" => Event::Nudge,
        "stop" => Event::Stop,
        "frame" => Event::Frame { conn: conn(), frame: Frame::parse(event["frame"].to_string().as_bytes()) },
        "closed" => Event::Closed {
            conn: conn(),
            code: event["code"].as_u64().unwrap() as u16,
            reason: event["reason"].as_str().unwrap().to_owned(),
        },
        other => panic!("unknown event {other}"),
    }
}

/// A vector that says nothing of it means a WebSocket.
fn complete(mut effect: Value) -> Value {
    if effect["type"] == "open" {
        effect.as_object_mut().unwrap().entry("transport").or_insert(json!("ws"));
    }
    effect
}

fn effect(effect: &Effect) -> Value {
    match effect {
        Effect::Open { conn, since, transport } => {
            json!({"type": "open", "conn": conn, "since": since, "transport": transport.as_str()})
        }
        Effect::Close { conn } => json!({"type": "close", "conn": conn}),
        Effect::Items { keys } => json!({"type": "items", "keys": keys}),
        Effect::Handover { from, to, ms, planned } => {
            json!({"type": "handover", "from": from, "to": to, "ms": ms, "planned": planned})
        }
    }
}

fn state(machine: &Machine) -> Value {
    let values = &machine.values;
    let items: Map<String, Value> = values
        .items
        .iter()
        .map(|(name, item)| (name.clone(), json!({"version": item.version, "value": item.value})))
        .collect();
    json!({
        "status": machine.status().as_str(), "replica": machine.replica(), "reason": machine.reason(),
        "database": values.database, "cursor": values.cursor, "items": items, "knownAt": values.known_at,
        "history": values.history.as_ref().map(|h| json!({"store": h.store, "timeline": h.timeline})),
        "wakeAt": machine.wake_at(), "transport": machine.transport().map(Transport::as_str),
    })
}
