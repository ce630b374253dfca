use protocol::History;
use serde_json::{Value, json};

use super::*;

const WS: Transport = Transport::WebSocket;

fn hub(version: u64) -> Hub {
    let hub = Hub::new("r1".into(), Duration::from_secs(5));
    read(&hub, 1, version);
    hub
}

fn read(hub: &Hub, timeline: u32, version: u64) {
    let history = History { store: "s".into(), timeline };
    let value = json!({ "count": version });
    let at = Instant::now();
    let values = vec![Scalar { feed: "texts".to_owned(), version, value, changed: None, known_at: at }];
    hub.update(|items| items.apply(Snapshot { history, at, values }));
}

fn texts() -> Arc<Feeds> {
    Arc::new(Feeds::parse("texts").unwrap())
}

/// The JSON of unmasked text frames.
fn frames(mut bytes: &[u8]) -> Vec<Value> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        assert_eq!(bytes[0], 0x81);
        let (length, head) = match bytes[1] {
            126 => (usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), 4),
            short => (usize::from(short), 2),
        };
        frames.push(serde_json::from_slice(&bytes[head..head + length]).unwrap());
        bytes = &bytes[head + length..];
    }
    frames
}

#[tokio::test(start_paused = true)]
async fn one_frame_is_shared_by_all_sessions_until_it_is_a_second_old() {
    let hub = hub(1);
    let feeds = texts();
    let start = hub.greet(&feeds, None, false, WS).position;
    read(&hub, 1, 2);
    let frame = |mut position| hub.news(&feeds, &mut position, WS).unwrap().frame;
    assert_eq!(frame(start).as_ptr(), frame(start).as_ptr());
    let first = frame(start);
    tokio::time::advance(Duration::from_millis(1_500)).await;
    assert_ne!(first.as_ptr(), frame(start).as_ptr());
    assert_eq!(frames(&frame(start))[0]["ageMs"]["texts"], 1_500);
    let mut position = start;
    assert!(hub.news(&feeds, &mut position, WS).is_some());
    assert!(hub.news(&feeds, &mut position, WS).is_none(), "told once");
}

#[tokio::test]
async fn each_transport_has_its_own_bytes_of_the_same_frame() {
    let hub = hub(1);
    let feeds = texts();
    let start = hub.greet(&feeds, None, false, WS).position;
    read(&hub, 1, 2);
    let frame = |mut position, transport| hub.news(&feeds, &mut position, transport).unwrap().frame;
    let (socket, events) = (frame(start, WS), frame(start, Transport::Sse));
    let text = String::from_utf8(events.to_vec()).unwrap();
    let data = text.strip_prefix("event: set\nid: s.1~texts.2\ndata: ").and_then(|rest| rest.strip_suffix("\n\n"));
    assert_eq!(serde_json::from_str::<Value>(data.unwrap()).unwrap(), frames(&socket)[0]);
    assert_eq!(socket.as_ptr(), frame(start, WS).as_ptr(), "one does not push the other out");
    assert_eq!(events.as_ptr(), frame(start, Transport::Sse).as_ptr());
}

#[tokio::test]
async fn a_cursor_that_covers_all_is_answered_with_a_beat() {
    let hub = hub(7);
    let cursor: Cursor = "s.1~texts.7".parse().unwrap();
    let greeting = hub.greet(&texts(), Some(&cursor), false, WS);
    assert_eq!(frames(&greeting.hello)[0]["resumed"], true);
    assert_eq!(frames(&greeting.first)[0]["type"], "beat");
    let older: Cursor = "s.1~texts.6".parse().unwrap();
    let set = &frames(&hub.greet(&texts(), Some(&older), false, WS).first)[0];
    assert_eq!((&set["type"], &set["items"][0]["version"], set.get("reset")), (&json!("set"), &json!(7), None));
    assert_eq!(set["cursor"], "s.1~texts.7");
}

#[tokio::test]
async fn a_cursor_ahead_of_the_database_is_reset_only_when_that_was_verified() {
    let hub = hub(7);
    let ahead: Cursor = "s.1~texts.9".parse().unwrap();
    assert!(hub.is_behind(&ahead));
    assert_eq!(frames(&hub.greet(&texts(), Some(&ahead), false, WS).first)[0]["type"], "beat");
    let set = &frames(&hub.greet(&texts(), Some(&ahead), true, WS).first)[0];
    assert_eq!((&set["reset"], &set["items"][0]["version"]), (&json!(true), &json!(7)));
}

#[tokio::test]
async fn a_cursor_of_another_history_is_answered_with_everything_and_no_reset() {
    for other in ["s.1~texts.9", "s.3~texts.1", "other.2~texts.9"] {
        let hub = hub(7);
        read(&hub, 2, 3);
        let greeting = hub.greet(&texts(), Some(&other.parse().unwrap()), true, WS);
        assert_eq!(frames(&greeting.hello)[0]["resumed"], false);
        let set = &frames(&greeting.first)[0];
        assert_eq!((&set["items"][0]["version"], set.get("reset")), (&json!(3), None), "{other}");
    }
}

#[tokio::test]
async fn the_database_is_read_only_for_a_client_that_knows_more() {
    let reading = |timeline, version| {
        let history = History { store: "s".into(), timeline };
        let at = Instant::now();
        let values = vec![Scalar { feed: "texts".into(), version, value: json!({}), changed: None, known_at: at }];
        Some(Snapshot { history, at, values })
    };
    for (cursor, read, first, version) in [
        ("s.1~texts.7", None, "beat", 7),
        ("s.1~texts.9", Some((1, 9)), "beat", 9),
        ("s.2~texts.3", Some((2, 4)), "set", 4),
        ("s.1~texts.9", Some((1, 8)), "set", 8),
    ] {
        let (hub, mut asked) = (hub(7), false);
        let reread = async {
            asked = true;
            read.and_then(|(timeline, version)| reading(timeline, version))
        };
        let greeting = hub.answer(&texts(), Some(&cursor.parse().unwrap()), reread, WS).await;
        assert_eq!((asked, &frames(&greeting.first)[0]["type"]), (read.is_some(), &json!(first)), "{cursor}");
        let known = hub.greet(&texts(), None, false, WS);
        assert_eq!(frames(&known.first)[0]["items"][0]["version"], version, "{cursor}");
    }
}

#[tokio::test]
async fn another_history_is_told_with_a_hello_and_a_reset() {
    let hub = hub(7);
    let mut position = hub.greet(&texts(), None, false, WS).position;
    read(&hub, 2, 3);
    let told = frames(&hub.news(&texts(), &mut position, WS).unwrap().frame);
    assert_eq!((&told[0]["type"], &told[0]["timeline"]), (&json!("hello"), &json!(2)));
    assert_eq!((&told[1]["reset"], &told[1]["items"][0]["version"]), (&json!(true), &json!(3)));
}

#[tokio::test]
async fn sessions_are_woken_by_changes_and_by_the_state_of_the_database_only() {
    let hub = hub(7);
    let mut pulse = hub.subscribe();
    pulse.mark_unchanged();
    read(&hub, 1, 7);
    assert!(!pulse.has_changed().unwrap(), "a reading without news wakes nobody");
    hub.update(|items| items.set_database(Database::Down));
    assert!(pulse.has_changed().unwrap());
    pulse.mark_unchanged();
    read(&hub, 1, 8);
    assert!(pulse.has_changed().unwrap());
    assert_eq!(pulse.borrow().database, Database::Up);
}

#[tokio::test]
async fn an_unknown_feed_and_an_empty_hub_are_refused() {
    let empty = Hub::new("r1".into(), Duration::from_secs(5));
    assert_eq!(empty.admit(&texts()), Err(Refusal::NotReady));
    let unknown = Feeds::parse("texts,nothing").unwrap();
    assert_eq!(hub(1).admit(&unknown), Err(Refusal::UnknownFeed("nothing".into())));
}
