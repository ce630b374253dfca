//! The page's files, and what all answers have in common.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;

use axum::{body::Body, http::Method};
use common::Stage;
use sqlx::PgPool;

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn files_say_how_long_they_keep(pool: PgPool) {
    let stage = Stage::new(pool);
    for (path, kind, caching) in [
        ("/", "text/html", "no-cache"),
        ("/index.html", "text/html", "no-cache"),
        ("/tide-mark.js", "text/javascript", "no-cache"),
        ("/assets/board-4f2a.js", "text/javascript", "public, max-age=31536000, immutable"),
    ] {
        let answer = stage.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.headers["content-type"].to_str().unwrap().starts_with(kind), "{path}: {answer:?}");
        assert_eq!(answer.headers["cache-control"], caching, "{path}");
        let embeddable = answer.headers.get("access-control-allow-origin").is_some_and(|value| value == "*")
            && answer.headers.get("cross-origin-resource-policy").is_some_and(|value| value == "cross-origin");
        assert_eq!(embeddable, path == "/tide-mark.js");
    }
    let head = stage.call(Method::HEAD, "/", Body::empty()).await;
    assert_eq!((head.status.as_u16(), head.bytes.len()), (200, 0));
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn unknown_paths_and_wrong_methods_are_answered_in_the_common_shape(pool: PgPool) {
    let stage = Stage::new(pool);
    for path in ["/nope", "/save/more", "/assets", "/assets/nope.js", "/../secret.txt", "/%2e%2e/secret.txt", "/a%00b"]
    {
        stage.get(path).await.is_error(404, "not_found");
    }
    stage.call(Method::POST, "/nope", "{}").await.is_error(404, "not_found");
    for (method, path, allow) in [
        (Method::GET, "/save", "POST"),
        (Method::DELETE, "/save", "POST"),
        (Method::POST, "/all", "GET,HEAD"),
        (Method::PUT, "/", "GET,HEAD"),
        (Method::POST, "/index.html", "GET,HEAD"),
    ] {
        let answer = stage.call(method, path, Body::empty()).await;
        answer.is_error(405, "method_not_allowed");
        assert_eq!(answer.headers["allow"], allow, "{path}");
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn every_answer_protects_the_page_and_names_the_replica(pool: PgPool) {
    let stage = Stage::new(pool);
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                  manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    for path in ["/", "/all", "/save", "/nope", "/assets/board-4f2a.js"] {
        let headers = stage.get(path).await.headers;
        assert_eq!(headers["content-security-policy"], policy, "{path}");
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["referrer-policy"], "no-referrer", "{path}");
        assert_eq!(headers["x-tidemark-replica"], "app-7", "{path}");
    }
    for path in ["/all", "/save", "/nope"] {
        assert_eq!(stage.get(path).await.headers["cache-control"], "no-store", "{path}");
    }
}
