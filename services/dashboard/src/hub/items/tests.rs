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
        known_at: at,
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
    items.complete("servers");
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
    items.remove("servers", "a");
    let gone = items.since(&one, before);
    assert_eq!((names(&gone), gone.complete), (vec![], vec!["servers".into()]), "the only key that was asked for");
}

#[test]
fn a_keyed_feed_is_whole_only_when_that_is_known_and_then_everybody_is_told() {
    let (mut items, now) = (Items::default(), Instant::now());
    let feeds = Feeds::parse("servers").unwrap();
    assert_eq!(items.missing(&feeds), Some("servers"));
    items.declare("servers");
    assert_eq!((items.missing(&feeds), items.ages(&feeds, now).len()), (None, 0), "it exists, and has no age yet");
    items.put("servers", Some("a"), 1, json!({}), now);
    let first = items.since(&feeds, 0);
    assert_eq!((names(&first), first.complete.len()), (vec!["servers:a@1".into()], 0), "b may exist");
    let told = items.position().tick;
    items.complete("servers");
    let news = items.since(&feeds, told);
    assert_eq!((names(&news), news.complete), (vec!["servers:a@1".into()], vec!["servers".into()]));
    let told = items.position().tick;
    items.complete("servers");
    assert!(items.since(&feeds, told).is_empty(), "told once");
    items.confirm("servers", now + Duration::from_secs(2));
    assert_eq!(items.ages(&feeds, now + Duration::from_secs(5))["servers"], Duration::from_secs(3));
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
fn scalar_feeds_are_gauges_and_of_keyed_ones_only_the_age() {
    let (mut items, now) = (Items::default(), Instant::now());
    items.apply(snapshot(now, 1, &[("orders", 5, 50)]));
    items.put("servers", Some("a"), 1, json!({ "cpu": 1 }), now);
    let age = Duration::from_secs(2);
    let orders = Gauge { feed: "orders".into(), age: Some(age), fields: vec![("count".into(), 50.0)] };
    let servers = Gauge { feed: "servers".into(), age: Some(age), fields: Vec::new() };
    assert_eq!(items.gauges(now + age), [orders, servers]);
}
