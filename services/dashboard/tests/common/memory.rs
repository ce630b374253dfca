//! What a client has shown, and that it never goes back: the same for a model of everything and for real replicas.

use std::collections::BTreeMap;

use protocol::{Cursor, History, MAX_CURSOR_BYTES, client::Values};

/// A memory of everything that one client has shown.
#[derive(Default)]
pub struct Memory {
    /// Timeline, name of a scalar item -> the greatest version ever shown.
    scalars: BTreeMap<(u32, String), u64>,
    /// Name of an item of a keyed feed -> its version, for as long as it is shown without a gap in one history.
    keyed: BTreeMap<String, u64>,
    history: Option<History>,
}

impl Memory {
    /// Looks at what a client shows now; to be called after everything that may have changed it. `loses`: the database has lost commits of this
    /// history, so that versions may fall.
    pub fn look(&mut self, values: &Values, loses: bool) {
        let Some(history) = &values.history else {
            assert!(values.items.is_empty(), "values of no history");
            return;
        };
        if self.history.as_ref() != Some(history) {
            if let Some(before) = &self.history {
                assert_eq!(before.store, history.store);
                assert!(history.timeline > before.timeline, "back to {history:?} from {before:?}");
            }
            self.keyed.clear();
            self.history = Some(history.clone());
        }
        self.keyed.retain(|name, _| values.items.contains_key(name));
        for (name, known) in &values.items {
            let before = if name.ends_with(':') {
                self.scalars.insert((history.timeline, name.clone()), known.version)
            } else {
                self.keyed.insert(name.clone(), known.version)
            };
            let goes_back = before.is_some_and(|before| before > known.version);
            assert!(loses || !goes_back, "{name} goes back from {before:?} to {} in {history:?}", known.version);
        }
        if !loses {
            look_at_cursor(values, history);
        }
    }
}

/// A cursor never says more than the client has: what it covers is not sent again.
fn look_at_cursor(values: &Values, history: &History) {
    let Some(text) = &values.cursor else { return };
    assert!(text.len() <= MAX_CURSOR_BYTES, "{text}");
    let cursor: Cursor = text.parse().unwrap();
    assert_eq!(&cursor.history, history);
    for (feed, version) in &cursor.versions {
        let known = values.items.get(&format!("{feed}:")).map_or(0, |known| known.version);
        assert!(*version <= known, "the cursor {text} says more than {known} of {feed}");
    }
}
