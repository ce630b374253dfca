//! `GET /all`: pages, newest first.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;

use common::{Answer, Stage};
use serde_json::json;
use sqlx::PgPool;

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
