//! Woken by the change stream, it brings what is new from the store into the hub, and so to every connection: what a feed is, is data of the reading; nothing here knows a feed's name.

use std::sync::Arc;

use protocol::{Database, History};
use runtime::Condition;
use serde_json::Value;
use store::{Doorbell, FeedValue, Reading, Rest, View};
use tokio::sync::watch;

use crate::{
    hub::{Hub, Scalar, Snapshot},
    push::Pushes,
};

/// What the hub takes of a reading: per feed its version, and its fields as a JSON object.
pub fn snapshot(reading: &Reading) -> Snapshot {
    let value = |fields: &[(String, i64)]| {
        Value::Object(fields.iter().map(|(name, n)| (name.clone(), Value::from(*n))).collect())
    };
    let scalar = |feed: &FeedValue| Scalar {
        feed: feed.name.clone(),
        version: feed.version,
        value: value(&feed.fields),
        changed: reading.changed(feed),
        known_at: feed.known_at,
    };
    Snapshot {
        history: History { store: reading.history.store.clone(), timeline: reading.history.timeline },
        at: reading.at,
        values: reading.feeds.iter().map(scalar).collect(),
    }
}

/// Brings every reading into the hub until the reader ends. Ready means: something was read. A database that goes away later makes the values
/// old, not the replica unready: it still has the last values and all its clients.
pub async fn follow(mut views: watch::Receiver<View>, hub: Arc<Hub>, pushes: Arc<Pushes>, ready: Condition) {
    let mut before: Option<Arc<Reading>> = None;
    loop {
        let view = views.borrow_and_update().clone();
        hub.update(|items| match &view.reading {
            Some(reading) if view.database_up => {
                items.apply(snapshot(reading));
                // Before any session can write.
                pushes.begin(before.as_deref(), reading, items);
                before = Some(Arc::clone(reading));
            }
            _ => items.set_database(Database::Down),
        });
        ready.set(hub.is_ready(), describe(&view));
        if views.changed().await.is_err() {
            return;
        }
    }
}

fn describe(view: &View) -> String {
    let database = match (&view.reading, view.database_up) {
        (None, _) => "not read yet",
        (Some(_), true) => "up",
        (Some(_), false) => "down, serving the last values",
    };
    let doorbell = match view.doorbell {
        Doorbell::Connecting => "connecting",
        Doorbell::Listening if view.rest == Rest::KeptAwake => {
            "listening, but reading every 200 ms: a transaction that has written is open, or another session holds a lock of its kind (pg_locks)"
        }
        Doorbell::Listening => "listening",
        Doorbell::Swallowed => "swallowed on its way (a pooler? see LISTEN_DATABASE_URL), polling every 200 ms",
        Doorbell::Lost => "lost, polling every 200 ms until it is back",
    };
    let wrong = |reading: &Arc<Reading>| {
        let feeds = reading.feeds.iter().filter_map(|feed| Some(format!("{} ({})", feed.name, feed.problem?.as_str())));
        feeds.collect::<Vec<_>>().join(", ")
    };
    match view.reading.as_ref().map(wrong).filter(|wrong| !wrong.is_empty()) {
        Some(wrong) => format!("database {database}; doorbell {doorbell}; feeds that are not right: {wrong}"),
        None => format!("database {database}; doorbell {doorbell}"),
    }
}
