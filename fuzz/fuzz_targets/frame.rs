//! What a client reads: every line is a frame of its current connection, from a server that it should not trust too far.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::{
    Frame,
    client::{Conn, Event, Machine},
};
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let mut machine = Machine::default();
    machine.step(0, Event::Start, 0.5);
    for (line, now) in bytes.split(|byte| *byte == b'\n').zip(1..) {
        let frame = Frame::parse(line);
        if let Some(frame) = frame.as_ref().filter(|frame| **frame != Frame::Unknown && !has_fraction(frame)) {
            let written = serde_json::to_vec(frame).expect("a frame that was read can be written");
            assert_eq!(Frame::parse(&written).as_ref(), Some(frame));
        }
        // Connections are numbered from 1, and a moving client has several.
        for conn in 1..=3 as Conn {
            machine.step(now, Event::Frame { conn, frame: frame.clone() }, 0.5);
            let _ = machine.wake_at();
        }
        machine.step(now, Event::Tick, 0.5);
        for name in machine.values.items.keys() {
            assert!(name.contains(':'), "{name}");
        }
    }
});

/// Fractions may lose their last digit when they are read and written, by design of the JSON library.
fn has_fraction(frame: &Frame) -> bool {
    fn fraction(value: &Value) -> bool {
        match value {
            Value::Number(number) => number.is_f64(),
            Value::Array(values) => values.iter().any(fraction),
            Value::Object(fields) => fields.values().any(fraction),
            _ => false,
        }
    }
    matches!(frame, Frame::Set(set) if set.items.iter().any(|item| fraction(&item.value)))
}
