//! A client: the real machine, and a memory of everything that it has shown.

use std::collections::BTreeMap;

use protocol::{
    Cursor, History, MAX_CURSOR_BYTES,
    client::{Effect, Event, Machine},
};

use super::{
    database::{Database, STORE},
    replica::Shown,
};

pub struct Client {
    pub machine: Machine,
    pub feeds: &'static str,
    /// History, name of a scalar feed -> the greatest version ever shown.
    scalars: BTreeMap<(u32, String), u64>,
    /// Name of an item of a keyed feed -> its version, for as long as it is shown without a gap in one history.
    keyed: BTreeMap<String, u64>,
    history: Option<History>,
}

impl Client {
    pub fn new(feeds: &'static str) -> Self {
        let (machine, scalars, keyed) = (Machine::default(), BTreeMap::new(), BTreeMap::new());
        Self { machine, feeds, scalars, keyed, history: None }
    }

    /// Hands an event to the machine and looks at what it shows afterwards.
    pub fn step(&mut self, now: u64, event: Event, random: f64, database: &Database) -> Vec<Effect> {
        let effects = self.machine.step(now, event, random);
        self.look(database);
        effects
    }

    /// As [`Client::step`], with an event of a connection that the machine has closed.
    pub fn late(&mut self, now: u64, event: Event, random: f64) {
        let (before, status) = (format!("{:?}", self.machine.values), self.machine.status());
        let effects = self.machine.step(now, event, random);
        assert!(effects.is_empty(), "a closed connection has effects: {effects:?}");
        assert_eq!(before, format!("{:?}", self.machine.values), "something is applied from a closed connection");
        assert_eq!(status, self.machine.status(), "a closed connection changes the status");
    }

    fn look(&mut self, database: &Database) {
        let values = &self.machine.values;
        let Some(history) = &values.history else {
            assert!(values.items.is_empty(), "values of no history");
            return;
        };
        if self.history.as_ref() != Some(history) {
            let before = self.history.as_ref().map_or(0, |history| history.timeline);
            assert!(history.timeline > before, "back to timeline {} from {before}", history.timeline);
            self.keyed.clear();
            self.history = Some(history.clone());
        }
        self.keyed.retain(|name, _| values.items.contains_key(name));
        for (name, known) in &values.items {
            let before = match name.split_once(':') {
                Some((feed, "")) => {
                    let true_then = database.committed(history, feed, known.version, &known.value);
                    assert!(true_then, "{name} {known:?} was never true in {history:?}");
                    self.scalars.insert((history.timeline, name.clone()), known.version)
                }
                _ => self.keyed.insert(name.clone(), known.version),
            };
            let before = before.filter(|_| !database.has_lost(history)).unwrap_or_default();
            assert!(before <= known.version, "{name} goes back from {before} to {} in {history:?}", known.version);
        }
        if !database.has_lost(history) {
            self.look_at_cursor();
        }
    }

    /// A cursor never says more than the client has: what it covers is not sent again.
    fn look_at_cursor(&self) {
        let values = &self.machine.values;
        let Some(text) = &values.cursor else { return };
        assert!(text.len() <= MAX_CURSOR_BYTES, "{text}");
        let cursor: Cursor = text.parse().unwrap();
        assert_eq!(Some(&cursor.history), values.history.as_ref());
        assert_eq!(cursor.history.store, STORE);
        for (feed, version) in &cursor.versions {
            let known = values.items.get(&format!("{feed}:")).map_or(0, |known| known.version);
            assert!(*version <= known, "the cursor {text} says more than {known} of {feed}");
        }
    }

    /// What it shows.
    pub fn shown(&self) -> Shown {
        let items = self.machine.values.items.iter();
        items.map(|(name, known)| (name.clone(), (known.version, known.value.clone()))).collect()
    }
}
