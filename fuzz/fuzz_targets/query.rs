//! The query of a handshake: all that a client can say.
#![no_main]

use axum::{extract::Query, http::Uri};
use dashboard::{gateway::Params, wire};
use libfuzzer_sys::fuzz_target;
use protocol::{MAX_CURSOR_BYTES, is_feed_name};

/// Most feeds in one query.
const FEEDS: usize = 64;
/// The largest counter of a visit, 2^53 - 1.
const MAX_N: i64 = 9_007_199_254_740_991;

fuzz_target!(|text: &str| {
    let Ok(uri) = format!("/ws?{text}").parse::<Uri>() else { return };
    let Ok(Query(params)) = Query::<Params>::try_from_uri(&uri) else { return };
    match params.feeds() {
        Ok(feeds) => {
            let names: Vec<_> = feeds.names().collect();
            assert!((1..=FEEDS).contains(&names.len()), "{names:?}");
            assert!(names.iter().all(|name| is_feed_name(name)), "{names:?}");
            for name in names {
                is_told_in_full(&format!("feeds: there is no feed {name}"));
            }
        }
        Err(error) => is_told_in_full(&error.to_string()),
    }
    if let Ok(Some(visit)) = params.visit() {
        assert!((0..=MAX_N).contains(&visit.n), "{visit:?}");
    }
    if let Some(cursor) = params.cursor() {
        let text = cursor.to_string();
        assert!(text.len() <= MAX_CURSOR_BYTES, "{text}");
        assert_eq!(text.parse(), Ok(cursor));
    }
});

/// A reason fits into a close frame as it is.
fn is_told_in_full(reason: &str) {
    assert_eq!(wire::close(1008, reason)[4..], *reason.as_bytes());
}
