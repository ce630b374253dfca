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
}

/// A scalar feed at a moment, as numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Gauge {
    /// Its name.
    pub feed: String,
    /// How long ago the value was last known to be true.
    pub age: Duration,
    /// The fields of the value that are numbers.
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
    known_at: Instant,
    entries: BTreeMap<String, Entry>,
    /// Tick of the last removal of a key: who is behind it gets the whole feed.
    removed: u64,
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
        for Scalar { feed, version, value, changed } in snapshot.values {
            self.insert(&feed, None, Entry { version, value, tick: 0, changed }, snapshot.at);
        }
    }

    /// Takes one value; `key` is `None` for a scalar feed. A version that is not greater only refreshes the age.
    pub fn put(&mut self, feed: &str, key: Option<&str>, version: u64, value: Value, at: Instant) {
        self.insert(feed, key, Entry { version, value, tick: 0, changed: None }, at);
    }

    /// Takes an entry, which gets its tick here.
    fn insert(&mut self, feed: &str, key: Option<&str>, entry: Entry, at: Instant) {
        let empty = || Feed { keyed: key.is_some(), known_at: at, entries: BTreeMap::new(), removed: 0 };
        let feed = self.feeds.entry(feed.to_owned()).or_insert_with(empty);
        feed.known_at = feed.known_at.max(at);
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
            feed.removed = self.position.tick;
        }
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
            |_, feed, entry| entry.tick > tick || feed.removed > tick,
            |feed| tick == 0 || feed.removed > tick,
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
            if feed.keyed && feeds.whole(name) && whole(feed) {
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

    /// How long ago each of these feeds was last known to be true.
    pub fn ages(&self, feeds: &Feeds, now: Instant) -> BTreeMap<String, Duration> {
        let age = |name: &str| Some((name.to_owned(), now.saturating_duration_since(self.feeds.get(name)?.known_at)));
        feeds.names().filter_map(age).collect()
    }

    /// The tick of a scalar feed's value.
    pub fn tick(&self, feed: &str) -> Option<u64> {
        Some(self.feeds.get(feed)?.entries.get("")?.tick)
    }

    /// All scalar feeds as numbers.
    pub fn gauges(&self, now: Instant) -> Vec<Gauge> {
        let scalar = |(name, feed): (&String, &Feed)| {
            let value = feed.entries.get("").filter(|_| !feed.keyed)?.value.as_object()?;
            let fields = value.iter().filter_map(|(field, value)| Some((field.clone(), value.as_f64()?))).collect();
            Some(Gauge { feed: name.clone(), age: now.saturating_duration_since(feed.known_at), fields })
        };
        self.feeds.iter().filter_map(scalar).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn history(timeline: u32) -> History {
        History { store: "s".into(), timeline }
    }

    fn snapshot(at: Instant, timeline: u32, values: &[(&str, u64, i64)]) -> Snapshot {
        let scalar = |(feed, version, n): &(&str, u64, i64)| Scalar {
            feed: (*feed).to_owned(),
            version: *version,
            value: json!({ "count": n }),
            changed: Some(at),
        };
        Snapshot { history: history(timeline), at, values: values.iter().map(scalar).collect() }
    }

    fn names(news: &News) -> Vec<String> {
        news.items.iter().map(|item| format!("{}:{}@{}", item.feed, item.key, item.version)).collect()
    }

    fn cursor(timeline: u32, version: u64) -> Cursor {
        Cursor { history: history(timeline), versions: [("texts".to_owned(), version)].into() }
    }

    #[test]
    fn a_session_is_told_what_is_newer_than_its_tick_and_only_of_its_feeds() {
        let (mut items, now) = (Items::default(), Instant::now());
        items.apply(snapshot(now, 1, &[("orders", 5, 50), ("texts", 1, 10)]));
        let feeds = Feeds::parse("texts").unwrap();
        assert_eq!(names(&items.since(&feeds, 0)), ["texts:@1"]);
        let told = items.position();
        assert!(items.since(&feeds, told.tick).is_empty());
        items.apply(snapshot(now, 1, &[("orders", 6, 51), ("texts", 1, 10)]));
        assert!(items.since(&feeds, told.tick).is_empty());
        for version in 2..9 {
            items.apply(snapshot(now, 1, &[("orders", 6, 51), ("texts", version, 10)]));
        }
        assert_eq!(names(&items.since(&feeds, told.tick)), ["texts:@8"], "the values in between are skipped");
        assert_eq!(items.position().epoch, told.epoch);
    }

    #[test]
    fn a_session_behind_a_removal_gets_the_whole_feed() {
        let (mut items, now) = (Items::default(), Instant::now());
        for key in ["a", "b", "c"] {
            items.put("servers", Some(key), 1, json!({}), now);
        }
        let (feeds, one) = (Feeds::parse("servers").unwrap(), Feeds::parse("servers:a").unwrap());
        let first = items.since(&feeds, 0);
        assert_eq!((names(&first).len(), first.complete.as_slice()), (3, ["servers".to_owned()].as_slice()));
        let before = items.position().tick;
        items.remove("servers", "b");
        let news = items.since(&feeds, before);
        assert_eq!(
            (names(&news), news.complete),
            (vec!["servers:a@1".into(), "servers:c@1".into()], vec!["servers".into()])
        );
        assert!(items.since(&feeds, items.position().tick).is_empty());
        items.put("servers", Some("a"), 2, json!({}), now);
        assert_eq!(names(&items.since(&one, before)), ["servers:a@2"]);
    }

    #[test]
    fn a_version_that_falls_or_another_history_starts_an_epoch() {
        let (mut items, now) = (Items::default(), Instant::now());
        items.apply(snapshot(now, 1, &[("texts", 9, 90)]));
        let first = items.position();
        items.apply(snapshot(now, 1, &[("texts", 8, 80)]));
        assert_eq!(items.position().epoch, first.epoch + 1);
        items.apply(snapshot(now, 2, &[("texts", 8, 80)]));
        assert_eq!(items.position().epoch, first.epoch + 2);
        assert_eq!(names(&items.since(&Feeds::parse("texts").unwrap(), first.tick)), ["texts:@8"]);
    }

    #[test]
    fn a_reading_older_than_the_last_one_is_ignored() {
        let (mut items, now) = (Items::default(), Instant::now());
        items.apply(snapshot(now + Duration::from_secs(1), 1, &[("texts", 9, 90)]));
        let position = items.position();
        items.apply(snapshot(now, 1, &[("texts", 8, 80)]));
        assert_eq!(items.position(), position);
    }

    #[test]
    fn a_cursor_is_compared_within_its_history_only() {
        let (mut items, now) = (Items::default(), Instant::now());
        let feeds = Feeds::parse("texts").unwrap();
        assert!(items.is_behind(&cursor(1, 0)), "nothing is known before the first reading");
        items.apply(snapshot(now, 2, &[("texts", 9, 90)]));
        assert!(items.beyond(&feeds, &cursor(2, 9)).is_empty());
        assert_eq!(names(&items.beyond(&feeds, &cursor(2, 8))), ["texts:@9"]);
        assert!(!items.is_behind(&cursor(2, 9)) && items.is_behind(&cursor(2, 10)));
        assert!(!items.is_behind(&cursor(1, 99)) && items.is_behind(&cursor(3, 1)));
        assert_eq!(items.cursor(&feeds), Some(cursor(2, 9)));
    }

    #[test]
    fn ages_count_from_the_last_reading_also_when_nothing_changed() {
        let (mut items, now) = (Items::default(), Instant::now());
        let feeds = Feeds::parse("texts").unwrap();
        items.apply(snapshot(now, 1, &[("texts", 9, 90)]));
        items.apply(snapshot(now + Duration::from_secs(2), 1, &[("texts", 9, 90)]));
        assert_eq!(items.ages(&feeds, now + Duration::from_secs(5))["texts"], Duration::from_secs(3));
    }
    #[test]
    fn news_are_as_new_as_their_newest_item() {
        let (mut items, now) = (Items::default(), Instant::now());
        let later = now + Duration::from_secs(3);
        items.apply(snapshot(now, 1, &[("orders", 5, 50), ("texts", 1, 10)]));
        items.apply(snapshot(later, 1, &[("orders", 6, 51), ("texts", 1, 10)]));
        assert_eq!(items.since(&Feeds::parse("orders,texts").unwrap(), 0).changed, Some(later));
        assert_eq!(items.since(&Feeds::parse("texts").unwrap(), 0).changed, Some(now));
    }

    #[test]
    fn scalar_feeds_are_gauges_and_keyed_ones_are_not() {
        let (mut items, now) = (Items::default(), Instant::now());
        items.apply(snapshot(now, 1, &[("orders", 5, 50)]));
        items.put("servers", Some("a"), 1, json!({ "cpu": 1 }), now);
        let age = Duration::from_secs(2);
        let orders = Gauge { feed: "orders".into(), age, fields: vec![("count".into(), 50.0)] };
        assert_eq!(items.gauges(now + age), [orders]);
    }
}
