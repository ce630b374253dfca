//! `POST /save`: what it stores, what it refuses, and what happens without a database.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;

use std::time::Duration;

use axum::{body::Body, http::Method};
use common::Stage;
use serde_json::json;
use sqlx::PgPool;
use tokio::time::Instant;
use uuid::Uuid;

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_text_is_stored_and_answered(pool: PgPool) {
    let stage = Stage::new(pool);
    let id = Uuid::new_v4();
    let answer = stage.save(json!({ "text": "  Ebbe & Flut ☾ \n", "id": id })).await;
    assert_eq!(answer.status, 201);
    let body = answer.json();
    assert_eq!(body["id"], id.to_string());
    assert_eq!(body["text"], "Ebbe & Flut ☾");
    assert!(body["created_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(body.as_object().unwrap().len(), 3);

    let without_id = stage.save(json!({ "text": "no id" })).await;
    assert_eq!(without_id.status, 201);
    without_id.json()["id"].as_str().unwrap().parse::<Uuid>().unwrap();
    assert_eq!(stage.rows().await, 2);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn texts_that_cannot_be_stored_are_refused_and_nothing_is_stored(pool: PgPool) {
    let stage = Stage::new(pool);
    stage.save(json!({ "text": "" })).await.is_error(422, "text_empty");
    stage.save(json!({ "text": " \n\t\u{2003}" })).await.is_error(422, "text_empty");
    stage.save(json!({ "text": "x".repeat(10_001) })).await.is_error(422, "text_too_long");
    stage.save(json!({ "text": "a\0b" })).await.is_error(422, "text_nul");
    assert_eq!(stage.rows().await, 0);

    let longest = stage.save(json!({ "text": format!(" {} ", "🌊".repeat(10_000)) })).await;
    assert_eq!(longest.status, 201);
    assert_eq!(stage.rows().await, 1);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn bodies_of_the_wrong_form_are_refused(pool: PgPool) {
    let stage = Stage::new(pool);
    for body in [
        "",
        "text",
        "{",
        "[]",
        "{}",
        r#"{"text":1}"#,
        r#"{"text":null}"#,
        r#"{"text":"a","id":"not-a-uuid"}"#,
        r#"{"text":"a","id":7}"#,
        r#"{"text":"a"} more"#,
        r#"{"text":"\ud800"}"#,
    ] {
        stage.call(Method::POST, "/save", body).await.is_error(400, "body_malformed");
    }
    stage.call(Method::POST, "/save", vec![0xff, 0xfe]).await.is_error(400, "body_malformed");
    let large = json!({ "text": "x".repeat(64 * 1024) }).to_string();
    stage.call(Method::POST, "/save", large).await.is_error(413, "body_too_large");
    assert_eq!(stage.rows().await, 0);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn an_id_is_one_text(pool: PgPool) {
    let stage = Stage::new(pool);
    let body = json!({ "text": "once", "id": Uuid::new_v4() });
    let first = stage.save(body.clone()).await;
    let again = stage.save(body.clone()).await;
    assert_eq!((again.status, again.json()), (first.status, first.json()));

    let body = json!({ "text": "two at once", "id": Uuid::new_v4() });
    let (one, two) = tokio::join!(stage.save(body.clone()), stage.save(body.clone()));
    assert_eq!((one.status.as_u16(), two.status.as_u16()), (201, 201));
    assert_eq!(one.json(), two.json());

    let other = json!({ "text": "something else", "id": body["id"] });
    stage.save(other).await.is_error(409, "id_taken");
    assert_eq!(stage.rows().await, 2);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn two_replicas_that_get_the_same_text_at_once_store_it_once(pool: PgPool) {
    let (one, two) = (Stage::new(pool.clone()), Stage::new(pool));
    for i in 0..20 {
        let body = json!({ "text": format!("text {i}"), "id": Uuid::new_v4() });
        let (a, b) = tokio::join!(one.save(body.clone()), two.save(body));
        assert_eq!((a.status.as_u16(), b.status.as_u16()), (201, 201));
        assert_eq!(a.json(), b.json());
    }
    assert_eq!(one.rows().await, 20);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_save_repeated_through_an_outage_ends_as_one_row(pool: PgPool) {
    let (stage, proxy) = Stage::behind_proxy(pool).await;
    assert_eq!(stage.save(json!({ "text": "before" })).await.status, 201);
    let body = json!({ "text": "through the outage", "id": Uuid::new_v4() });

    proxy.cut();
    stage.save(body.clone()).await.is_error(503, "database_unavailable");
    stage.get("/all").await.is_error(503, "database_unavailable");
    proxy.restore();
    proxy.freeze();
    let began = Instant::now();
    stage.save(body.clone()).await.is_error(503, "database_unavailable");
    assert!(began.elapsed() < Duration::from_secs(5), "within the timeout: {:?}", began.elapsed());
    proxy.thaw();

    // As the page does: the same request until it is answered.
    let first = test_support::wait_for(Duration::from_secs(10), "the save succeeds", async || {
        Some(stage.save(body.clone()).await).filter(|answer| answer.status == 201)
    });
    let first = first.await.0;
    assert_eq!(stage.save(body).await.json(), first.json());
    assert_eq!(stage.rows().await, 2);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn requests_are_counted_by_route(pool: PgPool) {
    let stage = Stage::new(pool);
    stage.save(json!({ "text": "counted" })).await;
    stage.call(Method::POST, "/save", "").await;
    stage.call(Method::DELETE, "/some/path", Body::empty()).await;
    stage.get("/").await;
    let text = prometheus::TextEncoder::new().encode_to_string(&stage.registry.gather()).unwrap();
    for line in [
        r#"tidemark_http_requests_total{method="POST",route="/save",status="201"} 1"#,
        r#"tidemark_http_requests_total{method="POST",route="/save",status="400"} 1"#,
        r#"tidemark_http_requests_total{method="other",route="page",status="404"} 1"#,
        r#"tidemark_http_requests_total{method="GET",route="page",status="200"} 1"#,
        r#"tidemark_text_saves_total{outcome="saved"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
}
