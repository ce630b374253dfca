//! Readiness: "I can do my job now", and if not, what is missing.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

#[derive(Debug, Clone)]
struct State {
    holds: bool,
    detail: String,
}

/// All conditions of one process. Ready means that every one holds. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, State>>>);

/// One condition, kept by the part of the service that knows it.
#[derive(Debug, Clone)]
pub struct Condition {
    name: &'static str,
    all: Readiness,
}

impl Readiness {
    /// Adds a condition that does not hold yet.
    pub fn condition(&self, name: &'static str) -> Condition {
        let condition = Condition { name, all: self.clone() };
        condition.set(false, "starting");
        condition
    }

    /// Whether every condition holds, and a line for each: `name: detail`.
    pub fn report(&self) -> (bool, String) {
        // A poisoned lock only means that another thread panicked between two plain writes: the map itself is whole.
        let conditions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = conditions.iter().map(|(name, state)| format!("{name}: {}\n", state.detail)).collect();
        (conditions.values().all(|state| state.holds), lines)
    }
}

impl Condition {
    /// Says whether it holds now, and why in a few words.
    pub fn set(&self, holds: bool, detail: impl Into<String>) {
        let state = State { holds, detail: detail.into() };
        self.all.0.lock().unwrap_or_else(PoisonError::into_inner).insert(self.name, state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_that_every_condition_holds_and_the_report_says_what_is_missing() {
        let readiness = Readiness::default();
        let database = readiness.condition("database");
        let serving = readiness.condition("serving");
        serving.set(true, "yes");
        assert_eq!(readiness.report(), (false, "database: starting\nserving: yes\n".to_owned()));
        database.set(true, "up");
        assert!(readiness.report().0);
        serving.set(false, "draining");
        assert!(!readiness.report().0);
    }
}
