//! Partitions of samples are made ahead, made again when they are missing, and dropped whole.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has said what it found")]

mod common;

use std::time::Duration;

use chrono::{DateTime, Timelike, Utc};
use common::{
    LONG, Stage,
    samples::{HOUR, Storing, config, partition, partitions, rows, scalar, this_second, until},
};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Executor,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use store::SamplesConfig;
use test_support::wait_until;
use tokio::time::Instant;

const ROLL: &str = "SELECT made, dropped FROM tidemark.roll_metrics('24 hours')";

async fn roll(stage: &Stage) -> (i32, i32) {
    sqlx::query_as(ROLL).fetch_one(&stage.pool).await.unwrap()
}

fn hours(from: i64, to: i64) -> Vec<String> {
    (from..=to).map(|hour| partition(Utc::now() + chrono::Duration::hours(hour))).collect()
}

/// Puts a partition where an hour of the past would have one.
async fn past(stage: &Stage, hours: i64) -> String {
    let hour = Utc::now() - chrono::Duration::hours(hours);
    let hour: DateTime<Utc> = hour.with_minute(0).unwrap().with_second(0).unwrap().with_nanosecond(0).unwrap();
    let (name, end) = (partition(hour), hour + chrono::Duration::hours(1));
    let make = format!(
        "CREATE TABLE tidemark.{name} PARTITION OF tidemark.metrics FOR VALUES FROM ('{hour}') TO ('{end}');
         INSERT INTO tidemark.metrics SELECT 'server-' || n, '{hour}', 1, 2, 3 FROM generate_series(1, 1000) AS n"
    );
    stage.pool.execute(AssertSqlSafe(make)).await.unwrap();
    name
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn partitions_are_made_ahead_once_however_many_ask(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    assert_eq!(partitions(&stage).await, Vec::<String>::new());
    let expected = hours(-1, 3);
    let (one, two, three, four) = tokio::join!(roll(&stage), roll(&stage), roll(&stage), roll(&stage));
    let there = partitions(&stage).await;
    assert!(expected.iter().all(|name| there.contains(name)), "{there:?}");
    assert_eq!(one.0 + two.0 + three.0 + four.0, there.len() as i32, "each was made once");
    assert_eq!(roll(&stage).await.1, 0);
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_partition_that_is_missing_is_made_again_and_no_sample_is_lost(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let stage = Stage::new(pool, options);
    let storing = Storing::start(&stage, config(stage.database()));
    storing.store(3, until(this_second(), 1));
    storing.stored(3.0).await;
    let ways = ["DROP TABLE tidemark.", "ALTER TABLE tidemark.metrics DETACH PARTITION tidemark."];
    for (way, second) in ways.into_iter().zip(until(this_second() + chrono::Duration::seconds(2), 2)) {
        for name in partitions(&stage).await {
            stage.pool.execute(AssertSqlSafe(format!("{way}{name}"))).await.unwrap();
        }
        let before = storing.count("stored");
        storing.store(3, std::iter::once(second));
        wait_until(LONG, "the samples are stored", async || storing.count("stored") == before + 3.0).await;
        assert!(partitions(&stage).await.len() >= 5);
    }
    assert_eq!(storing.count("refused"), 0.0);
    assert_eq!(storing.metric("tidemark_sample_store_failures_total"), 0.0);
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn hours_beyond_the_retention_are_dropped_whole(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let old = [past(&stage, 4).await, past(&stage, 3).await];
    let young = past(&stage, 1).await;
    let storing = Storing::start(&stage, SamplesConfig { retention: HOUR, ..config(stage.database()) });
    storing.store(1, until(this_second(), 1));
    let dropped = async || common::metric(&storing.registry, "tidemark_sample_partitions_total", "dropped") == 2.0;
    wait_until(LONG, "the old hours are gone", dropped).await;
    let left = partitions(&stage).await;
    assert!(left.contains(&young) && !old.iter().any(|name| left.contains(name)), "{left:?}");
    storing.stored(1.0).await;
    assert_eq!(rows(&stage).await, (1_001, 1_001));
    let tables = scalar(&stage, "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname ~ '^metrics_[0-9]'");
    assert_eq!(tables.await, left.len() as i64, "nothing is only detached");
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_long_read_delays_dropping_and_nobody_who_writes(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let old = past(&stage, 30).await;
    roll_made(&stage).await;
    let mut reading = stage.pool.begin().await.unwrap();
    reading.execute("SELECT count(*) FROM tidemark.metrics").await.unwrap();
    let began = Instant::now();
    assert_eq!(roll(&stage).await.1, 0);
    let storing = Storing::start(&stage, config(stage.database()));
    storing.store(3, until(this_second(), 1));
    storing.stored(3.0).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(partitions(&stage).await.contains(&old));
    reading.rollback().await.unwrap();
    assert_eq!(roll(&stage).await.1, 1, "the next call drops it");
    assert!(!partitions(&stage).await.contains(&old));
    stage.end().await;
}

/// Makes what is to be made, before somebody reads who would be in the way of dropping only.
async fn roll_made(stage: &Stage) {
    let made = "SELECT made FROM tidemark.roll_metrics('100 hours')";
    sqlx::query_scalar::<_, i32>(made).fetch_one(&stage.pool).await.unwrap();
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn the_right_to_insert_and_to_read_is_enough_to_store(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let old = past(&stage, 30).await;
    let role = format!("gen_{}", uuid::Uuid::new_v4().simple());
    let make = format!(
        "CREATE ROLE {role};
         GRANT USAGE ON SCHEMA tidemark TO {role};
         GRANT SELECT, INSERT ON tidemark.metrics TO {role};
         GRANT SELECT, INSERT, UPDATE ON tidemark.metrics_latest TO {role}"
    );
    stage.pool.execute(AssertSqlSafe(make)).await.unwrap();
    // Somebody with that role, who has put a schema of its own in front.
    let theirs = stage.options.clone().options([("role", role.as_str()), ("search_path", "pg_temp")]);
    let mut somebody = theirs.clone().connect().await.unwrap();
    let refused = somebody.execute(ROLL).await.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().code().as_deref(), Some("42501"), "nobody may unless told so");
    let grant = format!("GRANT EXECUTE ON FUNCTION tidemark.roll_metrics TO {role}");
    stage.pool.execute(AssertSqlSafe(grant)).await.unwrap();
    somebody.execute("CREATE TEMP TABLE pg_inherits (inhparent int)").await.unwrap();
    let (made, dropped): (i32, i32) = sqlx::query_as(ROLL).fetch_one(&mut somebody).await.unwrap();
    assert!(made >= 5 && dropped == 1 && !partitions(&stage).await.contains(&old));
    for retention in ["59 minutes", "-1 day", "0"] {
        let error = sqlx::query("SELECT tidemark.roll_metrics($1::text::interval)").bind(retention);
        let error = error.execute(&mut somebody).await.unwrap_err().to_string();
        assert!(error.contains("must be an hour or longer"), "{error}");
    }
    somebody.close().await.unwrap();

    let storing = Storing::start(&stage, config(theirs.clone().into()));
    let latest = storing.latest(&stage, config(theirs.into()));
    storing.store(3, until(this_second(), 2));
    storing.stored(6.0).await;
    wait_until(LONG, "it is read", async || latest.get().is_some_and(|latest| latest.all().len() == 3)).await;
    assert_eq!(storing.metric("tidemark_sample_store_failures_total"), 0.0);
    let gone = format!("DROP OWNED BY {role}; DROP ROLE {role}");
    stage.token.cancel();
    stage.tracker.close();
    stage.tracker.wait().await;
    stage.pool.execute(AssertSqlSafe(gone)).await.unwrap();
}
