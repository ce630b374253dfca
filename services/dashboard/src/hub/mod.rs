//! The hub: one shared state that readings flow into and sessions read from. It knows no socket and no SQL.
//!
//! A frame is encoded once per (position, set of feeds, transport) and shared by all sessions, as the bytes that go to the socket.

mod items;

use std::{
    collections::HashMap,
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use protocol::{Beat, Cursor, Database, Feeds, Frame, Hello, PROTOCOL, Set, Transport};
use tokio::{sync::watch, time::Instant};

pub use self::items::{Gauge, Items, News, Position, Scalar, Snapshot};
use crate::wire;

/// A shared frame older than this is encoded anew: its ages would no longer be true.
const STALE: Duration = Duration::from_secs(1);
/// Most shared frames kept at a time. One tick needs one per set of feeds; sessions that are behind by different ticks need some more.
const MAX_SHARED: usize = 256;

/// What wakes a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pulse {
    /// The newest position.
    pub position: Position,
    /// Whether the database can be read.
    pub database: Database,
}

/// Why a client cannot be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing was read yet.
    NotReady,
    /// No such feed.
    UnknownFeed(String),
}

/// The answer to a client's query.
#[derive(Debug)]
pub struct Greeting {
    /// The `hello`.
    pub hello: Bytes,
    /// The first `set` or `beat`.
    pub first: Bytes,
    /// Up to where the client has been told.
    pub position: Position,
}

/// What a session has to send.
#[derive(Debug, Clone)]
pub struct Update {
    /// The bytes.
    pub frame: Bytes,
    /// When the newest value in it was written, if that is known.
    pub changed: Option<Instant>,
    /// The ticks after the first one and up to the last one are told with it.
    pub ticks: RangeInclusive<u64>,
}

struct Shared {
    transport: Transport,
    encoded_at: Instant,
    update: Update,
}

#[derive(Default)]
struct State {
    items: Items,
    shared: HashMap<Arc<Feeds>, Vec<Shared>>,
    shared_count: usize,
}

/// See the module.
pub struct Hub {
    replica: String,
    beat: Duration,
    state: Mutex<State>,
    pulse: watch::Sender<Pulse>,
}

impl Hub {
    /// An empty hub of this replica, which sends a beat after so long a silence.
    pub fn new(replica: String, beat: Duration) -> Self {
        let pulse = watch::Sender::new(Pulse { position: Position::default(), database: Database::Up });
        Self { replica, beat, state: Mutex::default(), pulse }
    }

    /// Longest silence towards a client.
    pub fn beat_interval(&self) -> Duration {
        self.beat
    }

    /// A receiver that is woken by every change.
    pub fn subscribe(&self) -> watch::Receiver<Pulse> {
        self.pulse.subscribe()
    }

    /// Changes the items, and wakes the sessions if that changed anything for them.
    pub fn update(&self, change: impl FnOnce(&mut Items)) {
        let mut state = self.lock();
        change(&mut state.items);
        let pulse = Pulse { position: state.items.position(), database: state.items.database() };
        if pulse != *self.pulse.borrow() {
            state.shared.clear();
            state.shared_count = 0;
        }
        // Still under the lock: a pulse that overtook a newer one would leave sessions waiting for nothing.
        self.pulse.send_if_modified(|old| std::mem::replace(old, pulse) != pulse);
    }

    /// Whether something has been read.
    pub fn is_ready(&self) -> bool {
        self.lock().items.history().is_some()
    }

    /// Whether a client knows more than this replica: then the database has to be read before it is answered.
    fn is_behind(&self, cursor: &Cursor) -> bool {
        self.lock().items.is_behind(cursor)
    }

    /// Whether this query can be served.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn admit(&self, feeds: &Feeds) -> Result<(), Refusal> {
        let state = self.lock();
        match state.items.missing(feeds) {
            _ if state.items.history().is_none() => Err(Refusal::NotReady),
            Some(feed) => Err(Refusal::UnknownFeed(feed.to_owned())),
            None => Ok(()),
        }
    }

    /// The first two frames for a client. If it knows more than this replica, the database is read before: `reread` gives that reading, or
    /// nothing if there was none in time.
    pub async fn answer(
        &self,
        feeds: &Feeds,
        cursor: Option<&Cursor>,
        reread: impl Future<Output = Option<Snapshot>>,
        transport: Transport,
    ) -> Greeting {
        let reading = match cursor {
            Some(cursor) if self.is_behind(cursor) => reread.await,
            _ => None,
        };
        let verified = reading.is_some();
        if let Some(reading) = reading {
            self.update(|items| items.apply(reading));
        }
        self.greet(feeds, cursor, verified, transport)
    }

    /// The first two frames for a client. `verified`: the database was read after the cursor came, so a cursor that is still ahead must be forgotten.
    pub fn greet(&self, feeds: &Feeds, cursor: Option<&Cursor>, verified: bool, transport: Transport) -> Greeting {
        let state = self.lock();
        let items = &state.items;
        let resumed = cursor.is_some_and(|cursor| Some(&cursor.history) == items.history());
        // No reset for a cursor of another history: by the time this arrives the client may have got to ours on its old connection, and further.
        // It compares the histories itself.
        let reset = resumed && verified && cursor.is_some_and(|cursor| items.is_behind(cursor));
        let news = match cursor {
            Some(cursor) if resumed && !reset => items.beyond(feeds, cursor),
            _ => items.since(feeds, 0),
        };
        let first = if news.is_empty() { self.beat_frame(items, feeds) } else { set_frame(items, feeds, news, reset) };
        let hello = wire::frame(&self.hello_frame(items, resumed), transport);
        Greeting { hello, first: wire::frame(&first, transport), position: items.position() }
    }

    /// What the session has not sent yet, and moves its position. `None`: nothing for its feeds.
    pub fn news(&self, feeds: &Arc<Feeds>, position: &mut Position, transport: Transport) -> Option<Update> {
        let mut state = self.lock();
        let state = &mut *state;
        let (from, now) = (std::mem::replace(position, state.items.position()), Instant::now());
        if from.epoch != position.epoch {
            let set = set_frame(&state.items, feeds, state.items.since(feeds, 0), true);
            let both = [self.hello_frame(&state.items, false), set].map(|frame| wire::frame(&frame, transport));
            // Another past of the database is no news of this one.
            return Some(Update { frame: both.concat().into(), changed: None, ticks: position.tick..=position.tick });
        }
        let frames = state.shared.entry(Arc::clone(feeds)).or_default();
        let is_same = |shared: &Shared| *shared.update.ticks.start() == from.tick && shared.transport == transport;
        if let Some(shared) = frames.iter().find(|shared| is_same(shared) && now - shared.encoded_at < STALE) {
            return Some(shared.update.clone());
        }
        let news = state.items.since(feeds, from.tick);
        if news.is_empty() {
            return None;
        }
        let (changed, ticks) = (news.changed, from.tick..=position.tick);
        let frame = wire::frame(&set_frame(&state.items, feeds, news, false), transport);
        let update = Update { frame, changed, ticks };
        frames.retain(|shared| !is_same(shared));
        frames.push(Shared { transport, encoded_at: now, update: update.clone() });
        state.shared_count += 1;
        if state.shared_count > MAX_SHARED {
            state.shared.clear();
            state.shared_count = 0;
        }
        Some(update)
    }

    /// All feeds as numbers.
    pub fn gauges(&self) -> Vec<Gauge> {
        self.lock().items.gauges(Instant::now())
    }

    /// A sign of life with the ages of now.
    pub fn beat(&self, feeds: &Feeds, transport: Transport) -> Bytes {
        wire::frame(&self.beat_frame(&self.lock().items, feeds), transport)
    }

    fn beat_frame(&self, items: &Items, feeds: &Feeds) -> Frame {
        Frame::Beat(Beat { age_ms: age_ms(items, feeds), database: items.database() })
    }

    fn hello_frame(&self, items: &Items, resumed: bool) -> Frame {
        let (store, timeline) =
            items.history().map_or((String::new(), 0), |history| (history.store.clone(), history.timeline));
        Frame::Hello(Hello {
            protocol: PROTOCOL.to_owned(),
            replica: self.replica.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            store,
            timeline,
            beat_ms: millis(self.beat),
            resumed,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs between two writes that belong together, so a poisoned state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn set_frame(items: &Items, feeds: &Feeds, news: News, reset: bool) -> Frame {
    Frame::Set(Set {
        cursor: items.cursor(feeds).map(|cursor| cursor.to_string()).unwrap_or_default(),
        age_ms: age_ms(items, feeds),
        complete: news.complete,
        reset,
        database: items.database(),
        items: news.items,
    })
}

fn age_ms(items: &Items, feeds: &Feeds) -> std::collections::BTreeMap<String, u64> {
    items.ages(feeds, Instant::now()).into_iter().map(|(feed, age)| (feed, millis(age))).collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
