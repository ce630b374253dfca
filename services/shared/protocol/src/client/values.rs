//! What the client knows: the newest value of each item, where it stands, and how old each feed is.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{Beat, Database, History, Set};

/// The newest known value of one item.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// Its version.
    pub version: u64,
    /// Its value.
    pub value: Value,
}

/// Everything that was learned. It survives connections.
#[derive(Debug, Clone, Default)]
pub struct Values {
    /// `feed:key` -> value; a scalar feed's name ends in `:`.
    pub items: BTreeMap<String, Known>,
    /// Where the client stands.
    pub cursor: Option<String>,
    /// Of which history the versions are.
    pub history: Option<History>,
    /// Feed -> the client's time at which its value was last known to be true, ms. It may lie before the clock's start.
    pub known_at: BTreeMap<String, i64>,
    /// Whether the replica that serves can read the database.
    pub database: Database,
}

impl Values {
    /// Whether this is an earlier past of the known store (rule 9): a replica that reads a database server that was failed away from.
    pub(super) fn is_past(&self, history: &History) -> bool {
        self.history.as_ref().is_some_and(|known| known.store == history.store && known.timeline > history.timeline)
    }

    /// Takes a `set` that a replica of this history sent (rules 9 and 10). Gives the names of the items that changed, sorted.
    pub(super) fn apply(&mut self, now: u64, history: &History, set: Set) -> Vec<String> {
        let reset = set.reset || self.history.as_ref() != Some(history);
        let named: BTreeSet<String> = set.items.iter().map(|item| format!("{}:{}", item.feed, item.key)).collect();
        let mut changed = BTreeSet::new();
        self.items.retain(|name, _| {
            let feed = name.split(':').next().unwrap_or_default();
            let gone = (reset || set.complete.iter().any(|complete| complete == feed)) && !named.contains(name);
            if gone {
                changed.insert(name.clone());
            }
            !gone
        });
        for item in set.items {
            let name = format!("{}:{}", item.feed, item.key);
            let known = Known { version: item.version, value: item.value };
            let old = self.items.get(&name);
            if old != Some(&known) && (reset || old.is_none_or(|old| known.version > old.version)) {
                self.items.insert(name.clone(), known);
                changed.insert(name);
            }
        }
        self.cursor = Some(set.cursor);
        self.history = Some(history.clone());
        self.refresh(now, Beat { age_ms: set.age_ms, database: set.database });
        changed.into_iter().collect()
    }

    /// Takes the ages and the state of the database.
    pub(super) fn refresh(&mut self, now: u64, beat: Beat) {
        let now = now.cast_signed();
        self.known_at.extend(beat.age_ms.into_iter().map(|(feed, age)| (feed, now.saturating_sub_unsigned(age))));
        self.database = beat.database;
    }
}
