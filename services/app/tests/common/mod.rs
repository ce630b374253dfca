//! What the tests of this crate share: the routes on a database of their own, and one way to call them.
#![allow(dead_code, reason = "each test file is a program of its own and uses a part of this")]

pub mod program;

use std::{net::SocketAddr, path::PathBuf, sync::LazyLock};

use app::routes::{self, App};
use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode},
};
use http_body_util::BodyExt;
use prometheus::Registry;
use runtime::{HttpMetrics, Tasks};
use serde_json::{Value, json};
use sqlx::{PgPool, postgres::PgConnectOptions};
use store::{DatabaseUrl, TextWriter, Texts, TextsConfig, WriterConfig, WriterMetrics};
use test_support::Proxy;
use tower::ServiceExt;

pub struct Stage {
    pub router: Router,
    pub pool: PgPool,
    pub registry: Registry,
    tasks: Tasks,
}

/// An answer that was read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// Checks that this is an error of the common shape.
    #[track_caller]
    pub fn is_error(&self, status: u16, code: &str) {
        assert_eq!((self.status.as_u16(), self.json()["error"]["code"].as_str()), (status, Some(code)), "{self:?}");
        assert!(self.json()["error"]["message"].as_str().is_some_and(|message| !message.is_empty()));
        assert_eq!(self.headers.contains_key("retry-after"), status == 503);
    }
}

impl Stage {
    pub fn new(pool: PgPool) -> Self {
        let database = PgConnectOptions::clone(&pool.connect_options()).into();
        Self::at(pool, database)
    }

    /// With the app on the other side of a proxy.
    pub async fn behind_proxy(pool: PgPool) -> (Self, Proxy) {
        let options = PgConnectOptions::clone(&pool.connect_options());
        let proxy = proxy(&options).await;
        let through = options.host("127.0.0.1").port(proxy.addr().port());
        (Self::at(pool, through.into()), proxy)
    }

    fn at(pool: PgPool, database: DatabaseUrl) -> Self {
        let (tasks, registry) = (Tasks::default(), Registry::new());
        let writer = WriterConfig { database: database.clone(), application_name: "app-under-test".into() };
        let metrics = WriterMetrics::register(&registry).unwrap();
        let app = App {
            writer: TextWriter::start(writer, metrics, &tasks.tracker, tasks.token.clone()),
            texts: Texts::new(TextsConfig { database, application_name: "app-under-test".into() }),
        };
        let metrics = HttpMetrics::register(&registry, "page").unwrap();
        let router = routes::router(app, &page_dir(), "app-7", metrics).unwrap();
        Self { router, pool, registry, tasks }
    }

    pub async fn call(&self, method: Method, uri: &str, body: impl Into<Body>) -> Answer {
        call(self.router.clone(), method, uri, body).await
    }

    pub async fn get(&self, uri: &str) -> Answer {
        self.call(Method::GET, uri, Body::empty()).await
    }

    pub async fn save(&self, body: Value) -> Answer {
        self.call(Method::POST, "/save", body.to_string()).await
    }

    /// Saves texts that are named after their place.
    pub async fn save_many(&self, count: usize) {
        for i in 0..count {
            let answer = self.save(json!({ "text": format!("text {i}") })).await;
            assert_eq!(answer.status, StatusCode::CREATED);
        }
    }

    pub async fn rows(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM tidemark.texts").fetch_one(&self.pool).await.unwrap()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.tasks.token.cancel();
    }
}

pub async fn proxy(options: &PgConnectOptions) -> Proxy {
    let mut targets = tokio::net::lookup_host((options.get_host(), options.get_port())).await.unwrap();
    let target: SocketAddr = targets.next().unwrap();
    Proxy::start(target).await.unwrap()
}

pub async fn call(router: Router, method: Method, uri: &str, body: impl Into<Body>) -> Answer {
    let request = Request::builder().method(method).uri(uri).body(body.into()).unwrap();
    let response = router.oneshot(request).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let bytes = response.into_body().collect().await.unwrap().to_bytes().to_vec();
    Answer { status, headers, bytes }
}

/// A built page in miniature.
pub fn page_dir() -> PathBuf {
    // Once per process: a file that is written anew is empty for a moment, and another test may just be reading it.
    static WRITTEN: LazyLock<PathBuf> = LazyLock::new(|| {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("app-page");
        std::fs::create_dir_all(directory.join("assets")).unwrap();
        for (name, content) in [
            ("index.html", "<!doctype html><title>page</title>"),
            ("tide-mark.js", "export {}"),
            ("assets/board-4f2a.js", "console.log()"),
            ("../secret.txt", "not a part of the page"),
        ] {
            std::fs::write(directory.join(name), content).unwrap();
        }
        directory
    });
    WRITTEN.clone()
}
