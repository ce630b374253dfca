//! What cannot be counted is refused with a reason, and nothing is changed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has said what it found")]

mod common;

use common::{
    Stage,
    own::{feed, number, refused, says},
};
use sqlx::{
    Executor,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use store::{OwnFeedError, add_own_feed, own_feeds, remove_own_feed};

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn tables_whose_rows_cannot_be_counted_are_refused(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    stage.orders().await;
    let tables = "CREATE VIEW seen AS SELECT * FROM orders; CREATE MATERIALIZED VIEW kept AS SELECT * FROM orders; CREATE SEQUENCE numbers;
        CREATE TABLE whole (at int) PARTITION BY RANGE (at); CREATE TABLE part PARTITION OF whole FOR VALUES FROM (0) TO (9);
        CREATE TABLE parent (); CREATE TABLE child () INHERITS (parent); CREATE UNLOGGED TABLE light (); CREATE TABLE \"We\"\"ird\" ();
        CREATE TABLE \"User\" (); CREATE TABLE \"Shop.User\" (); CREATE SCHEMA \"Shop\"; CREATE TABLE \"Shop\".lines (); CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing; CREATE FOREIGN TABLE far () SERVER nowhere;";
    stage.pool.execute(tables).await.unwrap();
    for (table, words) in [
        ("public.seen", "the rows of public.seen cannot be counted: it is no table"),
        ("public.kept", "it is no table"),
        ("public.numbers", "it is no table"),
        ("public.orders_pkey", "it is no table"),
        ("public.far", "it is no table"),
        ("public.whole", "it has partitions"),
        ("public.part", "it is a partition"),
        ("public.parent", "is inherited from"),
        ("public.child", "it inherits"),
        ("public.light", "it is unlogged"),
        ("pg_catalog.pg_class", "it belongs to Postgres"),
        ("information_schema.sql_features", "it belongs to Postgres"),
        ("tidemark.texts", "it belongs to the schema tidemark"),
        ("public.missing", "there is no table public.missing"),
        ("missing.orders", "there is no table missing.orders"),
        (
            "public.User",
            "there is no table public.User in this database, but there is public.\"User\": a name without quotes",
        ),
        ("public.\"USER\"", "but there is public.\"User\""),
        ("PUBLIC . user", "but there is public.\"User\""),
        ("shop.lines", "but there is \"Shop\".lines"),
        ("\"SHOP\".\"LINES\"", "but there is \"Shop\".lines"),
        ("public.\"Orders\"", "but there is public.orders"),
        ("public.\"shop.user\"", "but there is public.\"Shop.User\""),
        ("shop.user", "there is no table shop.user in this database"),
        ("elsewhere.public.orders", "is no table: write it as in SQL"),
        ("public.", "is no table: write it as in SQL"),
        ("public.orders; DROP TABLE orders", "is no table: write it as in SQL"),
        ("public.\"orders", "is no table: write it as in SQL"),
    ] {
        refused(&stage, &stage.database(), ("orders", table, None), words).await;
    }
    // What needs quotes is as good as any.
    let added = add_own_feed(&stage.database(), &feed("weird", "public.\"We\"\"ird\"", None)).await.unwrap();
    assert_eq!((added.table.as_str(), added.count, added.counts_replays), ("public.\"We\"\"ird\"", 0, true));
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_table_that_lives_as_long_as_a_session_is_refused(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let mut session = stage.session().await;
    session.execute("CREATE TEMPORARY TABLE short ()").await.unwrap();
    let table: String = sqlx::query_scalar("SELECT format('%s.short', pg_my_temp_schema()::regnamespace)")
        .fetch_one(&mut session)
        .await
        .unwrap();
    refused(&stage, &stage.database(), ("short", &table, None), "it is temporary").await;
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_table_that_logical_replication_fills_is_refused(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    stage.orders().await;
    // As a subscription would have it: a real one needs a second server.
    stage
        .pool
        .execute("INSERT INTO pg_subscription_rel VALUES (1, 'public.orders'::regclass, 'r', NULL)")
        .await
        .unwrap();
    refused(&stage, &stage.database(), ("orders", "public.orders", None), "logical replication fills it").await;
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn names_that_are_in_use_are_refused(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    stage.orders().await;
    add_own_feed(&stage.database(), &feed("orders", "public.orders", None)).await.unwrap();
    for name in ["texts", "visitors", "servers", "orders"] {
        let words = format!("the name {name} is in use");
        refused(&stage, &stage.database(), (name, "public.orders", Some("amount > 1")), &words).await;
    }
    for name in ["texts", "servers", "nothing"] {
        let error = remove_own_feed(&stage.database(), name).await.unwrap_err();
        assert!(matches!(error, OwnFeedError::Unknown(_)), "{name}: {error}");
    }
    assert_eq!(number(&stage.pool, "SELECT count(*) FROM tidemark.feeds").await, 4);

    // Two at once: one comes first.
    let database = stage.database();
    let (one, two) = (feed("twice", "public.orders", None), feed("twice", "public.orders", Some("amount > 1")));
    let (one, two) = tokio::join!(add_own_feed(&database, &one), add_own_feed(&database, &two));
    let refused: Vec<OwnFeedError> = [one, two].into_iter().filter_map(Result::err).collect();
    assert!(matches!(refused.as_slice(), [OwnFeedError::NameInUse(_)]), "{refused:?}");
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn filters_that_depend_on_more_than_the_row_are_refused(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    stage.orders().await;
    for (filter, words) in [
        ("stat = 'open'", "column \"stat\" does not exist"),
        ("status = ", "syntax error"),
        ("amount", "must be type boolean"),
        ("status > 1", "operator does not exist"),
        (
            "is_open(status)",
            "function is_open(text) does not exist (names without a schema are looked up in the search_path of this account)",
        ),
        ("status = 'open'::mood", "type \"mood\" does not exist (names without"),
        ("orders.status = 'open'", "missing FROM-clause entry"),
        ("amount > $1", "there is no parameter $1"),
        ("true", "it names no column"),
        ("now() > '2020-01-01' AND amount > 1", "whose result may change"),
        ("amount > random()", "whose result may change"),
        ("status = current_user", "whose result may change"),
        ("amount::money > 1::money", "a setting such as TimeZone"),
        ("to_tsvector(status) @@ 'open'", "a setting such as TimeZone"),
        ("amount > (SELECT 1)", "cannot use subquery in a filter"),
        ("EXISTS (SELECT FROM orders)", "cannot use subquery in a filter"),
        ("count(*) > 1", "aggregate functions are not allowed"),
        ("row_number() OVER () > amount", "window functions are not allowed"),
        ("generate_series(1, amount) > 1", "set-returning functions are not allowed"),
        ("xmin IS NOT NULL AND amount > 1", "a filter on system columns is not supported"),
        // Out of the brackets, and on to something else.
        ("true) OR (amount = 1", "syntax error"),
        ("amount = 1); DROP TABLE public.orders; SELECT (true", "cannot insert multiple commands"),
        ("amount = 1; DROP TABLE public.orders", "syntax error"),
        ("amount = 1) --", "syntax error"),
        ("amount = 1 /*", "unterminated /* comment"),
        ("status = 'open", "unterminated quoted string"),
        ("status = $$open", "unterminated dollar-quoted string"),
        ("amount = 1 THEN true END OR CASE WHEN true", "syntax error"),
        ("amount = 1 END; END; $$; DROP TABLE public.orders", "syntax error"),
        // Right, but it fails on a row that is there.
        ("1 / (amount - 2) > 0", "division by zero"),
        ("status::int > 0", "invalid input syntax for type integer"),
    ] {
        refused(&stage, &stage.database(), ("open", "public.orders", Some(filter)), words).await;
    }
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn filters_that_look_odd_count_what_they_say(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    stage.orders().await;
    let more = "CREATE SCHEMA shop; CREATE FUNCTION shop.large(amount int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT amount > 2';
        CREATE COLLATION shop.blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
        ALTER TABLE orders ADD COLUMN \"od\"\"d ' $$ column\" int DEFAULT 7, ADD COLUMN twice int GENERATED ALWAYS AS (amount * 2) STORED,
          ADD COLUMN label text COLLATE shop.blind DEFAULT 'OPEN', ADD COLUMN changed text DEFAULT 'x', ADD COLUMN \"columns\" text DEFAULT 'y',
          ADD COLUMN counted int DEFAULT 1, ADD COLUMN matching boolean DEFAULT false, ADD COLUMN it boolean DEFAULT false;";
    stage.pool.execute(more).await.unwrap();
    for (number, filter) in [
        "amount = 1 -- and no more",
        "amount = 1 /* and no more */",
        "(amount) = (1) OR (status) IS NULL",
        "status IN ('open', ')') AND status <> 'it''s' AND status <> $x$ ) $$ $body$ $_body$ \\ $x$",
        "\"od\"\"d ' $$ column\" = 7 AND amount < 3",
        "twice > 3",
        "label = 'open' AND amount > 1",
        "shop.large(amount)",
        "status IS DISTINCT FROM 'open'",
        "CASE WHEN amount > 1 THEN status = 'closed' ELSE true END",
        "changed = 'x' AND \"columns\" = 'y' AND amount > 1",
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("odd-{number}");
        add_own_feed(&stage.database(), &feed(&name, "public.orders", Some(filter)))
            .await
            .unwrap_or_else(|error| panic!("{filter}: {error}"));
        stage
            .pool
            .execute("INSERT INTO orders (status, amount) VALUES ('open', 1), ('closed', 2), (NULL, 3), (')', NULL)")
            .await
            .unwrap();
        stage.pool.execute("UPDATE orders SET amount = amount % 3 + 1 WHERE id % 2 = 0").await.unwrap();
        let rows = number_of(&stage, filter).await;
        assert!(rows > 0 && says(&stage.pool, &name).await.0 == rows, "{filter}: {rows}");
    }
    stage.end().await;
}

async fn number_of(stage: &Stage, filter: &str) -> i64 {
    number(&stage.pool, &format!("SELECT count(*) FROM orders WHERE ({filter}\n)")).await
}

#[sqlx::test(migrations = false)]
async fn a_database_without_the_schema_and_one_that_is_away_are_named(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    stage.pool.execute("CREATE TABLE public.orders ()").await.unwrap();
    let orders = feed("orders", "public.orders", None);
    for error in [
        add_own_feed(&stage.database(), &orders).await.unwrap_err(),
        remove_own_feed(&stage.database(), "orders").await.unwrap_err(),
        own_feeds(&stage.database()).await.unwrap_err(),
    ] {
        assert!(matches!(error, OwnFeedError::NotMigrated), "{error:?}");
    }
    let (proxy, away) = stage.proxy().await;
    proxy.cut();
    let error = add_own_feed(&away, &orders).await.unwrap_err();
    assert!(matches!(error, OwnFeedError::Connect(_)), "{error:?}");
    let wrong = stage.options.clone().password("wrong");
    let error = add_own_feed(&wrong.into(), &orders).await.unwrap_err();
    assert!(matches!(error, OwnFeedError::Connect(_)), "{error:?}");
    stage.end().await;
}
