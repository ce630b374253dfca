//! The program works behind a real PgBouncer in transaction mode, whose server connections its replicas share.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;

use common::program::{LONG, Running, app, request, url};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use test_support::{PgBouncer, PoolMode, wait_until};
use tokio::{task::JoinSet, time::timeout};

/// Callers that save at once, and the texts of each.
const CALLERS: usize = 8;
const TEXTS: usize = 25;

async fn migrate(url: &str) -> Option<i32> {
    let running = app(&[("DATABASE_URL", url)]).arg("migrate").output();
    timeout(LONG, running).await.unwrap().unwrap().status.code()
}

#[sqlx::test(migrations = false)]
async fn two_replicas_migrate_save_and_list_through_a_transaction_pooler(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let pooler = PgBouncer::start(&std::env::var("DATABASE_URL").unwrap(), PoolMode::Transaction).await;
    let through = url(&options, pooler.addr().port());
    let (one, two) = tokio::join!(migrate(&through), migrate(&through));
    assert_eq!((one, two), (Some(0), Some(0)));
    assert_eq!(migrate(&through).await, Some(0), "no lock was left");

    let replicas = [Running::start(&[], &through).await, Running::start(&[], &through).await];
    for replica in &replicas {
        wait_until(LONG, "the replica is ready", async || replica.ready().await).await;
    }
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let replica = replicas[caller % 2].public;
        callers.spawn(async move {
            for text in 0..TEXTS {
                let body = format!(r#"{{"text":"text {text} of caller {caller}"}}"#);
                let saved = request(replica, "POST", "/save", &body).await;
                assert!(saved.starts_with("HTTP/1.1 201"), "{saved}");
                let list = request(replica, "GET", "/all?limit=1", "").await;
                assert!(list.starts_with("HTTP/1.1 200") && list.contains("of caller"), "{list}");
            }
        });
    }
    callers.join_all().await;
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM tidemark.texts")
        .fetch_one(&pool.connect_lazy_with(options))
        .await
        .unwrap();
    assert_eq!(rows, (CALLERS * TEXTS) as i64);
    for replica in &replicas {
        assert!(replica.ready().await);
    }
}
