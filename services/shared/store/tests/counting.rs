//! The count of a table is right after everything that can happen to a table.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has said what it found")]

mod common;

use common::{Stage, count, version};
use sqlx::{
    Connection, Executor, PgConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use store::Reader;

/// Runs the statements in one session and checks that the reader's count is the table's count. `changes` says whether the
/// version must have grown; it must not grow for nothing, or every screen would be sent the same number again.
async fn check(stage: &Stage, reader: &Reader, what: &str, changes: bool, statements: &[&'static str]) {
    let before = reader.reread().await.unwrap();
    let mut session = PgConnection::connect_with(&stage.options).await.unwrap();
    for statement in statements {
        session.execute(*statement).await.unwrap();
    }
    session.close().await.unwrap();
    let after = reader.reread().await.unwrap();
    assert_eq!(count(&after), stage.rows().await, "{what}");
    assert_eq!(version(&after) > version(&before), changes, "{what}");
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn the_count_is_right_after_each_kind_of_statement(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let reader = stage.reader(stage.config());
    let check =
        async |what, changes, statements: &[&'static str]| check(&stage, &reader, what, changes, statements).await;

    check("one row", true, &["INSERT INTO tidemark.texts (body) VALUES ('one')"]).await;
    check("many rows", true, &["INSERT INTO tidemark.texts (body) SELECT 'n' || i FROM generate_series(1, 999) i"])
        .await;
    check("no row", false, &["INSERT INTO tidemark.texts (body) SELECT 'none' WHERE false"]).await;
    check("a rolled-back insert", false, &["BEGIN", "INSERT INTO tidemark.texts (body) VALUES ('no')", "ROLLBACK"])
        .await;
    check(
        "savepoints",
        true,
        &[
            "BEGIN",
            "INSERT INTO tidemark.texts (body) VALUES ('kept')",
            "SAVEPOINT here",
            "INSERT INTO tidemark.texts (body) VALUES ('dropped'), ('too')",
            "ROLLBACK TO SAVEPOINT here",
            "INSERT INTO tidemark.texts (body) VALUES ('also kept')",
            "COMMIT",
        ],
    )
    .await;
    check(
        "a conflict",
        true,
        &["INSERT INTO tidemark.texts (id, body) VALUES ('00000000-0000-4000-8000-000000000001', 'a')"],
    )
    .await;
    check("a conflict that does nothing", false, &[
        "INSERT INTO tidemark.texts (id, body) VALUES ('00000000-0000-4000-8000-000000000001', 'b') ON CONFLICT DO NOTHING",
    ])
    .await;
    check(
        "a conflict that updates",
        false,
        &["INSERT INTO tidemark.texts (id, body) VALUES ('00000000-0000-4000-8000-000000000001', 'b')
         ON CONFLICT (id) DO UPDATE SET body = excluded.body"],
    )
    .await;
    check("some rows deleted", true, &["DELETE FROM tidemark.texts WHERE body LIKE 'n1%'"]).await;
    check("no row deleted", false, &["DELETE FROM tidemark.texts WHERE false"]).await;
    check(
        "moved in one statement",
        true,
        &["WITH gone AS (DELETE FROM tidemark.texts WHERE body LIKE 'n2%' RETURNING body)
         INSERT INTO tidemark.texts (body) SELECT body || '!' FROM gone"],
    )
    .await;
    check(
        "as a replica",
        true,
        &[
            "SET session_replication_role = replica",
            "INSERT INTO tidemark.texts (body) VALUES ('restored'), ('from'), ('a dump')",
        ],
    )
    .await;
    check("a rolled-back truncate", false, &["BEGIN", "TRUNCATE tidemark.texts", "ROLLBACK"]).await;
    check("a truncate", true, &["TRUNCATE tidemark.texts"]).await;
    check("after a truncate", true, &["INSERT INTO tidemark.texts (body) VALUES ('again')"]).await;
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn the_count_is_right_after_a_copy_of_100_000_rows(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let reader = stage.reader(stage.config());
    let before = reader.reread().await.unwrap();

    let mut session = PgConnection::connect_with(&stage.options).await.unwrap();
    let mut copy = session.copy_in_raw("COPY tidemark.texts (body) FROM STDIN").await.unwrap();
    let rows: String = (0..100_000).map(|i| format!("row {i}\n")).collect();
    copy.send(rows.into_bytes()).await.unwrap();
    assert_eq!(copy.finish().await.unwrap(), 100_000);
    session.close().await.unwrap();

    let after = reader.reread().await.unwrap();
    assert_eq!(count(&after), 100_000);
    assert_eq!(version(&after), version(&before) + 1, "one statement is one change");
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_feed_is_data(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let reader = stage.reader(stage.config());
    for statement in [
        "SELECT tidemark.create_feed('ships', 'moored', 'ever')",
        "SELECT tidemark.count_change('ships', 3, 5)",
        "SELECT tidemark.count_change('ships', -1, 0)",
    ] {
        stage.pool.execute(statement).await.unwrap();
    }
    let reading = reader.reread().await.unwrap();
    let names: Vec<&str> = reading.feeds.iter().map(|feed| feed.name.as_str()).collect();
    assert_eq!(names, ["ships", "texts", "visitors"]);
    assert_eq!(reading.feeds[0].fields, [("moored".to_owned(), 2), ("ever".to_owned(), 5)]);
    assert_eq!(reading.feeds[0].version, 2);

    stage.pool.execute("DELETE FROM tidemark.feeds").await.unwrap();
    assert!(reader.reread().await.unwrap().feeds.is_empty(), "no feed at all is no error");
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_change_leaves_its_time_and_trace_in_its_delta(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut transaction = stage.pool.begin().await.unwrap();
    sqlx::query("SELECT set_config('tidemark.traceparent', $1, true)")
        .bind(TRACE)
        .execute(&mut *transaction)
        .await
        .unwrap();
    transaction.execute("INSERT INTO tidemark.texts (body) VALUES ('traced')").await.unwrap();
    transaction.commit().await.unwrap();
    let (trace, recent): (String, bool) =
        sqlx::query_as("SELECT traceparent, at > now() - interval '1 minute' FROM tidemark.deltas")
            .fetch_one(&stage.pool)
            .await
            .unwrap();
    assert_eq!((trace.as_str(), recent), (TRACE, true));
    stage.end().await;
}
