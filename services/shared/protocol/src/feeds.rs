//! What a client asks for: `feeds=texts,servers:server-1`.

use std::collections::{BTreeMap, BTreeSet};

/// Longest name of a feed, bytes: the longest identifier that Postgres takes.
const MAX_NAME: usize = 63;
/// Longest key, bytes.
const MAX_KEY: usize = 128;
/// Most entries in one query; a page shows far fewer.
const MAX_ENTRIES: usize = 64;

/// Why a `feeds` parameter cannot be read. The text is the reason of the close frame (at most 123 bytes), so it quotes only short input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeedsError {
    /// Nothing asked for.
    #[error("feeds: name at least one feed, as in ?feeds=texts")]
    Empty,
    /// A name with other characters, or too long.
    #[error("feeds: a name is 1 to {MAX_NAME} characters of a-z 0-9 _ -")]
    Name,
    /// A key that is too long.
    #[error("feeds: a key is at most {MAX_KEY} bytes")]
    Key,
    /// Too many entries.
    #[error("feeds: at most {MAX_ENTRIES} entries")]
    TooMany,
}

/// Whether this can be the name of a feed: 1–63 characters of `a-z 0-9 _ -`.
pub fn is_feed_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}

/// A set of feeds, each whole or some of its keys. Equal sets compare equal however they were written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Feeds(BTreeMap<String, Option<BTreeSet<String>>>);

impl Feeds {
    /// Reads the `feeds` parameter, after percent-decoding.
    ///
    /// # Errors
    /// [`FeedsError`], fit to be shown to the user.
    pub fn parse(text: &str) -> Result<Self, FeedsError> {
        if text.is_empty() {
            return Err(FeedsError::Empty);
        }
        let mut feeds = BTreeMap::new();
        for (index, entry) in text.split(',').enumerate() {
            if index >= MAX_ENTRIES {
                return Err(FeedsError::TooMany);
            }
            let (name, key) = entry.split_once(':').unwrap_or((entry, ""));
            if !is_feed_name(name) {
                return Err(FeedsError::Name);
            }
            if key.len() > MAX_KEY {
                return Err(FeedsError::Key);
            }
            let keys = feeds.entry(name.to_owned()).or_insert_with(|| Some(BTreeSet::new()));
            match (key, keys) {
                ("", keys) => *keys = None,
                (key, Some(keys)) => drop(keys.insert(key.to_owned())),
                (_, None) => {} // the whole feed was asked for already
            }
        }
        Ok(Self(feeds))
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether this item is asked for.
    pub fn contains(&self, feed: &str, key: &str) -> bool {
        self.0.get(feed).is_some_and(|keys| keys.as_ref().is_none_or(|keys| keys.contains(key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_are_equal_however_they_are_written() {
        let feeds = Feeds::parse("servers:b,texts,servers:a,texts").unwrap();
        assert_eq!(feeds, Feeds::parse("texts,servers:a,servers:b").unwrap());
        assert_eq!(feeds.names().collect::<Vec<_>>(), ["servers", "texts"]);
        assert!(feeds.contains("texts", "") && feeds.contains("servers", "a") && !feeds.contains("servers", "c"));
        assert!(feeds.contains("texts", "any key"), "the whole feed");
        assert_eq!(Feeds::parse("servers:a,servers").unwrap(), Feeds::parse("servers").unwrap());
    }

    #[test]
    fn what_cannot_be_a_feed_is_refused() {
        for (text, error) in [
            ("", FeedsError::Empty),
            (",", FeedsError::Name),
            ("Texts", FeedsError::Name),
            ("texts;drop", FeedsError::Name),
            (&"x".repeat(64), FeedsError::Name),
            (&format!("servers:{}", "k".repeat(129)), FeedsError::Key),
            (&["a"; 65].join(","), FeedsError::TooMany),
        ] {
            assert_eq!(Feeds::parse(text), Err(error.clone()));
            assert!(error.to_string().len() <= 123, "a close reason holds 123 bytes");
        }
    }
}
