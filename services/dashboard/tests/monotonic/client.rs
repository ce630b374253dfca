//! A client: the real machine, and a memory of everything that it has shown.

use protocol::client::{Effect, Event, Machine};

use super::{database::Database, memory::Memory, replica::Shown};

pub struct Client {
    pub machine: Machine,
    pub feeds: &'static str,
    memory: Memory,
}

impl Client {
    pub fn new(feeds: &'static str) -> Self {
        Self { machine: Machine::default(), feeds, memory: Memory::default() }
    }

    /// Hands an event to the machine and looks at what it shows afterwards.
    pub fn step(&mut self, now: u64, event: Event, random: f64, database: &Database) -> Vec<Effect> {
        let effects = self.machine.step(now, event, random);
        let values = &self.machine.values;
        let loses = values.history.as_ref().is_some_and(|history| database.has_lost(history));
        self.memory.look(values, loses);
        for (name, known) in &values.items {
            if let (Some(feed), Some(history)) = (name.strip_suffix(':'), &values.history) {
                let true_then = database.committed(history, feed, known.version, &known.value);
                assert!(true_then, "{name} {known:?} was never true in {history:?}");
            }
        }
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

    /// What it shows.
    pub fn shown(&self) -> Shown {
        let items = self.machine.values.items.iter();
        items.map(|(name, known)| (name.clone(), (known.version, known.value.clone()))).collect()
    }
}
