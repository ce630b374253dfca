//! Each text is stored once, and each caller gets its own row or its own error.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has said what it found")]

mod common;

use std::time::Duration;

use common::{Stage, a_backend_waits};
use prometheus::Registry;
use sqlx::{
    Executor, Postgres, Transaction,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use store::{Cause, SaveError, TextWriter, Texts, TextsConfig, WriterConfig, WriterMetrics};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::Instant,
};
use uuid::Uuid;

/// Keeps everybody else from writing until it is rolled back.
async fn lock(stage: &Stage) -> Transaction<'static, Postgres> {
    let mut transaction = stage.pool.begin().await.unwrap();
    transaction.execute("LOCK TABLE tidemark.texts IN EXCLUSIVE MODE").await.unwrap();
    transaction
}

fn save(writer: &TextWriter, id: Uuid, text: &str) -> JoinHandle<Result<store::Text, SaveError>> {
    let (writer, text) = (writer.clone(), text.to_owned());
    tokio::spawn(async move { writer.save(id, text, None).await })
}

/// Puts a first text in flight and holds it there, so that what comes next must be one batch.
async fn in_flight(stage: &Stage, writer: &TextWriter) -> Transaction<'static, Postgres> {
    let lock = lock(stage).await;
    drop(save(writer, Uuid::new_v4(), "first"));
    a_backend_waits(&stage.pool).await;
    lock
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_text_goes_at_once_when_nothing_is_in_flight(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let writer = stage.writer(stage.database());
    let id = Uuid::new_v4();
    let text = writer.save(id, "hällo ☃".into(), None).await.unwrap();
    assert_eq!((text.id, text.text.as_str()), (id, "hällo ☃"));
    let began = Instant::now();
    for _ in 0..10 {
        writer.save(Uuid::new_v4(), "another".into(), None).await.unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(1), "no timer is in the way: {:?}", began.elapsed());
    assert_eq!(stage.batches(), (11, 11.0));
    assert_eq!(stage.metric("tidemark_text_saves_total", "saved"), 11.0);
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn texts_that_arrive_during_a_commit_are_the_next_batches(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let writer = stage.writer(stage.database());
    let lock = in_flight(&stage, &writer).await;
    let mut saves = JoinSet::new();
    for i in 0..1500 {
        let writer = writer.clone();
        saves.spawn(async move {
            writer.save(Uuid::new_v4(), format!("text {i}"), None).await.unwrap().text == format!("text {i}")
        });
    }
    // Spawned before the barrier below, so each has taken its place in line when it returns.
    tokio::task::yield_now().await;
    lock.rollback().await.unwrap();
    assert!(saves.join_all().await.into_iter().all(|own| own), "each caller gets its own row");
    let (batches, rows) = stage.batches();
    assert_eq!(rows, 1501.0);
    assert!((3..=10).contains(&batches), "{batches} batches");
    assert_eq!(stage.rows().await, 1501);
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn an_id_is_stored_once(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let writer = stage.writer(stage.database());
    let id = Uuid::new_v4();
    let first = writer.save(id, "mine".into(), None).await.unwrap();
    assert_eq!(writer.save(id, "mine".into(), None).await.unwrap(), first);
    assert_eq!(writer.save(id, "other".into(), None).await.unwrap_err(), SaveError::Conflict);
    assert_eq!(stage.rows().await, 1);

    // The same within one batch.
    let lock = in_flight(&stage, &writer).await;
    let id = Uuid::new_v4();
    let saves = [save(&writer, id, "twin"), save(&writer, id, "twin"), save(&writer, id, "stranger")];
    tokio::task::yield_now().await;
    lock.rollback().await.unwrap();
    let [one, two, three] = saves;
    let one = one.await.unwrap().unwrap();
    assert_eq!(two.await.unwrap().unwrap(), one);
    assert_eq!(three.await.unwrap().unwrap_err(), SaveError::Conflict);
    assert_eq!(stage.rows().await, 3);
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn two_replicas_that_store_the_same_ids_agree(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let one = stage.writer(stage.database());
    let metrics = WriterMetrics::register(&Registry::new()).unwrap();
    let config = WriterConfig { database: stage.database(), application_name: "other replica".into() };
    let two = TextWriter::start(config, metrics, &stage.tracker, stage.token.clone());
    let mut saves = JoinSet::new();
    for i in 0..300 {
        let (one, two) = (one.clone(), two.clone());
        saves.spawn(async move {
            let (id, text) = (Uuid::new_v4(), format!("text {i}"));
            let (a, b) = tokio::join!(one.save(id, text.clone(), None), two.save(id, text, None));
            assert_eq!(a.unwrap(), b.unwrap());
        });
    }
    saves.join_all().await;
    assert_eq!(stage.rows().await, 300);
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_text_that_the_database_refuses_harms_nobody_else(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let writer = stage.writer(stage.database());
    let lock = in_flight(&stage, &writer).await;
    let good: Vec<_> = (0..20).map(|i| save(&writer, Uuid::new_v4(), &format!("good {i}"))).collect();
    let nul = save(&writer, Uuid::new_v4(), "a\0b");
    let long = save(&writer, Uuid::new_v4(), &"x".repeat(10_001));
    let more = save(&writer, Uuid::new_v4(), &"y".repeat(10_000));
    tokio::task::yield_now().await;
    lock.rollback().await.unwrap();
    for text in good {
        text.await.unwrap().unwrap();
    }
    more.await.unwrap().unwrap();
    assert_eq!(nul.await.unwrap().unwrap_err(), SaveError::Rejected { code: "22021".into() });
    assert_eq!(long.await.unwrap().unwrap_err(), SaveError::Rejected { code: "23514".into() });
    assert_eq!(
        writer.save(Uuid::new_v4(), "\0".into(), None).await.unwrap_err(),
        SaveError::Rejected { code: "22021".into() }
    );
    assert_eq!(stage.rows().await, 22);
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn without_a_database_a_save_fails_in_time_and_can_be_repeated(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let (proxy, through) = stage.proxy().await;
    let writer = stage.writer(through);
    let id = Uuid::new_v4();

    proxy.cut();
    let began = Instant::now();
    let refused = writer.save(id, "text".into(), None).await.unwrap_err();
    assert_eq!(refused, SaveError::Unavailable { cause: Cause::Connection });
    proxy.restore();
    let stored = writer.save(id, "text".into(), None).await.unwrap();

    proxy.freeze();
    let began_frozen = Instant::now();
    writer.save(Uuid::new_v4(), "frozen".into(), None).await.unwrap_err();
    assert!(began_frozen.elapsed() < Duration::from_millis(4500), "{:?}", began_frozen.elapsed());
    proxy.thaw();
    assert_eq!(writer.save(id, "text".into(), None).await.unwrap(), stored);
    assert!(began.elapsed() < Duration::from_secs(15));
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_connection_that_died_unnoticed_costs_no_caller_anything(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let (proxy, through) = stage.proxy().await;
    let writer = stage.writer(through);
    writer.save(Uuid::new_v4(), "before".into(), None).await.unwrap();
    proxy.cut();
    proxy.restore();
    writer.save(Uuid::new_v4(), "after a reset".into(), None).await.unwrap();
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND application_name = 'writer-under-test write'";
    stage.pool.execute(end).await.unwrap();
    writer.save(Uuid::new_v4(), "after a restart".into(), None).await.unwrap();
    assert_eq!(stage.rows().await, 3);
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_lock_held_for_long_leaves_no_backends_behind(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let writer = stage.writer(stage.database());
    let lock = lock(&stage).await;
    let began = Instant::now();
    for _ in 0..2 {
        let error = writer.save(Uuid::new_v4(), "late".into(), None).await.unwrap_err();
        assert!(matches!(error, SaveError::Unavailable { .. }), "{error:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    let backends = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND application_name = 'writer-under-test write'";
    test_support::wait_until(common::LONG, "the server has ended the statements", async || {
        sqlx::query_scalar::<_, i64>(backends).fetch_one(&stage.pool).await.unwrap() <= 1
    })
    .await;
    lock.rollback().await.unwrap();
    writer.save(Uuid::new_v4(), "in time".into(), None).await.unwrap();
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_writer_that_ends_stores_what_waits(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let writer = stage.writer(stage.database());
    let lock = in_flight(&stage, &writer).await;
    let saves: Vec<_> = (0..5).map(|i| save(&writer, Uuid::new_v4(), &format!("waiting {i}"))).collect();
    tokio::task::yield_now().await;
    stage.token.cancel();
    lock.rollback().await.unwrap();
    for text in saves {
        text.await.unwrap().unwrap();
    }
    stage.tracker.close();
    stage.tracker.wait().await;
    let late = writer.save(Uuid::new_v4(), "late".into(), None).await.unwrap_err();
    assert_eq!(late, SaveError::Unavailable { cause: Cause::Ended });
    assert_eq!(stage.rows().await, 6);
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn pages_are_newest_first_and_continue_where_the_last_one_ended(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let texts = Texts::new(TextsConfig { database: stage.database(), application_name: "list".into() });
    assert!(texts.page(50, None).await.unwrap().is_empty());
    for i in 0..5 {
        stage.insert(&format!("text {i}")).await;
    }
    let first = texts.page(2, None).await.unwrap();
    stage.insert("new").await;
    let second = texts.page(2, Some(first[1].seq)).await.unwrap();
    let third = texts.page(2, Some(second[1].seq)).await.unwrap();
    let bodies: Vec<&str> = [&first, &second, &third].into_iter().flatten().map(|text| text.text.as_str()).collect();
    assert_eq!(bodies, ["text 4", "text 3", "text 2", "text 1", "text 0"]);
    texts.close().await;
    stage.end().await;
}
