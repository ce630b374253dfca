//! What becomes of a feed: it is listed, follows its table, is removed without a trace, and comes back.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has said what it found")]

mod common;

use common::{
    Stage,
    own::{OPEN, catalog, feed, says},
};
use sqlx::{
    Executor,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use store::{Change, FeedProblem, OwnFeed, OwnFeedError, add_own_feed, own_feeds, remove_own_feed, sync_own_feeds};

/// Name, table, count and state of all feeds.
async fn listed(stage: &Stage) -> Vec<(String, String, i64, String)> {
    let state = |problem: Option<FeedProblem>| problem.map_or("ok".to_owned(), |problem| problem.to_string());
    let feeds = own_feeds(&stage.database()).await.unwrap().feeds;
    feeds.into_iter().map(|feed| (feed.name, feed.table, feed.count, state(feed.problem))).collect()
}

async fn states(stage: &Stage) -> Vec<String> {
    listed(stage).await.into_iter().map(|(.., state)| state).collect()
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn what_is_removed_leaves_nothing_behind(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    stage.orders().await;
    let before = catalog(&stage.pool).await;
    // One name is the beginning of the other, and of the name of its view.
    let feeds = [("open", Some(OPEN)), ("open_rows", None), ("open_rows_rows", Some("amount > 1"))];
    for (name, filter) in feeds {
        add_own_feed(&stage.database(), &feed(name, "public.orders", filter)).await.unwrap();
    }
    assert_eq!(
        listed(&stage).await,
        [("open", 1), ("open_rows", 3), ("open_rows_rows", 2)].map(|(name, count)| (
            name.to_owned(),
            "public.orders".to_owned(),
            count,
            "ok".to_owned()
        ))
    );
    for (gone, (name, _)) in feeds.into_iter().enumerate() {
        remove_own_feed(&stage.database(), name).await.unwrap();
        assert_eq!(states(&stage).await, vec!["ok"; 2 - gone]);
    }
    assert_eq!(catalog(&stage.pool).await, before);
    let again = remove_own_feed(&stage.database(), "open").await.unwrap_err();
    assert!(matches!(again, OwnFeedError::Unknown(_)), "{again}");
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_feed_that_comes_back_goes_on_after_its_last_version(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::with_orders(pool, options).await;
    for _ in 0..5 {
        stage.pool.execute("INSERT INTO orders (status) VALUES ('open')").await.unwrap();
    }
    let (count, version) = says(&stage.pool, "orders").await;
    remove_own_feed(&stage.database(), "orders").await.unwrap();
    stage.pool.execute("DELETE FROM orders WHERE status = 'open'").await.unwrap();
    add_own_feed(&stage.database(), &feed("orders", "public.orders", None)).await.unwrap();
    let after = says(&stage.pool, "orders").await;
    assert!(after.0 == count - 6 && after.1 > version, "{after:?} after {version}");
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn removing_gives_way_to_a_long_transaction(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::with_orders(pool, options).await;
    let mut long = stage.session().await;
    long.execute("BEGIN").await.unwrap();
    long.execute("UPDATE orders SET status = 'open'").await.unwrap();
    let busy = remove_own_feed(&stage.database(), "open").await.unwrap_err();
    assert!(matches!(busy, OwnFeedError::Busy(_)), "{busy}");
    long.execute("COMMIT").await.unwrap();
    stage.orders_agree("nothing was removed").await;
    remove_own_feed(&stage.database(), "open").await.unwrap();
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_feed_follows_its_table_and_its_columns(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::with_orders(pool, options).await;
    // A session that has planned everything already.
    let mut session = stage.session().await;
    let (mut rows, mut open) = (3, 1);
    for (change, insert) in [
        ("SELECT 1", "INSERT INTO public.orders (status) VALUES ('open'), ('x')"),
        (
            "ALTER TABLE orders ADD COLUMN more int",
            "INSERT INTO public.orders (status, more) VALUES ('open', 1), ('x', 2)",
        ),
        (
            "ALTER TABLE orders ADD COLUMN token uuid DEFAULT gen_random_uuid(); ALTER TABLE orders ALTER COLUMN more TYPE text",
            "INSERT INTO public.orders (status) VALUES ('open'), ('x')",
        ),
        ("VACUUM FULL orders", "INSERT INTO public.orders (status) VALUES ('open'), ('x')"),
        ("ALTER TABLE orders DROP COLUMN amount", "INSERT INTO public.orders (status) VALUES ('open'), ('x')"),
        ("ALTER TABLE orders DROP COLUMN id", "INSERT INTO public.orders (status) VALUES ('open'), ('x')"),
        (
            "ALTER TABLE orders RENAME COLUMN status TO state",
            "INSERT INTO public.orders (state) VALUES ('open'), ('x')",
        ),
        (
            "ALTER TABLE orders ADD COLUMN status text DEFAULT 'open'",
            "INSERT INTO public.orders (state) VALUES ('open'), ('x')",
        ),
        (
            "ALTER TABLE orders RENAME TO \"Bestellungen\"",
            "INSERT INTO public.\"Bestellungen\" (state) VALUES ('open'), ('x')",
        ),
        (
            "CREATE SCHEMA shop; ALTER TABLE \"Bestellungen\" SET SCHEMA shop",
            "INSERT INTO shop.\"Bestellungen\" (state) VALUES ('open'), ('x')",
        ),
    ] {
        stage.pool.execute(change).await.unwrap();
        session.execute(insert).await.unwrap_or_else(|error| panic!("{change}: {error}"));
        (rows, open) = (rows + 2, open + 1);
        assert_eq!((says(&stage.pool, "orders").await.0, says(&stage.pool, "open").await.0), (rows, open), "{change}");
    }
    let table = "shop.\"Bestellungen\"".to_owned();
    assert_eq!(
        listed(&stage).await,
        [("open", open), ("orders", rows)].map(|(name, count)| (
            name.to_owned(),
            table.clone(),
            count,
            "ok".to_owned()
        ))
    );
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn what_a_filter_needs_is_not_taken_away_unseen(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::with_orders(pool, options).await;
    for (change, words) in [
        ("ALTER TABLE orders DROP COLUMN status", "depends on column status"),
        ("ALTER TABLE orders ALTER COLUMN status TYPE varchar(9)", "depends on column \"status\""),
        ("DROP TABLE orders", "depends on table orders"),
    ] {
        let refused = stage.pool.execute(change).await.unwrap_err();
        let database = refused.as_database_error().unwrap();
        let detail = database.downcast_ref::<sqlx::postgres::PgDatabaseError>().detail().unwrap_or_default();
        assert!(
            detail.contains("function tidemark.feed_open_matches(orders)") && detail.contains(words),
            "{change}: {refused} {detail}"
        );
    }
    // What the filter does not name is the user's own.
    stage.pool.execute("ALTER TABLE orders DROP COLUMN id, DROP COLUMN amount").await.unwrap();
    stage.orders_agree("nothing happened").await;
    // Taken away on purpose: writes go on.
    stage.pool.execute("ALTER TABLE orders DROP COLUMN status CASCADE, ADD COLUMN more int").await.unwrap();
    stage.pool.execute("INSERT INTO orders DEFAULT VALUES").await.unwrap();
    let state = FeedProblem::FilterGone.to_string();
    assert_eq!(states(&stage).await, [state.as_str(), "ok"]);
    assert_eq!(says(&stage.pool, "orders").await.0, 4);
    remove_own_feed(&stage.database(), "open").await.unwrap();

    // The other feed has no filter.
    stage.pool.execute("DROP TABLE orders").await.unwrap();
    let gone = ("orders".to_owned(), "public.orders".to_owned(), 4, FeedProblem::Gone.to_string());
    assert_eq!(listed(&stage).await, [gone]);
    remove_own_feed(&stage.database(), "orders").await.unwrap();
    assert_eq!(listed(&stage).await, []);
    let left = "SELECT (SELECT count(*) FROM pg_proc WHERE proname LIKE 'feed_o%') + (SELECT count(*) FROM pg_class WHERE relname LIKE 'feed_o%')";
    assert_eq!(common::own::number(&stage.pool, left).await, 0);
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn the_list_says_when_a_count_is_not_right_any_more(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::with_orders(pool, options).await;
    remove_own_feed(&stage.database(), "open").await.unwrap();
    for (change, back, words) in [
        (
            "ALTER TABLE orders DISABLE TRIGGER feed_orders_deleted",
            "ALTER TABLE orders ENABLE ALWAYS TRIGGER feed_orders_deleted",
            "disabled",
        ),
        ("ALTER TABLE orders DISABLE TRIGGER ALL", "ALTER TABLE orders ENABLE TRIGGER ALL", "disabled"),
        (
            "ALTER TABLE orders ENABLE REPLICA TRIGGER feed_orders_inserted",
            "ALTER TABLE orders ENABLE TRIGGER feed_orders_inserted",
            "disabled",
        ),
        ("ALTER TABLE orders SET UNLOGGED", "ALTER TABLE orders SET LOGGED", "unlogged"),
        ("CREATE TABLE younger () INHERITS (orders)", "DROP TABLE younger", "inherited"),
        (
            "ALTER TABLE orders ALTER id DROP IDENTITY; CREATE TABLE whole (LIKE orders INCLUDING ALL) PARTITION BY RANGE (id); ALTER TABLE whole ATTACH PARTITION orders DEFAULT",
            "ALTER TABLE whole DETACH PARTITION orders",
            "it is a partition",
        ),
    ] {
        stage.pool.execute(change).await.unwrap();
        let state = &states(&stage).await[0];
        assert!(state.contains(words), "{change}: {state}");
        stage.pool.execute(back).await.unwrap();
        assert_eq!(states(&stage).await, ["ok"], "{back}");
    }
    stage.end().await;
}

/// What a sync of these feeds does, `NAME: what` each.
async fn sync(stage: &Stage, owner: &str, feeds: &[OwnFeed]) -> Vec<String> {
    let mut told = Vec::new();
    let tell = |name: &str, outcome: Result<Change, OwnFeedError>| {
        told.push(match outcome {
            Ok(change) => format!("{name}: {change:?}"),
            Err(error) => error.to_string(),
        });
    };
    sync_own_feeds(&stage.database(), owner, feeds, tell).await.unwrap();
    told
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_list_is_brought_about_and_what_others_added_stays(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    stage.orders().await;
    add_own_feed(&stage.database(), &feed("by-hand", "public.orders", None)).await.unwrap();
    let (all, open) = (feed("all", "public.orders", None), feed("open", "public.orders", Some(OPEN)));
    assert_eq!(sync(&stage, "sync", &[all.clone(), open.clone()]).await, ["all: Added", "open: Added"]);
    let before = catalog(&stage.pool).await;
    let versions = [says(&stage.pool, "all").await, says(&stage.pool, "open").await];
    assert_eq!(sync(&stage, "sync", &[open.clone(), all.clone()]).await, ["open: Kept", "all: Kept"]);
    assert_eq!(catalog(&stage.pool).await, before);
    assert_eq!([says(&stage.pool, "all").await, says(&stage.pool, "open").await], versions);

    // Written otherwise, and still the same table.
    assert_eq!(
        sync(&stage, "sync", &[feed("all", "PUBLIC.\"orders\"", None), open.clone()]).await,
        ["all: Kept", "open: Kept"]
    );
    stage
        .pool
        .execute("CREATE FUNCTION is_shut(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT $1 <> 'open'$$")
        .await
        .unwrap();
    let changed = feed("open", "public.orders", Some("is_shut(status)"));
    assert_eq!(sync(&stage, "sync", &[changed, all.clone()]).await, ["open: Replaced", "all: Kept"]);
    let (count, version) = says(&stage.pool, "open").await;
    assert!(count == 1 && version > versions[1].1, "{version} after {versions:?}");

    // One that fails stays as it was, and does not hold up the others.
    let told =
        sync(&stage, "sync", &[feed("open", "public.orders", Some("nonsense")), feed("new", "public.orders", None)])
            .await;
    assert_eq!(told, ["all: Removed", "the filter cannot be used: column \"nonsense\" does not exist", "new: Added"]);
    assert_eq!(says(&stage.pool, "open").await, (count, version));

    // Of another owner, or added by hand: the same is welcome, anything else is not touched.
    let others = [feed("new", "public.orders", Some(OPEN)), feed("by-hand", "public.orders", None)];
    let told = sync(&stage, "another", &others).await;
    assert_eq!(
        told,
        ["new is not of this list, and counts something else: remove it, or choose another name", "by-hand: Kept"]
    );
    assert_eq!(sync(&stage, "another", &[]).await, [""; 0]);
    assert_eq!(sync(&stage, "sync", &[]).await, ["new: Removed", "open: Removed"]);
    assert_eq!(listed(&stage).await.len(), 1);
    let owners: Vec<Option<String>> =
        own_feeds(&stage.database()).await.unwrap().feeds.into_iter().map(|feed| feed.owner).collect();
    assert_eq!(owners, [None]);
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_list_finds_a_table_that_was_made_anew(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    stage.orders().await;
    let list = [feed("orders", "public.orders", None)];
    sync(&stage, "sync", &list).await;
    stage.pool.execute("DROP TABLE orders").await.unwrap();
    assert_eq!(sync(&stage, "sync", &list).await, ["there is no table public.orders in this database"]);
    stage.orders().await;
    assert_eq!(states(&stage).await, [FeedProblem::Gone.to_string()]);
    assert_eq!(sync(&stage, "sync", &list).await, ["orders: Replaced"]);
    assert_eq!(says(&stage.pool, "orders").await.0, 3);
    stage.end().await;
}
