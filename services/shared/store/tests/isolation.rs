//! Whatever a writer's transaction is, counting makes it neither fail nor wait, and the count is right: isolation levels, many statements, prepared
//! transactions, old snapshots, a database that was restored.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;

use std::time::Duration;

use common::{
    LONG, Stage, count, count_is, migrated,
    own::{OPEN, feed, number, says},
};
use sqlx::{
    AssertSqlSafe, Connection, Executor, PgConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use store::{Rest, add_own_feed};
use test_support::{ServerFiles, wait_until};
use tokio::{task::JoinSet, time::Instant};

const LEVELS: [&str; 3] = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];

/// Transactions of one insert each that 8 writers are refused, of how many.
async fn refused(stage: &Stage, table: &'static str, level: &'static str) -> usize {
    let mut writers = JoinSet::new();
    for _ in 0..8 {
        let mut session = PgConnection::connect_with(&stage.options).await.unwrap();
        writers.spawn(async move {
            let mut refused = 0;
            for _ in 0..150 {
                let insert =
                    format!("BEGIN ISOLATION LEVEL {level}; INSERT INTO {table} (status) VALUES ('open'); COMMIT");
                if let Err(error) = session.execute(AssertSqlSafe(insert)).await {
                    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "40001", "{error}");
                    refused += 1;
                    session.execute("ROLLBACK").await.unwrap();
                }
            }
            session.close().await.unwrap();
            refused
        });
    }
    writers.join_all().await.into_iter().sum()
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn as_many_are_refused_as_without_a_feed_at_every_level(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::with_orders(pool, options).await;
    let reader = stage.reader(stage.config());
    stage.pool.execute("CREATE TABLE public.bare (LIKE public.orders INCLUDING ALL)").await.unwrap();
    for level in LEVELS {
        let [bare, counted] =
            [refused(&stage, "public.bare", level).await, refused(&stage, "public.orders", level).await];
        assert_eq!((bare, counted), (0, 0), "{level}, of 1,200");
    }
    stage.orders_agree("all writers").await;
    reader.reread().await.unwrap();
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_snapshot_that_is_older_than_others_changes_writes_and_truncates(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let stage = Stage::with_orders(pool, options).await;
    for level in LEVELS {
        let mut writer = stage.session().await;
        writer
            .execute(AssertSqlSafe(format!("BEGIN ISOLATION LEVEL {level}; SELECT count(*) FROM orders")))
            .await
            .unwrap();
        // As many other backends as there are locks, each with a change, and a fold.
        for _ in 0..64 {
            let mut other = stage.session().await;
            other.execute("INSERT INTO orders (status) VALUES ('open')").await.unwrap();
            other.close().await.unwrap();
        }
        stage.pool.execute("SELECT tidemark.fold_feeds(1000)").await.unwrap();
        writer.execute("INSERT INTO orders (status) VALUES ('open'), ('closed')").await.unwrap();
        writer.execute("TRUNCATE orders").await.unwrap();
        writer.execute("INSERT INTO orders (status) VALUES ('open'), ('closed')").await.unwrap();
        writer.execute("COMMIT").await.unwrap();
        stage.orders_agree(level).await;
        writer.close().await.unwrap();
    }
    stage.end().await;
}

/// How long so many single-row statements take in one transaction.
async fn statements(session: &mut PgConnection, statements: u32) -> Duration {
    let began = Instant::now();
    let script = format!(
        "DO $$ BEGIN FOR i IN 1..{statements} LOOP INSERT INTO public.orders (status) VALUES ('open'); END LOOP; END $$"
    );
    session.execute(AssertSqlSafe(script)).await.unwrap();
    began.elapsed()
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn many_statements_in_one_transaction_take_linear_time(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::with_orders(pool, options).await;
    let mut session = stage.session().await;
    statements(&mut session, 1_000).await;
    let (few, many) = (statements(&mut session, 2_000).await, statements(&mut session, 20_000).await);
    // Ten times as many; with a row that is updated in place it is a hundred times.
    assert!(many < few * 40, "2,000 statements take {few:?}, 20,000 take {many:?}");
    stage.orders_agree("after all statements").await;
    assert_eq!(says(&stage.pool, "orders").await.0, 23_003);
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn neither_an_old_snapshot_nor_a_long_writer_makes_reading_walk_over_what_is_folded(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let stage = Stage::with_orders(pool, options).await;
    let mut old = stage.session().await;
    old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM orders").await.unwrap();
    let mut long = stage.session().await;
    long.execute("BEGIN; INSERT INTO orders (status) VALUES ('open')").await.unwrap();
    let mut writer = stage.session().await;
    // Buffers that reading all feeds takes.
    let buffers = async || {
        let mut session = stage.session().await;
        // Plans and caches first.
        session.execute("SELECT * FROM tidemark.feed_values()").await.unwrap();
        let explain = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM tidemark.feed_values()";
        let plan: sqlx::types::JsonValue = sqlx::query_scalar(explain).fetch_one(&mut session).await.unwrap();
        session.close().await.unwrap();
        plan[0]["Plan"]["Shared Hit Blocks"].as_u64().unwrap() + plan[0]["Plan"]["Shared Read Blocks"].as_u64().unwrap()
    };
    let mut reads = Vec::new();
    for _ in 0..10 {
        statements(&mut writer, 2_000).await;
        stage.pool.execute("SELECT tidemark.fold_feeds(50000)").await.unwrap();
        reads.push(buffers().await);
    }
    let dead = number(&stage.pool, "SELECT pg_relation_size('tidemark.deltas') / 8192").await;
    assert!(dead > 200, "the old snapshot keeps {dead} pages of deltas");
    assert!(reads[9] <= reads[0] * 2, "buffers of a read: {reads:?}");
    long.execute("COMMIT").await.unwrap();
    stage.orders_agree("after the long writer").await;
    old.execute("COMMIT").await.unwrap();
    stage.end().await;
}

#[tokio::test]
async fn transactions_can_be_prepared_and_their_changes_are_seen() {
    let files = ServerFiles::find().await.unwrap();
    let directory = files.root.join("prepares");
    files.initialise(&directory).await;
    let server = files.serve(&directory, &[("max_prepared_transactions", "20")]).await;
    let stage = Stage::new(PgPoolOptions::new(), server.options());
    migrated(&stage.database()).await;
    stage.orders().await;
    for own in [feed("orders", "public.orders", None), feed("open", "public.orders", Some(OPEN))] {
        add_own_feed(&stage.database(), &own).await.unwrap();
    }
    assert!(store::own_feeds(&stage.database()).await.unwrap().prepares_transactions);
    let reader = stage.reader(stage.config_without_poll());
    let value = async || reader.subscribe().borrow().reading.as_ref().map(|reading| reading.feeds[1].fields[0].1);
    wait_until(LONG, "the reader waits", async || reader.subscribe().borrow().rest == Rest::Asleep).await;

    let mut session = stage.session().await;
    for (round, (end, orders)) in [("COMMIT", 5), ("ROLLBACK", 5), ("COMMIT", 7)].into_iter().enumerate() {
        let before = value().await;
        let write = format!(
            "BEGIN; INSERT INTO orders (status) VALUES ('open'), ('new'); SAVEPOINT a; UPDATE orders SET status = 'open'; ROLLBACK TO a;
             UPDATE orders SET amount = 5; PREPARE TRANSACTION 'round {round}'"
        );
        session.execute(AssertSqlSafe(write)).await.unwrap();
        // Folds while it is prepared, and other writers.
        session.execute("SELECT tidemark.fold_feeds(1000)").await.unwrap();
        assert_eq!(value().await, before);
        let began = Instant::now();
        session.execute(AssertSqlSafe(format!("{end} PREPARED 'round {round}'"))).await.unwrap();
        wait_until(LONG, "the reader shows it", async || value().await == Some(orders)).await;
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        stage.orders_agree(end).await;
    }
    // TRUNCATE, and texts of our own, whose writers still notify.
    session.execute("BEGIN; TRUNCATE orders; PREPARE TRANSACTION 'empty'").await.unwrap();
    session.execute("COMMIT PREPARED 'empty'").await.unwrap();
    wait_until(LONG, "the reader shows no orders", async || value().await == Some(0)).await;
    stage.insert("a text").await;
    count_is(&reader, 1).await;
    session.close().await.unwrap();
    stage.end().await;
    server.stop().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_database_that_was_restored_into_another_server_counts_on(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let reader = stage.reader(stage.config_without_poll());
    for text in 0..5 {
        stage.insert(&format!("folded {text}")).await;
    }
    stage.pool.execute("SELECT tidemark.fold_feeds(1000)").await.unwrap();
    for text in 0..3 {
        stage.insert(&format!("not folded {text}")).await;
    }
    let before = reader.reread().await.unwrap();
    // As a dump of a server that had used many more transactions brings them: its numbers are in this server's future.
    let restored = "UPDATE tidemark.bases SET from_xid = (from_xid::text::bigint + 1000000000)::text::xid8, open_xids = '{1000000007}';
        UPDATE tidemark.deltas SET xid = (xid::text::bigint + 1000000000)::text::xid8";
    stage.pool.execute(restored).await.unwrap();
    for (step, expected) in [("SELECT 1", 8), ("INSERT INTO tidemark.texts (body) VALUES ('new')", 9)] {
        stage.pool.execute(step).await.unwrap();
        assert_eq!(count(&reader.reread().await.unwrap()), expected, "{step}");
    }
    // In pieces, so that some of the old ones are left with some of the new ones.
    for _ in 0..6 {
        stage.pool.execute("INSERT INTO tidemark.texts (body) VALUES ('newer')").await.unwrap();
        stage.pool.execute("SELECT tidemark.fold_feeds(2)").await.unwrap();
        assert_eq!(count(&reader.reread().await.unwrap()), stage.rows().await);
    }
    let after = reader.reread().await.unwrap();
    assert_eq!(common::version(&after), common::version(&before) + 7);
    stage.end().await;
}
