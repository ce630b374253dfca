//! `GET /all`: pages, newest first.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;

use common::{Answer, Stage};
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor, PgPool, postgres::PgConnectOptions};
use uuid::Uuid;

/// A migrated database beside the test's own, with an encoding that is not UTF-8.
async fn with_encoding(server: &PgPool, encoding: &str) -> PgPool {
    let options = PgConnectOptions::clone(&server.connect_options());
    // Postgres cuts names at 63 bytes, and the test's own name has as many: its beginning is the same for all.
    let own = options.get_database().unwrap();
    let name = format!("{encoding}{}", &own[own.len() - 40..]);
    let create =
        format!("CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'");
    server.execute(AssertSqlSafe(create)).await.unwrap();
    let pool = PgPool::connect_lazy_with(options.database(&name));
    store::MIGRATOR.run(&pool).await.unwrap();
    pool
}

/// Drops what [`with_encoding`] made.
async fn drop_database(server: &PgPool, stage: Stage) {
    let options = stage.pool.connect_options();
    let name = options.get_database().unwrap();
    let drop = format!("DROP DATABASE \"{name}\" WITH (FORCE)");
    server.execute(AssertSqlSafe(drop)).await.unwrap();
}

fn texts(answer: &Answer) -> Vec<String> {
    let texts = answer.json()["texts"].as_array().unwrap().clone();
    texts.iter().map(|text| text["text"].as_str().unwrap().to_owned()).collect()
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn pages_continue_where_the_last_one_ended_whatever_is_saved_meanwhile(pool: PgPool) {
    let stage = Stage::new(pool);
    let empty = stage.get("/all").await;
    assert_eq!((empty.status.as_u16(), empty.json()), (200, json!({ "texts": [], "next": null })));

    stage.save_many(5).await;
    let first = stage.get("/all?limit=2").await;
    assert_eq!(texts(&first), ["text 4", "text 3"]);
    let item = &first.json()["texts"][0];
    assert_eq!(item.as_object().unwrap().keys().collect::<Vec<_>>(), ["created_at", "id", "text"]);

    stage.save(json!({ "text": "new" })).await;
    let next = |answer: &Answer| format!("/all?limit=2&before={}", answer.json()["next"].as_str().unwrap());
    let second = stage.get(&next(&first)).await;
    assert_eq!(texts(&second), ["text 2", "text 1"]);
    let last = stage.get(&next(&second)).await;
    assert_eq!(texts(&last), ["text 0"]);
    assert!(last.json()["next"].is_null());
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_page_that_ends_exactly_at_the_end_is_the_last_one(pool: PgPool) {
    let stage = Stage::new(pool);
    stage.save_many(51).await;
    let first = stage.get("/all").await;
    assert_eq!(texts(&first).len(), 50, "the default");
    assert!(first.json()["next"].is_string());
    let all = stage.get("/all?limit=51").await;
    assert_eq!(texts(&all).len(), 51);
    assert!(all.json()["next"].is_null());
    assert_eq!(stage.get("/all?limit=500").await.status, 200);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn wrong_queries_are_refused(pool: PgPool) {
    let stage = Stage::new(pool);
    for limit in ["0", "-1", "501", "ten", "", "1.5", "%2B1"] {
        stage.get(&format!("/all?limit={limit}")).await.is_error(400, "limit_invalid");
    }
    for before in ["", "1", "AAAAAAAAAAAAAAAA", "%00", "x%27%20OR%201=1"] {
        stage.get(&format!("/all?before={before}")).await.is_error(400, "before_invalid");
    }
    stage.get("/all?limit=1&limit=2").await.is_error(400, "query_malformed");
    assert_eq!(stage.get("/all?something=else").await.status, 200);
}

#[sqlx::test(migrations = false)]
async fn bytes_that_are_not_utf_8_are_shown_as_replacement_characters(server: PgPool) {
    for (encoding, others) in [("SQL_ASCII", "süß � ☾"), ("WIN1252", "plain")] {
        let stage = Stage::new(with_encoding(&server, encoding).await);
        stage.save(json!({ "text": "first" })).await;
        // As a program writes it whose encoding is another one.
        stage.pool.execute(r"INSERT INTO tidemark.texts (body) VALUES (E'caf\x81')").await.unwrap();
        assert_eq!(stage.save(json!({ "text": others })).await.status, 201, "{encoding}");

        let list = stage.get("/all").await;
        assert_eq!(list.status, 200, "{encoding}: {list:?}");
        assert_eq!(texts(&list), [others, "caf\u{fffd}", "first"], "{encoding}");
        let newest = stage.get("/all?limit=1").await.json();
        let older = stage.get(&format!("/all?limit=1&before={}", newest["next"].as_str().unwrap())).await;
        assert_eq!(texts(&older), ["caf\u{fffd}"], "{encoding}");
        drop_database(&server, stage).await;
    }
}

#[sqlx::test(migrations = false)]
async fn a_text_with_replacement_characters_is_compared_as_it_is_stored(server: PgPool) {
    let stage = Stage::new(with_encoding(&server, "SQL_ASCII").await);
    // A character like any other: the client sent it, and sends it again.
    let body = json!({ "text": "caf\u{fffd}", "id": Uuid::new_v4() });
    let first = stage.save(body.clone()).await;
    let again = stage.save(body.clone()).await;
    assert_eq!((again.status, again.json()), (first.status, first.json()));

    // A row with other bytes: nobody stored that text by its id, whatever it looks like. No other save suffers from it.
    let id = Uuid::new_v4();
    let insert = format!(r"INSERT INTO tidemark.texts (id, body) VALUES ('{id}', E'caf\xe9')");
    stage.pool.execute(AssertSqlSafe(insert)).await.unwrap();
    let (listed, other, unrelated) = tokio::join!(
        stage.save(json!({ "text": "caf\u{fffd}", "id": id })),
        stage.save(json!({ "text": "café", "id": id })),
        stage.save(json!({ "text": "unrelated" })),
    );
    assert!(listed.status.is_client_error() && other.status.is_client_error(), "{listed:?} {other:?}");
    assert_eq!(unrelated.status, 201, "{unrelated:?}");
    assert_eq!(stage.rows().await, 3);
    drop_database(&server, stage).await;
}
