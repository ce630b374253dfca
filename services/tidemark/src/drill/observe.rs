//! What the steps of one client tell.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use protocol::client::{Effect, Machine, Status};

use super::record::{Seen, Value};
use crate::client::{Cause, Step};

/// The feed that the saves change; its value is the number of texts.
pub const COUNTED: &str = "texts";

/// An age of less is what every quiet moment has, ms.
const AGED: u64 = 500;

/// Ages are noted once in so long, the greatest of them, ms.
const AGE_EVERY: u64 = 250;

/// Follows one client.
#[derive(Debug, Default)]
pub struct Observer {
    /// When the last frame came, ms.
    heard: u64,
    /// Feed, or feed:key of a value that has a timestamp -> when it was true, ms of the drill's clock. Before that clock's start it is negative.
    shown: HashMap<String, i64>,
}

impl Observer {
    /// Notes what a step tells. `now` is on the drill's clock, `wall` the same moment for people.
    pub fn observe(&mut self, seen: &mut Seen, step: Step<'_>, now: u64, wall: DateTime<Utc>) {
        let live = matches!(step.machine.status(), Status::Live | Status::Moving);
        match step.cause {
            Cause::Frame => {
                self.heard = now;
                self.note_age(seen, now);
                seen.set_live(now, live);
            }
            Cause::Closed(code) => {
                seen.closes.push((now, code));
                seen.set_live(now, live);
            }
            // Silence was noticed: the connection delivers nothing since its last frame.
            Cause::Time => seen.set_live(if live { now } else { self.heard }, live),
        }
        for effect in step.effects {
            match effect {
                Effect::Items { keys } => {
                    for key in keys {
                        self.show(step.machine, key, now, wall);
                        if key.strip_suffix(':') == Some(COUNTED) {
                            seen.values.extend(value(step.machine, key, now));
                        }
                    }
                }
                Effect::Handover { planned, .. } => seen.handovers.push((now, *planned)),
                Effect::Open { .. } => seen.opens.push(now),
                Effect::Close { .. } => {}
            }
        }
        for (feed, at) in &step.machine.values.known_at {
            // Two clocks of this process: the client's, and the drill's.
            let at = now as i64 - (step.now as i64 - at);
            match self.shown.get_mut(feed) {
                Some(known) => *known = at,
                None => drop(self.shown.insert(feed.clone(), at)),
            }
        }
    }

    /// A value with a timestamp has an age of its own, whatever is said of its feed.
    fn show(&mut self, machine: &Machine, key: &str, now: u64, wall: DateTime<Utc>) {
        let Some(item) = machine.values.items.get(key) else {
            self.shown.remove(key);
            return;
        };
        let Some(text) = item.value["timestamp"].as_str() else { return };
        if let Ok(at) = DateTime::parse_from_rfc3339(text) {
            let age = wall.signed_duration_since(at).num_milliseconds();
            self.shown.insert(key.to_owned(), now as i64 - age);
        }
    }

    /// How old the oldest value was until this frame came.
    fn note_age(&self, seen: &mut Seen, now: u64) {
        let Some(oldest) = self.shown.values().min() else { return };
        let age = u64::try_from(now as i64 - oldest).unwrap_or(0);
        match seen.ages.last_mut() {
            _ if age < AGED => {}
            Some((at, greatest)) if now < *at + AGE_EVERY => *greatest = age.max(*greatest),
            _ => seen.ages.push((now, age)),
        }
    }
}

fn value(machine: &Machine, key: &str, at: u64) -> Option<Value> {
    let known = machine.values.items.get(key)?;
    Some(Value { at, version: known.version, count: known.value["count"].as_u64()? })
}

#[cfg(test)]
mod tests {
    use protocol::{Frame, client::Event};
    use serde_json::{Value as Json, json};

    use super::*;

    struct World {
        machine: Machine,
        observer: Observer,
        seen: Seen,
    }

    impl World {
        fn new() -> Self {
            let mut world = Self { machine: Machine::default(), observer: Observer::default(), seen: Seen::default() };
            world.step(0, Event::Start);
            world.frame(
                10,
                json!({"type": "hello", "protocol": "tidemark.v1", "replica": "one", "version": "1",
                "store": "s", "timeline": 1, "beatMs": 5_000, "resumed": false}),
            );
            world
        }

        /// The client's clock is 1,000 ms behind the drill's, and the drill began at the epoch.
        fn step(&mut self, now: u64, event: Event) {
            let cause = match &event {
                Event::Frame { .. } => Cause::Frame,
                Event::Closed { code, .. } => Cause::Closed(*code),
                _ => Cause::Time,
            };
            let effects = self.machine.step(now, event, 0.5);
            let step = Step { machine: &self.machine, effects: &effects, cause, failure: None, now };
            let wall = DateTime::from_timestamp_millis(now as i64 + 1_000).unwrap();
            self.observer.observe(&mut self.seen, step, now + 1_000, wall);
        }

        fn frame(&mut self, now: u64, frame: Json) {
            let frame = Frame::parse(frame.to_string().as_bytes());
            self.step(now, Event::Frame { conn: 1, frame });
        }

        fn set(&mut self, now: u64, age: u64, items: Json) {
            self.frame(now, json!({"type": "set", "cursor": "c", "ageMs": {"texts": age}, "items": items}));
        }
    }

    #[test]
    fn values_connections_and_closes_are_noted_on_the_drills_clock() {
        let mut world = World::new();
        world.set(20, 0, json!([{"feed": "texts", "version": 3, "value": {"count": 7}}]));
        world.step(100, Event::Closed { conn: 1, code: 1012, reason: String::new() });
        let seen = &world.seen;
        assert_eq!(seen.values, [Value { at: 1_020, version: 3, count: 7 }]);
        assert_eq!(seen.live, [(0, false), (1_020, true), (1_100, false)]);
        assert_eq!((seen.opens.as_slice(), seen.closes.as_slice()), ([1_000].as_slice(), [(1_100, 1012)].as_slice()));
    }

    #[test]
    fn after_silence_the_gap_begins_with_the_last_frame() {
        let mut world = World::new();
        world.set(20, 0, json!([]));
        world.step(12_520, Event::Tick);
        assert_eq!(world.seen.live.last(), Some(&(1_020, false)), "2.5 beats of silence delivered nothing");
    }

    #[test]
    fn the_age_of_the_oldest_value_is_that_before_it_is_renewed() {
        let mut world = World::new();
        let server = |at: &str| json!([{"feed": "servers", "key": "a", "version": 1, "value": {"timestamp": at}}]);
        world.set(20, 300, json!([]));
        world.set(420, 0, json!([]));
        assert_eq!(world.seen.ages, [(1_420, 700)], "300 when it came, and 400 on the screen");
        world.set(1_000, 0, server("1970-01-01T00:00:01Z"));
        world.set(1_900, 0, json!([]));
        assert_eq!(world.seen.ages.last(), Some(&(2_900, 1_900)), "the timestamp is older than the feed");
        world.set(2_000, 0, json!([]));
        assert_eq!(world.seen.ages.last(), Some(&(2_900, 2_000)), "the greatest in a quarter of a second");
    }
}
