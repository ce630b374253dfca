//! Where a client stands: `<store>.<timeline>~<feed>.<version>~…`, opaque to clients, valid on every replica.

use std::{collections::BTreeMap, fmt, str::FromStr};

use crate::is_feed_name;

/// Longest cursor, bytes. Feeds that do not fit are left out: they are then simply sent again.
pub const MAX_CURSOR_BYTES: usize = 128;

/// Which past of which database. Versions compare only within one history.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct History {
    /// The database's random id, 1–32 characters of `a-z 0-9`.
    pub store: String,
    /// The database server's timeline.
    pub timeline: u32,
}

/// A history, and one version per scalar feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Of which history the versions are.
    pub history: History,
    /// Feed -> version that the client has.
    pub versions: BTreeMap<String, u64>,
}

/// The text is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of tidemark.v1")]
pub struct CursorError;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("{}.{}", self.history.store, self.history.timeline);
        for (feed, version) in &self.versions {
            let entry = format!("~{feed}.{version}");
            if text.len() + entry.len() <= MAX_CURSOR_BYTES {
                text.push_str(&entry);
            }
        }
        f.write_str(&text)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        if text.len() > MAX_CURSOR_BYTES {
            return Err(CursorError);
        }
        let mut parts = text.split('~');
        let (store, timeline) = parts.next().and_then(|head| head.split_once('.')).ok_or(CursorError)?;
        let is_store =
            (1..=32).contains(&store.len()) && store.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !is_store {
            return Err(CursorError);
        }
        let history = History { store: store.to_owned(), timeline: timeline.parse().map_err(|_| CursorError)? };
        let versions = parts
            .map(|entry| {
                let (feed, version) =
                    entry.split_once('.').filter(|(feed, _)| is_feed_name(feed)).ok_or(CursorError)?;
                Ok((feed.to_owned(), version.parse().map_err(|_| CursorError)?))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { history, versions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(feeds: &[(&str, u64)]) -> Cursor {
        let versions = feeds.iter().map(|(feed, version)| ((*feed).to_owned(), *version)).collect();
        Cursor { history: History { store: "k3v9".into(), timeline: 2 }, versions }
    }

    #[test]
    fn a_cursor_is_read_back() {
        let cursor = cursor(&[("texts", 42), ("visitors", u64::MAX)]);
        assert_eq!(cursor.to_string(), format!("k3v9.2~texts.42~visitors.{}", u64::MAX));
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
    }

    #[test]
    fn feeds_that_do_not_fit_are_left_out() {
        let names: Vec<String> = (0..20).map(|n| format!("feed-number-{n:02}")).collect();
        let full = cursor(&names.iter().map(|name| (name.as_str(), 1)).collect::<Vec<_>>());
        let text = full.to_string();
        assert!(text.len() <= MAX_CURSOR_BYTES);
        let read: Cursor = text.parse().unwrap();
        assert!(
            read.versions.len() < 20 && read.versions.iter().all(|(feed, version)| full.versions[feed] == *version)
        );
    }

    #[test]
    fn anything_else_is_no_cursor() {
        let long = format!("k3v9.2~{}.1", "x".repeat(130));
        for text in [
            "",
            "k3v9",
            "k3v9.x",
            "K3V9.1",
            ".1",
            "k3v9.1~texts",
            "k3v9.1~texts.-1",
            "k3v9.1~Texts.1",
            "k3v9.1~",
            "k3 9.1",
            &long,
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(CursorError), "{text}");
        }
    }
}
