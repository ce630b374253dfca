//! The newest item per (feed, key). Pure: no lock, no clock, no socket.
//!
//! Every change gets a local *tick*. A session remembers the tick up to which it has sent, so "what is new for you" is "what has a greater tick",
//! however slow the session was. An *epoch* is a stretch in which versions only grew; a new one means that clients must forget.

use std::{collections::BTreeMap, time::Duration};

use protocol::{Cursor, Database, Feeds, History, Item};
use serde_json::Value;
use tokio::time::Instant;

/// How far a session has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    pub(super) epoch: u64,
    pub(super) tick: u64,
}

/// One reading of all scalar feeds.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Which past of which database.
    pub history: History,
    /// A moment at or before which the values were not yet outdated.
    pub at: Instant,
    /// All scalar feeds.
    pub values: Vec<Scalar>,
}

/// A scalar feed in a reading.
#[derive(Debug, Clone, PartialEq)]
pub struct Scalar {
    /// Its name.
    pub feed: String,
    /// Its version.
    pub version: u64,
    /// Its value.
    pub value: Value,
    /// When it got this version, if that is known.
    pub changed: Option<Instant>,
    /// When it was last known to be right: with the reading, or before that if something is wrong with it.
    pub known_at: Instant,
}

/// A feed at a moment, as numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Gauge {
    /// Its name.
    pub feed: String,
    /// How long ago the feed was last known to be true; `None`: never yet.
    pub age: Option<Duration>,
    /// The fields of the value that are numbers; empty for a keyed feed.
    pub fields: Vec<(String, f64)>,
}

#[derive(Debug)]
struct Entry {
    version: u64,
    value: Value,
    tick: u64,
    changed: Option<Instant>,
}

#[derive(Debug)]
struct Feed {
    keyed: bool,
    /// `None`: nothing of it was ever known.
    known_at: Option<Instant>,
    entries: BTreeMap<String, Entry>,
    /// Whether a key that is not here is known not to exist. A scalar feed has one key, and that is here.
    complete: bool,
    /// Tick of the last removal of a key, or of the moment when the feed became complete: who is behind it gets the whole feed.
    whole_since: u64,
}

impl Feed {
    fn new(keyed: bool) -> Self {
        Self { keyed, known_at: None, entries: BTreeMap::new(), complete: !keyed, whole_since: 0 }
    }

    fn age(&self, now: Instant) -> Option<Duration> {
        self.known_at.map(|at| now.saturating_duration_since(at))
    }
}

/// The state of the hub.
#[derive(Debug, Default)]
pub struct Items {
    history: Option<History>,
    feeds: BTreeMap<String, Feed>,
    position: Position,
    database: Database,
    read_at: Option<Instant>,
}

/// Items for a client, and the keyed feeds that are whole in them.
#[derive(Debug, Default, PartialEq)]
pub struct News {
    /// The items, by feed and key.
    pub items: Vec<Item>,
    /// Keyed feeds that are whole.
    pub complete: Vec<String>,
    /// When the newest of the items got its value, if that is known.
    pub changed: Option<Instant>,
}

impl News {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && self.complete.is_empty()
    }
}

impl Items {
    /// Takes a reading. A reading older than one already taken is ignored: readings may be handed in by several tasks.
    pub fn apply(&mut self, snapshot: Snapshot) {
        if self.read_at.is_some_and(|at| snapshot.at < at) {
            return;
        }
        self.read_at = Some(snapshot.at);
        self.database = Database::Up;
        let fell = |Scalar { feed, version, .. }: &Scalar| {
            self.feeds.get(feed).and_then(|feed| feed.entries.get("")).is_some_and(|known| *version < known.version)
        };
        let changed_history = self.history.as_ref().is_some_and(|known| *known != snapshot.history);
        if changed_history || snapshot.values.iter().any(fell) {
            self.feeds.retain(|_, feed| feed.keyed); // keyed values do not come from this history
            self.position = Position { epoch: self.position.epoch + 1, tick: self.position.tick + 1 };
        }
        self.history = Some(snapshot.history);
        self.feeds.retain(|name, feed| feed.keyed || snapshot.values.iter().any(|scalar| scalar.feed == *name));
        for Scalar { feed, version, value, changed, known_at } in snapshot.values {
            self.insert(&feed, None, Entry { version, value, tick: 0, changed }, known_at);
        }
    }

    /// Takes one value; `key` is `None` for a scalar feed. A version that is not greater only refreshes the age.
    pub fn put(&mut self, feed: &str, key: Option<&str>, version: u64, value: Value, at: Instant) {
        self.insert(feed, key, Entry { version, value, tick: 0, changed: None }, at);
    }

    /// Takes an entry, which gets its tick here.
    fn insert(&mut self, feed: &str, key: Option<&str>, entry: Entry, at: Instant) {
        let feed = self.feeds.entry(feed.to_owned()).or_insert_with(|| Feed::new(key.is_some()));
        feed.known_at = feed.known_at.max(Some(at));
        let key = key.unwrap_or_default();
        if feed.entries.get(key).is_none_or(|known| entry.version > known.version) {
            self.position.tick += 1;
            feed.entries.insert(key.to_owned(), Entry { tick: self.position.tick, ..entry });
        }
    }

    /// Removes a key of a keyed feed.
    pub fn remove(&mut self, feed: &str, key: &str) {
        if let Some(feed) = self.feeds.get_mut(feed)
            && feed.entries.remove(key).is_some()
        {
            self.position.tick += 1;
            feed.whole_since = self.position.tick;
        }
    }

    /// A keyed feed exists, though none of its keys is known yet. Clients may ask for it from now on.
    pub fn declare(&mut self, feed: &str) {
        self.feeds.entry(feed.to_owned()).or_insert_with(|| Feed::new(true));
    }

    /// From now on a key of this feed that is not here is one that does not exist, and clients are told so.
    pub fn complete(&mut self, feed: &str) {
        if let Some(feed) = self.feeds.get_mut(feed).filter(|feed| !feed.complete) {
            self.position.tick += 1;
            (feed.complete, feed.whole_since) = (true, self.position.tick);
        }
    }

    /// What is known of this feed was true at this moment, though no value is newer.
    pub fn confirm(&mut self, feed: &str, at: Instant) {
        if let Some(feed) = self.feeds.get_mut(feed) {
            feed.known_at = feed.known_at.max(Some(at));
        }
    }

    /// The keys that are known of this feed.
    pub fn keys(&self, feed: &str) -> impl Iterator<Item = &str> {
        self.feeds.get(feed).into_iter().flat_map(|feed| feed.entries.keys().map(String::as_str))
    }

    /// Says whether the database can be read.
    pub fn set_database(&mut self, database: Database) {
        self.database = database;
    }

    /// Whether the database can be read.
    pub fn database(&self) -> Database {
        self.database
    }

    /// Of which history the values are; `None` before the first reading.
    pub fn history(&self) -> Option<&History> {
        self.history.as_ref()
    }

    /// The newest position.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The first asked-for feed that does not exist.
    pub fn missing<'f>(&self, feeds: &'f Feeds) -> Option<&'f str> {
        feeds.names().find(|name| !self.feeds.contains_key(*name))
    }

    /// What a session that has sent up to `tick` has not told yet; 0 is everything.
    pub fn since(&self, feeds: &Feeds, tick: u64) -> News {
        self.select(
            feeds,
            |_, feed, entry| entry.tick > tick || feed.whole_since > tick,
            |feed| tick == 0 || feed.whole_since > tick,
        )
    }

    /// What a client with this cursor does not know. Keyed feeds are always whole.
    pub fn beyond(&self, feeds: &Feeds, cursor: &Cursor) -> News {
        let known = |feed: &str| cursor.versions.get(feed).copied().unwrap_or(0);
        self.select(feeds, |name, feed, entry| feed.keyed || entry.version > known(name), |_| true)
    }

    /// Whether the cursor knows versions that are not known here, or is of a later timeline of this store.
    pub fn is_behind(&self, cursor: &Cursor) -> bool {
        let Some(history) = &self.history else { return true };
        if cursor.history != *history {
            return cursor.history.store == history.store && cursor.history.timeline > history.timeline;
        }
        let known =
            |feed: &String| self.feeds.get(feed).and_then(|feed| feed.entries.get("")).map_or(0, |entry| entry.version);
        cursor.versions.iter().any(|(feed, version)| *version > known(feed))
    }

    fn select(
        &self,
        feeds: &Feeds,
        wanted: impl Fn(&str, &Feed, &Entry) -> bool,
        whole: impl Fn(&Feed) -> bool,
    ) -> News {
        let mut news = News::default();
        for name in feeds.names() {
            let Some(feed) = self.feeds.get(name) else { continue };
            if feed.keyed && feed.complete && whole(feed) {
                news.complete.push(name.to_owned());
            }
            let entries =
                feed.entries.iter().filter(|(key, entry)| feeds.contains(name, key) && wanted(name, feed, entry));
            for (key, entry) in entries {
                news.changed = news.changed.max(entry.changed);
                news.items.push(Item {
                    feed: name.to_owned(),
                    key: key.clone(),
                    version: entry.version,
                    value: entry.value.clone(),
                });
            }
        }
        news
    }

    /// Where a client of these feeds stands that has been told everything.
    pub fn cursor(&self, feeds: &Feeds) -> Option<Cursor> {
        let scalar = |name: &str| {
            Some((name.to_owned(), self.feeds.get(name).filter(|feed| !feed.keyed)?.entries.get("")?.version))
        };
        Some(Cursor { history: self.history.clone()?, versions: feeds.names().filter_map(scalar).collect() })
    }

    /// How long ago each of these feeds was last known to be true; one of which nothing was ever known is not in it.
    pub fn ages(&self, feeds: &Feeds, now: Instant) -> BTreeMap<String, Duration> {
        let age = |name: &str| Some((name.to_owned(), self.feeds.get(name)?.age(now)?));
        feeds.names().filter_map(age).collect()
    }

    /// The tick of a scalar feed's value.
    pub fn tick(&self, feed: &str) -> Option<u64> {
        Some(self.feeds.get(feed)?.entries.get("")?.tick)
    }

    /// All feeds as numbers.
    pub fn gauges(&self, now: Instant) -> Vec<Gauge> {
        let gauge = |(name, feed): (&String, &Feed)| {
            let value = feed.entries.get("").filter(|_| !feed.keyed).and_then(|entry| entry.value.as_object());
            let number = |(field, value): (&String, &Value)| Some((field.clone(), value.as_f64()?));
            let fields = value.into_iter().flatten().filter_map(number).collect();
            Gauge { feed: name.clone(), age: feed.age(now), fields }
        };
        self.feeds.iter().map(gauge).collect()
    }
}

#[cfg(test)]
mod tests;
