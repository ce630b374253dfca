//! When this replica is ready.

use std::sync::Arc;

use runtime::Condition;
use store::{Hindrance, Latest, Progress};
use tokio::sync::watch;

/// Follows the writer and the reader until one ends. Ready means: a sample was stored, and read again. A database that goes away later makes
/// the values old, not the replica unready: it keeps its samples and comes back by itself.
pub async fn follow(
    mut progress: watch::Receiver<Progress>,
    mut latest: watch::Receiver<Option<Arc<Latest>>>,
    ready: Condition,
) {
    let mut once = false;
    loop {
        let storing = *progress.borrow_and_update();
        let read = {
            let latest = latest.borrow_and_update();
            // What was read before is not what this replica has stored.
            let seen = |second| latest.iter().flat_map(|latest| latest.all()).any(|sample| sample.second >= second);
            once |= storing.stored.is_some_and(seen);
            latest.is_some()
        };
        ready.set(once, describe(storing, read));
        let changed = tokio::select! {
            changed = progress.changed() => changed,
            changed = latest.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

fn describe(storing: Progress, read: bool) -> &'static str {
    match (storing, read) {
        (Progress { hindrance: Some(Hindrance::NoSchema), .. }, _) => {
            "waiting for somebody else to migrate the database"
        }
        (Progress { hindrance: Some(Hindrance::Database), .. }, _) => "the database is away, samples wait",
        (Progress { stored: None, .. }, _) => "none stored yet",
        (_, false) => "stored, the newest not read",
        (_, true) => "stored and read",
    }
}
