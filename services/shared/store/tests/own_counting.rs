//! The count of a user's own table is right after everything that can happen to a table, and counting does not hold up who writes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;

use common::{
    LONG, Stage,
    own::{Account, OPEN, feed, number, says},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sqlx::{
    AssertSqlSafe, Connection, Executor, PgConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use store::{add_own_feed, remove_own_feed};
use test_support::wait_until;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Runs the statements in one session and checks both feeds. `all` and `open` say whether the version of each must have grown: a version that grows for
/// nothing sends every screen the same number again.
async fn check(stage: &Stage, what: &str, (all, open): (bool, bool), statements: &[&'static str]) {
    let before = [says(&stage.pool, "orders").await.1, says(&stage.pool, "open").await.1];
    let mut session = stage.session().await;
    for statement in statements {
        session.execute(*statement).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    session.close().await.unwrap();
    stage.orders_agree(what).await;
    let after = [says(&stage.pool, "orders").await.1, says(&stage.pool, "open").await.1];
    assert_eq!([after[0] > before[0], after[1] > before[1]], [all, open], "{what}");
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn both_counts_are_right_after_each_kind_of_statement(pool: PgPoolOptions, options: PgConnectOptions) {
    const BOTH: (bool, bool) = (true, true);
    const ALL: (bool, bool) = (true, false);
    const OPEN: (bool, bool) = (false, true);
    const NONE: (bool, bool) = (false, false);
    let stage = Stage::with_orders(pool, options).await;
    stage.orders_agree("what was there").await;
    let check = async |what, changes, statements: &[&'static str]| check(&stage, what, changes, statements).await;

    check("a row that matches", BOTH, &["INSERT INTO orders (status) VALUES ('open')"]).await;
    check("a row that does not", ALL, &["INSERT INTO orders (status) VALUES ('closed')"]).await;
    check("a row of which nobody knows", ALL, &["INSERT INTO orders (status) VALUES (NULL)"]).await;
    let many = "INSERT INTO orders (status, amount) SELECT CASE WHEN i % 3 = 0 THEN 'open' ELSE 'new' END, i FROM generate_series(1, 999) i";
    check("many rows", BOTH, &[many]).await;
    check("no row", NONE, &["INSERT INTO orders (status) SELECT 'open' WHERE false"]).await;
    check("into the filter", OPEN, &["UPDATE orders SET status = 'open' WHERE amount BETWEEN 100 AND 110"]).await;
    check("out of the filter", OPEN, &["UPDATE orders SET status = 'closed' WHERE amount BETWEEN 105 AND 120"]).await;
    check(
        "as many in as out",
        NONE,
        &["UPDATE orders SET status = CASE status WHEN 'open' THEN 'x' ELSE 'open' END WHERE id IN (
        (SELECT min(id) FROM orders WHERE status = 'open'), (SELECT min(id) FROM orders WHERE status = 'closed'))"],
    )
    .await;
    check("an update beside the filter", NONE, &["UPDATE orders SET amount = amount + 1"]).await;
    check("an update of the key", NONE, &["UPDATE orders SET id = -id WHERE status = 'open'"]).await;
    check("some rows deleted", BOTH, &["DELETE FROM orders WHERE amount % 7 = 0"]).await;
    check(
        "a conflict that does nothing",
        NONE,
        &["INSERT INTO orders (id, status) SELECT id, 'open' FROM orders LIMIT 1 ON CONFLICT DO NOTHING"],
    )
    .await;
    check("conflicts that update, and new rows", BOTH, &[
        "INSERT INTO orders (id, status) SELECT i, 'new' FROM generate_series(-20, 20) i ON CONFLICT (id) DO UPDATE SET status = 'won'",
    ])
    .await;
    check("a merge", BOTH, &["MERGE INTO orders USING generate_series(1, 40) AS i ON id = i
        WHEN MATCHED AND i % 2 = 0 THEN DELETE WHEN MATCHED THEN UPDATE SET status = 'open' WHEN NOT MATCHED THEN INSERT (id, status) VALUES (i, 'open')"])
    .await;
    check("moved in one statement", BOTH, &[
        "WITH gone AS (DELETE FROM orders WHERE amount % 5 = 0 RETURNING amount) INSERT INTO orders (status, amount) SELECT 'open', amount FROM gone",
    ])
    .await;
    check("a rolled-back transaction", NONE, &["BEGIN", "DELETE FROM orders", "TRUNCATE orders", "ROLLBACK"]).await;
    check(
        "savepoints",
        BOTH,
        &[
            "BEGIN",
            "INSERT INTO orders (status) VALUES ('open')",
            "SAVEPOINT here",
            "UPDATE orders SET status = 'open'",
            "DELETE FROM orders WHERE amount > 10",
            "ROLLBACK TO SAVEPOINT here",
            "INSERT INTO orders (status) VALUES ('open'), ('x')",
            "COMMIT",
        ],
    )
    .await;
    check(
        "as a replica",
        BOTH,
        &["SET session_replication_role = replica", "INSERT INTO orders (status) VALUES ('open'), ('restored')"],
    )
    .await;
    check(
        "with another search path",
        BOTH,
        &[
            "CREATE SCHEMA evil",
            "CREATE FUNCTION evil.same(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT false'",
            "CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.same)",
            "SET search_path = evil, pg_catalog",
            "INSERT INTO public.orders (status) VALUES ('open')",
        ],
    )
    .await;
    check(
        "cascades of a key",
        BOTH,
        &[
            "CREATE TABLE customers (id int PRIMARY KEY)",
            "INSERT INTO customers SELECT generate_series(1, 3)",
            "ALTER TABLE orders ADD COLUMN customer int REFERENCES customers ON DELETE CASCADE",
            "INSERT INTO orders (status, customer) SELECT 'open', i FROM generate_series(1, 3) i",
            "DELETE FROM customers WHERE id < 3",
            "TRUNCATE customers CASCADE",
        ],
    )
    .await;
    check("after a truncate", BOTH, &["INSERT INTO orders (status) VALUES ('open')"]).await;
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn replays_are_counted_only_if_the_owner_of_the_table_adds_the_feed(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let stage = Stage::new(pool, options);
    stage.orders().await;
    let admin = Account::documented(&stage).await;
    for (database, counted) in [(stage.database(), 1), (admin.options.clone().into(), 0)] {
        add_own_feed(&database, &feed("orders", "public.orders", None)).await.unwrap();
        let before = says(&stage.pool, "orders").await.0;
        let mut session = stage.session().await;
        session.execute("SET session_replication_role = replica; INSERT INTO orders DEFAULT VALUES").await.unwrap();
        session.close().await.unwrap();
        assert_eq!(says(&stage.pool, "orders").await.0, before + counted);
        remove_own_feed(&database, "orders").await.unwrap();
    }
    admin.drop(&stage).await;
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_copy_is_one_change(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::with_orders(pool, options).await;
    let before = says(&stage.pool, "open").await;
    let mut session = stage.session().await;
    let mut copy = session.copy_in_raw("COPY public.orders (status) FROM STDIN").await.unwrap();
    copy.send("open\nclosed\n".repeat(50_000).into_bytes()).await.unwrap();
    assert_eq!(copy.finish().await.unwrap(), 100_000);
    session.close().await.unwrap();
    stage.orders_agree("a copy").await;
    assert_eq!(says(&stage.pool, "open").await, (before.0 + 50_000, before.1 + 1));
    stage.end().await;
}

/// One writer, until the token says so: single statements and transactions, some of which end badly. They are short, as `add` needs them: it waits 2 s.
async fn write(mut session: PgConnection, seed: u64, token: CancellationToken) {
    // Writers that wait in a circle hold their locks until one is chosen: not for as long as `add` waits.
    session.execute("SET deadlock_timeout = '50ms'").await.unwrap();
    let mut random = StdRng::seed_from_u64(seed);
    while !token.is_cancelled() {
        let transaction = random.random_bool(0.4);
        let mut script = vec![];
        for _ in 0..if transaction { random.random_range(1..5) } else { 1 } {
            let (number, status) = (random.random_range(1..9), ["open", "closed", "new"][random.random_range(0..3)]);
            script.push(match random.random_range(0..100) {
                0..35 => format!("INSERT INTO orders (status, amount) SELECT '{status}', i FROM generate_series(1, {number}) i"),
                35..60 => format!("UPDATE orders SET status = '{status}' WHERE amount = {number}"),
                60..80 => format!("DELETE FROM orders WHERE amount = {number} AND status = '{status}'"),
                80..90 => format!("INSERT INTO orders (id, status) VALUES (-{number}, '{status}') ON CONFLICT (id) DO UPDATE SET status = excluded.status"),
                90..94 if transaction => "SAVEPOINT here".into(),
                94..98 if transaction => "SAVEPOINT here; DELETE FROM orders; ROLLBACK TO SAVEPOINT here".into(),
                _ => "TRUNCATE orders".into(),
            });
        }
        if transaction {
            script.insert(0, "BEGIN".into());
            script.push(if random.random_bool(0.7) { "COMMIT".into() } else { "ROLLBACK".into() });
        }
        for statement in script {
            if let Err(error) = session.execute(AssertSqlSafe(statement)).await {
                // Writers that update each other's rows meet in circles, also without us; one of them has to give way.
                let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default();
                assert_eq!(code, "40P01", "{error}");
                session.execute("ROLLBACK").await.unwrap();
                break;
            }
        }
    }
    session.close().await.unwrap();
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn no_change_is_lost_between_writers_or_while_a_feed_is_added(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    stage.orders().await;
    let mut writers = Vec::new();
    for seed in 0..8 {
        writers.push(tokio::spawn(write(stage.session().await, seed, stage.token.clone())));
    }
    let written = async || number(&stage.pool, "SELECT last_value FROM public.orders_id_seq").await;
    let database = stage.database();
    for feed in [feed("orders", "public.orders", None), feed("open", "public.orders", Some(OPEN))] {
        let so_far = written().await;
        wait_until(LONG, "the writers write", async || written().await > so_far + 200).await;
        add_own_feed(&database, &feed).await.unwrap();
    }
    let so_far = written().await;
    wait_until(LONG, "the writers go on", async || written().await > so_far + 1_000).await;
    stage.token.cancel();
    for writer in writers {
        writer.await.unwrap();
    }
    stage.orders_agree("after all writers").await;
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn adding_is_in_no_circle_with_a_transaction_that_wants_more_of_the_table(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let stage = Stage::new(pool, options);
    stage.orders().await;
    let mut writer = stage.session().await;
    // If there is a circle, it is this one that is found in it.
    writer.execute("SET deadlock_timeout = '10ms'; BEGIN; INSERT INTO orders (status) VALUES ('open')").await.unwrap();
    let database = stage.database();
    let adding = tokio::spawn(async move { add_own_feed(&database, &feed("open", "public.orders", Some(OPEN))).await });
    stage.orders_are_locked("ShareRowExclusiveLock", false).await;
    writer.execute("TRUNCATE orders; INSERT INTO orders (status) VALUES ('open'), ('open'); COMMIT").await.unwrap();
    assert_eq!(adding.await.unwrap().unwrap().count, 2);
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn adding_gives_way_to_a_long_transaction(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    stage.orders().await;
    let before = common::own::catalog(&stage.pool).await;
    let mut long = stage.session().await;
    long.execute("BEGIN").await.unwrap();
    long.execute("UPDATE orders SET amount = 0").await.unwrap();

    let database = stage.database();
    let adding = tokio::spawn(async move { add_own_feed(&database, &feed("orders", "public.orders", None)).await });
    stage.orders_are_locked("ShareRowExclusiveLock", false).await;
    let mut behind = stage.session().await;
    let behind = tokio::spawn(async move { behind.execute("INSERT INTO orders DEFAULT VALUES").await.map(|_| ()) });
    let refused = adding.await.unwrap().unwrap_err().to_string();
    assert!(refused.contains("public.orders is in use by another transaction"), "{refused}");
    timeout(LONG, behind)
        .await
        .expect("whoever queued behind goes on, while the long transaction is still open")
        .unwrap()
        .unwrap();
    assert_eq!(common::own::catalog(&stage.pool).await, before);

    long.execute("COMMIT").await.unwrap();
    let added = add_own_feed(&stage.database(), &feed("orders", "public.orders", None)).await.unwrap();
    assert_eq!(added.count, 4);
    stage.end().await;
}
