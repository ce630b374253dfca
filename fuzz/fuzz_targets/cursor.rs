//! A cursor comes back from clients in a URL, as anything.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::{Cursor, History, MAX_CURSOR_BYTES, is_feed_name};

fuzz_target!(|text: &str| {
    if let Ok(cursor) = text.parse::<Cursor>() {
        assert!(text.len() <= MAX_CURSOR_BYTES);
        assert_eq!(written(&cursor), cursor);
    }
    // Whatever the feeds of a database are called, and however many there are.
    let versions = text.split('~').filter(|name| is_feed_name(name)).zip((1_u64..).step_by(1 << 20));
    let history = History { store: "k3v9".to_owned(), timeline: text.len() as u32 };
    let whole = Cursor { history, versions: versions.map(|(name, version)| (name.to_owned(), version)).collect() };
    let read = written(&whole);
    assert_eq!(read.history, whole.history);
    assert!(read.versions.iter().all(|(feed, version)| whole.versions[feed] == *version), "{read} of {whole:?}");
});

/// Written and read again: it fits, and can be read. Feeds that do not fit are left out.
fn written(cursor: &Cursor) -> Cursor {
    let text = cursor.to_string();
    assert!(text.len() <= MAX_CURSOR_BYTES, "{text}");
    text.parse().unwrap_or_else(|error| panic!("{error}: {text}"))
}
