//! A filter that fails on a row lets the write through, and the feed is marked; a write that is cancelled is cancelled.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;
#[path = "common/filtered.rs"]
mod filtered;

use common::{LONG, own::number};
use filtered::{Filtered, Shop};
use sqlx::{
    AssertSqlSafe, Connection, Executor, PgConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use store::own_feeds;
use test_support::wait_until;

/// What is written of the error of a statement.
async fn code(session: &mut PgConnection, statement: &str) -> Option<String> {
    let error = session.execute(AssertSqlSafe(statement)).await.err()?;
    Some(error.as_database_error().unwrap().code().unwrap().into_owned())
}

/// The SQLSTATE by which the filter failed.
async fn failure(shop: &Shop) -> Option<String> {
    own_feeds(&shop.stage.database()).await.unwrap().feeds.pop().unwrap().failure
}

/// A function that fails with a row of value 0.
fn failing(text: &str) -> String {
    format!(
        "CREATE FUNCTION fails(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$BEGIN IF $1 = 0 THEN {text}; END IF; RETURN $1 < 10; END$$"
    )
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn one_that_fails_on_a_row_lets_each_write_through(pool: PgPoolOptions, options: PgConnectOptions) {
    let shop = Shop::new(pool, options).await;
    for (setup, filter, code) in [
        ("SELECT 1".to_owned(), "100 / value > 10", "22012"),
        ("SELECT 1".to_owned(), "ln(value + 0.0) < ln(10.0)", "2201E"),
        ("SELECT 1".to_owned(), "CASE value WHEN 0 THEN 'x' ELSE '1' END::int = 1 AND value < 10", "22P02"),
        ("SELECT 1".to_owned(), "chr(value)::text < chr(10)", "54000"),
        ("SELECT 1".to_owned(), "-2147483648 + (value - 1) < 0 AND value < 10", "22003"),
        ("SELECT 1".to_owned(), "repeat('(', 1 - value) ~ repeat('(', 1 - value) AND value < 10", "2201B"),
        ("CREATE DOMAIN positive AS int CHECK (VALUE > 0)".to_owned(), "value::shop.positive < 10", "23514"),
        (failing("ASSERT false"), "shop.fails(value)", "P0004"),
        (failing("RAISE 'a value of the row: %', $1"), "shop.fails(value)", "P0001"),
        (failing("RAISE SQLSTATE 'ZZ999'"), "shop.fails(value)", "ZZ999"),
        (failing("RAISE SQLSTATE '40001'"), "shop.fails(value)", "40001"),
        (failing("RAISE SQLSTATE '53200'"), "shop.fails(value)", "53200"),
        (failing("RAISE SQLSTATE 'XX000'"), "shop.fails(value)", "XX000"),
        (failing("RETURN shop.fails($1)"), "shop.fails(value)", "54001"),
        (failing("COMMIT"), "shop.fails(value)", "2D000"),
        (failing("INSERT INTO shop.orders DEFAULT VALUES"), "shop.fails(value)", "0A000"),
        (failing("EXECUTE 'SELECT nothing'"), "shop.fails(value)", "42703"),
        (failing("SET search_path = shop"), "shop.fails(value)", "0A000"),
    ] {
        let filtered =
            Filtered { setup: &setup, value_type: "int", counts: "(1), (2)", counts_not: "(20), (30)", filter };
        shop.open(&filtered).await;
        shop.add(filter).await.unwrap_or_else(|error| panic!("{filter}: {error}"));
        let mut session = shop.session().await;
        assert_eq!(shop.write(&mut session, filter).await, None, "{setup} {filter}");
        assert_eq!(shop.problem().await, None, "{setup} {filter}");
        shop.execute("INSERT INTO shop.samples VALUES (0, false)").await;
        shop.write(&mut session, filter).await;
        assert_eq!(
            (shop.problem().await, failure(&shop).await.as_deref()),
            (Some("filter_failed"), Some(code)),
            "{setup} {filter}"
        );
        // TRUNCATE makes it right.
        shop.execute("TRUNCATE shop.orders; DELETE FROM shop.samples WHERE value = 0").await;
        assert_eq!((shop.problem().await, shop.counts().await), (None, (0, 0)), "{setup} {filter}");
        assert_eq!(shop.write(&mut session, filter).await, None, "{setup} {filter}");
        // So does adding it again.
        session.execute("INSERT INTO orders (value, counts) VALUES (0, false)").await.unwrap();
        session.execute("DELETE FROM orders WHERE value = 0").await.unwrap();
        assert_eq!(shop.problem().await, Some("filter_failed"), "{setup} {filter}");
        shop.remove().await;
        shop.add(filter).await.unwrap();
        assert_eq!((shop.problem().await, shop.agrees().await), (None, true), "{setup} {filter}");
        session.close().await.unwrap();
        shop.remove().await;
    }
    shop.end().await;
}

const RATIO: Filtered<'static> = Filtered {
    setup: "SELECT 1",
    value_type: "int",
    counts: "(1), (2)",
    counts_not: "(20), (30)",
    filter: "100 / value > 10",
};

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn one_that_fails_marks_what_was_committed(pool: PgPoolOptions, options: PgConnectOptions) {
    let shop = Shop::new(pool, options).await;
    shop.open(&RATIO).await;
    shop.add(RATIO.filter).await.unwrap();
    let mut session = shop.session().await;
    const BAD: &str = "INSERT INTO orders (value, counts) VALUES (1, true), (0, false), (2, true)";
    for (statements, then) in [
        (vec!["BEGIN", BAD, "ROLLBACK"], None),
        (
            vec![
                "BEGIN",
                "SAVEPOINT a",
                BAD,
                "ROLLBACK TO SAVEPOINT a",
                "INSERT INTO orders (value, counts) VALUES (1, true)",
                "COMMIT",
            ],
            None,
        ),
        (vec!["BEGIN", "SAVEPOINT a", BAD, "RELEASE SAVEPOINT a", "COMMIT"], Some("22012")),
        (vec!["BEGIN", BAD, "TRUNCATE orders", "INSERT INTO orders (value, counts) VALUES (1, true)", "COMMIT"], None),
        (vec!["BEGIN", "TRUNCATE orders", BAD, "COMMIT"], Some("22012")),
        (vec!["BEGIN", BAD, "SAVEPOINT a", "TRUNCATE orders", "ROLLBACK TO SAVEPOINT a", "COMMIT"], Some("22012")),
        (vec!["BEGIN ISOLATION LEVEL SERIALIZABLE", "SELECT count(*) FROM orders", BAD, "COMMIT"], Some("22012")),
        (
            vec![
                "BEGIN ISOLATION LEVEL REPEATABLE READ",
                "SAVEPOINT a",
                BAD,
                "UPDATE orders SET value = 0 WHERE value = 1",
                "DELETE FROM orders WHERE value = 0",
                "COMMIT",
            ],
            Some("22012"),
        ),
        (vec!["UPDATE orders SET value = 0, counts = false"], Some("22012")),
        (vec![BAD, "DELETE FROM orders"], Some("22012")),
    ] {
        shop.execute("TRUNCATE shop.orders; INSERT INTO shop.orders (value, counts) VALUES (1, true), (20, false)")
            .await;
        for statement in &statements {
            session.execute(*statement).await.unwrap_or_else(|error| panic!("{statements:?}: {error}"));
        }
        assert_eq!(failure(&shop).await.as_deref(), then, "{statements:?}");
        assert!(then.is_some() || shop.agrees().await, "{statements:?}: {:?}", shop.counts().await);
    }

    // In the middle of a large COPY.
    shop.execute("TRUNCATE shop.orders").await;
    let rows = |bad: &str| format!("{}{bad}{}", "1\tt\n20\tf\n".repeat(25_000), "2\tt\n30\tf\n".repeat(25_000));
    for (bad, then) in [("", None), ("0\tf\n", Some("22012"))] {
        let mut copy = session.copy_in_raw("COPY orders (value, counts) FROM STDIN").await.unwrap();
        copy.send(rows(bad).into_bytes()).await.unwrap();
        assert_eq!(copy.finish().await.unwrap(), 100_000 + u64::from(!bad.is_empty()));
        assert_eq!(failure(&shop).await.as_deref(), then, "{bad}");
        assert!(then.is_some() || shop.agrees().await, "{:?}", shop.counts().await);
    }
    session.execute("TRUNCATE orders").await.unwrap();
    assert_eq!((failure(&shop).await, shop.counts().await), (None, (0, 0)));
    session.close().await.unwrap();
    shop.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_write_that_is_cancelled_in_the_filter_is_cancelled(pool: PgPoolOptions, options: PgConnectOptions) {
    let shop = Shop::new(pool, options).await;
    let slow = Filtered {
        setup: "CREATE FUNCTION slow(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$BEGIN IF $1 = 0 THEN PERFORM pg_sleep(60); END IF; RETURN $1 < 10; END$$",
        filter: "shop.slow(value)",
        ..RATIO
    };
    shop.open(&slow).await;
    shop.add(slow.filter).await.unwrap();
    let mut session = shop.session().await;
    let rows = number(&shop.stage.pool, "SELECT count(*) FROM shop.orders").await;
    for write in ["INSERT INTO orders (value) VALUES (0)", "UPDATE orders SET value = 0"] {
        session.execute("SET statement_timeout = '300ms'").await.unwrap();
        assert_eq!(code(&mut session, write).await.as_deref(), Some("57014"), "{write}");
        session.execute("RESET statement_timeout").await.unwrap();
        let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut session).await.unwrap();
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND pid = ";
        let cancel = async {
            wait_until(LONG, "the filter sleeps", async || {
                number(&shop.stage.pool, &format!("{waits}{backend}")).await == 1
            })
            .await;
            number(&shop.stage.pool, &format!("SELECT pg_cancel_backend({backend})::int::bigint")).await
        };
        let (cancelled, _) = tokio::join!(code(&mut session, write), cancel);
        assert_eq!(cancelled.as_deref(), Some("57014"), "{write}");
    }
    assert_eq!(number(&shop.stage.pool, "SELECT count(*) FROM shop.orders").await, rows);
    assert_eq!((shop.problem().await, shop.agrees().await), (None, true));
    assert_eq!(shop.write(&mut session, "afterwards").await, None);
    session.close().await.unwrap();
    shop.end().await;
}

/// Postgres keeps the changed rows of a statement for its triggers, in files if they are many. That cannot be caught.
#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_limit_of_temporary_files_limits_statements(pool: PgPoolOptions, options: PgConnectOptions) {
    let shop = Shop::new(pool, options).await;
    shop.open(&RATIO).await;
    let (writer, database) = (&shop.writer.name, shop.stage.options.get_database().unwrap());
    shop.execute(&format!(
        "ALTER ROLE {writer} IN DATABASE \"{database}\" SET temp_file_limit = '1MB'; ALTER ROLE {writer} IN DATABASE \"{database}\" SET work_mem = '64kB'"
    ))
    .await;
    const LARGE: &str = "INSERT INTO orders (value, counts) SELECT 1 + 0 * generate_series(1, 100000), true";
    let mut session = shop.session().await;
    session.execute(LARGE).await.unwrap();
    shop.add(RATIO.filter).await.unwrap();
    for large in [LARGE, "UPDATE orders SET value = 2", "DELETE FROM orders"] {
        assert_eq!(code(&mut session, large).await.as_deref(), Some("53400"), "{large}");
    }
    assert_eq!((shop.problem().await, shop.agrees().await), (None, true));
    session.execute("INSERT INTO orders (value, counts) VALUES (1, true)").await.unwrap();
    assert!(shop.agrees().await);
    session.close().await.unwrap();
    shop.end().await;
}
