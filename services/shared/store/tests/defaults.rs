//! Everything works whatever the defaults of the database are: each transaction of ours has its own level and limits.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has said what it found")]

mod common;
#[path = "common/load.rs"]
mod load;

use std::time::Duration;

use common::{
    LONG, Stage, a_backend_waits, migrated,
    samples::{Storing, config, partition, partitions, sample, this_second},
};
use load::Load;
use sqlx::{
    AssertSqlSafe, Connection, Executor, PgConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use store::{Cause, DatabaseUrl, Hindrance, SaveError, Texts, TextsConfig, pending_migrations};
use test_support::wait_until;
use tokio::time::sleep;
use uuid::Uuid;

/// Limits that suit another program of the same database.
const LIMITS: [(&str, &str); 3] =
    [("statement_timeout", "100ms"), ("lock_timeout", "10ms"), ("idle_in_transaction_session_timeout", "1ms")];

/// Longer than each of [`LIMITS`].
const HELD: Duration = Duration::from_millis(500);

/// Settings that change what a query or the text of a value means.
const MEANINGS: [(&str, &str); 11] = [
    ("array_nulls", "off"),
    ("bytea_output", "escape"),
    ("DateStyle", "SQL, DMY"),
    ("default_transaction_deferrable", "on"),
    ("extra_float_digits", "-15"),
    ("IntervalStyle", "sql_standard"),
    ("quote_all_identifiers", "on"),
    ("row_security", "off"),
    ("search_path", "nonexistent, pg_catalog"),
    ("standard_conforming_strings", "off"),
    ("TimeZone", "Asia/Kathmandu"),
];

/// What the test's own sessions have instead.
const USUAL: [(&str, &str); 8] = [
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_read_only", "off"),
    ("idle_in_transaction_session_timeout", "0"),
    ("lock_timeout", "0"),
    ("quote_all_identifiers", "off"),
    ("search_path", "public"),
    ("standard_conforming_strings", "on"),
    ("statement_timeout", "0"),
];

/// The stage, and the address at which sessions have these defaults.
async fn with_defaults(
    pool: PgPoolOptions,
    options: PgConnectOptions,
    defaults: &[(&str, &str)],
) -> (Stage, DatabaseUrl) {
    let stage = Stage::new(pool, options.clone().options(USUAL));
    for (name, value) in defaults {
        set_default(&stage, name, value).await;
    }
    (stage, options.into())
}

async fn set_default(stage: &Stage, name: &str, value: &str) {
    let set = "SELECT format('ALTER DATABASE %I SET %I = ', current_database(), $1::text)";
    let set: String = sqlx::query_scalar(set).bind(name).fetch_one(&stage.pool).await.unwrap();
    // A list is several values.
    let value = if name == "search_path" { value.to_owned() } else { format!("'{value}'") };
    stage.pool.execute(AssertSqlSafe(set + &value)).await.unwrap();
}

#[sqlx::test(migrations = false)]
async fn at_serializable_every_call_succeeds_beside_users_of_the_same_table(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let defaults = [("default_transaction_isolation", "serializable")];
    let (stage, database) = with_defaults(pool, options, &defaults).await;
    tokio::join!(migrated(&database), migrated(&database));
    Load { listen: database.clone(), database, users: 4 }.run(&stage, 2_000).await;
    stage.end().await;
}

#[sqlx::test(migrations = false)]
async fn settings_that_change_the_meaning_of_texts_change_nothing(pool: PgPoolOptions, options: PgConnectOptions) {
    let (stage, database) = with_defaults(pool, options, &MEANINGS).await;
    migrated(&database).await;
    // Its name is compared with a regular expression, in which a string constant has a backslash.
    let old = this_second() - chrono::Duration::hours(100);
    let (name, from) = (partition(old), old.format("%Y-%m-%d %H:00+00"));
    let make = format!(
        "CREATE TABLE tidemark.{name} PARTITION OF tidemark.metrics
           FOR VALUES FROM ('{from}') TO ('{from}'::timestamptz + interval '1 hour')"
    );
    stage.pool.execute(AssertSqlSafe(make)).await.unwrap();
    Load { listen: database.clone(), database, users: 0 }.run(&stage, 200).await;
    let gone = async || !partitions(&stage).await.contains(&name);
    wait_until(LONG, "the old partition is dropped", gone).await;
    stage.end().await;
}

#[sqlx::test(migrations = false)]
async fn limits_that_suit_other_programs_do_not_end_what_waits(pool: PgPoolOptions, options: PgConnectOptions) {
    let (stage, database) = with_defaults(pool, options, &LIMITS).await;
    migrated(&database).await;
    let writer = stage.writer(database);
    // Each takes several messages, and the server waits between them.
    for number in 0..200 {
        writer.save(Uuid::new_v4(), format!("text {number}"), None).await.unwrap();
    }

    let id = Uuid::new_v4();
    let mut other = PgConnection::connect_with(&stage.options).await.unwrap();
    let mut held = other.begin().await.unwrap();
    let insert = "INSERT INTO tidemark.texts (id, body) VALUES ($1, 'the same')";
    sqlx::query(insert).bind(id).execute(&mut *held).await.unwrap();
    let before = backends(&stage).await;
    let release = async {
        a_backend_waits(&stage.pool).await;
        sleep(HELD).await;
        held.commit().await.unwrap();
    };
    let (saved, ()) = tokio::join!(writer.save(id, "the same".into(), None), release);
    assert_eq!(saved.unwrap().id, id);
    assert_eq!(backends(&stage).await, before, "the writer did not have to connect again");
    stage.end().await;
}

/// The writer's backends.
async fn backends(stage: &Stage) -> Vec<i32> {
    let pids =
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE '% write'";
    sqlx::query_scalar(pids).fetch_all(&stage.pool).await.unwrap()
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_database_that_takes_no_writes_is_read_and_takes_them_again_without_a_restart(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let (stage, database) = with_defaults(pool, options, &[("default_transaction_read_only", "on")]).await;
    stage.insert("from before").await;
    migrated(&database).await;
    assert_eq!(pending_migrations(&database).await.unwrap(), 0);
    let texts = Texts::new(TextsConfig { database: database.clone(), application_name: "reads".into() });
    assert_eq!(texts.page(10, None).await.unwrap().len(), 1);
    let writer = stage.writer(database.clone());
    let save = async || writer.save(Uuid::new_v4(), "a text".into(), None).await;
    assert_eq!(save().await, Err(SaveError::Unavailable { cause: Cause::Statement }));
    let storing = Storing::start(&stage, config(database));
    storing.writer.store(sample("server-1", this_second()));
    let refused = async || storing.progress().hindrance == Some(Hindrance::Database);
    wait_until(LONG, "the sample waits", refused).await;

    set_default(&stage, "default_transaction_read_only", "off").await;
    save().await.unwrap();
    storing.stored(1.0).await;
    assert_eq!(stage.rows().await, 2);
    texts.close().await;
    stage.end().await;
}
