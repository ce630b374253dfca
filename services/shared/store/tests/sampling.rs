//! Each sample is stored once and none is lost, whatever replicas, clocks and the database do.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has said what it found")]

mod common;

use std::time::Duration;

use chrono::{DateTime, Utc};
use common::{
    LONG, Stage, batches, migrated,
    samples::{HOUR, Storing, config, rows, sample, scalar, this_second, until},
};
use sqlx::{
    AssertSqlSafe, Executor,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use store::{Hindrance, LatestSamples, Sample, Samples, SamplesConfig};
use test_support::{wait_for, wait_until};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

async fn down(storing: &Storing) {
    let away = async || storing.progress().hindrance == Some(Hindrance::Database);
    wait_until(LONG, "the writer notices that the database is away", away).await;
}

fn newest(latest: &LatestSamples, server: &str) -> Option<DateTime<Utc>> {
    Some(latest.get()?.of(server)?.second)
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_second_of_a_thousand_servers_is_one_batch(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let storing = Storing::start(&stage, config(stage.database()));
    let now = this_second();
    storing.store(1_000, until(now, 1));
    storing.stored(1_000.0).await;
    assert_eq!(batches(&storing.registry, "tidemark_sample_batch_rows"), (1, 1_000.0));
    assert_eq!(rows(&stage).await, (1_000, 1_000));
    assert_eq!(scalar(&stage, "SELECT count(*) FROM tidemark.metrics_latest").await, 1_000);
    assert_eq!(storing.progress().stored, Some(now));
    assert_eq!((storing.count("stored"), storing.metric("tidemark_samples_late_total")), (1_000.0, 0.0));
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn replicas_that_store_the_same_samples_double_nothing_and_never_fail(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let stage = Stage::new(pool, options);
    let replicas = [(); 3].map(|()| Storing::start(&stage, config(stage.database())));
    let seconds: Vec<_> = until(this_second(), 100).collect();
    // All are connected, and wait for samples.
    for replica in &replicas {
        replica.store(1, seconds.iter().copied().take(1));
        replica.stored(1.0).await;
    }
    // Large batches at the same time, of the same samples, each in an order of its own: 10,007 is a prime, so every step visits all.
    for (replica, step) in replicas.iter().zip([1, 5_003, 10_006]) {
        for place in (0..10_007).map(|place| place * step % 10_007).filter(|place| *place < 10_000) {
            replica.writer.store(sample(&format!("server-{}", place % 100 + 1), seconds[place / 100]));
        }
    }
    for replica in &replicas {
        replica.stored(10_001.0).await;
        assert_eq!(replica.metric("tidemark_sample_store_failures_total"), 0.0, "no deadlock, no error");
    }
    assert_eq!(rows(&stage).await, (10_000, 10_000));
    assert_eq!(replicas.iter().map(|replica| replica.count("stored")).sum::<f64>(), 10_000.0);
    let behind = scalar(
        &stage,
        "SELECT count(*) FROM tidemark.metrics_latest AS latest
         WHERE second <> (SELECT max(second) FROM tidemark.metrics WHERE server_id = latest.server_id)",
    );
    assert_eq!(behind.await, 0);
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_clock_that_is_stepped_back_doubles_nothing_and_makes_nothing_older(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let stage = Stage::new(pool, options);
    let storing = Storing::start(&stage, config(stage.database()));
    let latest = storing.latest(&stage, config(stage.database()));
    let now = this_second();
    storing.store(3, until(now, 90));
    storing.stored(270.0).await;
    storing.store(3, until(now - chrono::Duration::seconds(30), 30));
    storing.stored(360.0).await;
    assert_eq!((rows(&stage).await, storing.count("known")), ((270, 270), 90.0));
    wait_until(LONG, "the newest is read", async || newest(&latest, "server-3") == Some(now)).await;
    assert_eq!(scalar(&stage, "SELECT count(DISTINCT second) FROM tidemark.metrics_latest").await, 1);
    assert_eq!(storing.metric("tidemark_sample_store_failures_total"), 0.0);
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn samples_of_an_outage_are_stored_late_and_complete_the_newest_first(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let stage = Stage::new(pool, options);
    let (proxy, through) = stage.proxy().await;
    let storing = Storing::start(&stage, config(through.clone()));
    let latest = storing.latest(&stage, config(through));
    let now = this_second();
    storing.store(100, until(now - chrono::Duration::seconds(300), 1));
    storing.stored(100.0).await;
    wait_until(LONG, "the latest is read", async || latest.get().is_some()).await;

    proxy.cut();
    storing.store(100, until(now - chrono::Duration::seconds(1), 299));
    down(&storing).await;
    wait_until(LONG, "there is no latest", async || latest.get().is_none()).await;
    // Longer than what counts as late.
    sleep(Duration::from_millis(2_100)).await;
    proxy.restore();
    let back = Instant::now();
    storing.store(100, until(now, 1));
    wait_until(LONG, "the newest is there", async || newest(&latest, "server-100") == Some(now)).await;
    assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
    storing.stored(30_100.0).await;
    assert_eq!(rows(&stage).await, (30_100, 30_100), "301 seconds of 100 servers");
    assert_eq!((storing.count("dropped"), storing.progress().hindrance), (0.0, None));
    let late = storing.metric("tidemark_samples_late_total");
    assert_eq!(late, 29_900.0);
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn samples_that_wait_for_too_long_are_dropped_and_counted(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let (proxy, through) = stage.proxy().await;
    let storing = Storing::start(&stage, SamplesConfig { keep: Duration::from_secs(1), ..config(through) });
    proxy.cut();
    let now = this_second();
    storing.store(5, until(now - chrono::Duration::seconds(1), 1));
    wait_until(LONG, "the old ones are dropped", async || storing.count("dropped") == 5.0).await;
    storing.store(5, until(now, 1));
    proxy.restore();
    storing.stored(5.0).await;
    assert_eq!((rows(&stage).await, storing.metric("tidemark_samples_waiting")), ((5, 5), 0.0));
    assert_eq!(storing.progress().stored, Some(now));
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_server_that_restarts_or_does_not_answer_costs_no_sample(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let (proxy, through) = stage.proxy().await;
    let storing = Storing::start(&stage, config(through.clone()));
    let latest = storing.latest(&stage, config(through));
    let now = this_second();
    storing.store(2, until(now - chrono::Duration::seconds(2), 1));
    storing.stored(2.0).await;

    // What a restart does to a client.
    let ended = scalar(
        &stage,
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name LIKE 'samples-under-test%'",
    );
    assert!(ended.await > 0);
    storing.store(2, until(now - chrono::Duration::seconds(1), 1));
    storing.stored(4.0).await;

    proxy.freeze();
    storing.store(2, until(now, 1));
    down(&storing).await;
    wait_until(LONG, "there is no latest", async || latest.get().is_none()).await;
    proxy.thaw();
    storing.stored(6.0).await;
    wait_until(LONG, "the newest is there", async || newest(&latest, "server-2") == Some(now)).await;
    assert_eq!(rows(&stage).await, (6, 6));
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn only_the_seconds_of_a_wrong_clock_are_refused(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let storing = Storing::start(&stage, config(stage.database()));
    let (now, day) = (this_second(), chrono::Duration::days(1));
    storing.store(4, [now + day, now, now - day].into_iter());
    wait_until(LONG, "they are refused", async || storing.count("refused") == 8.0).await;
    storing.stored(4.0).await;
    assert_eq!((rows(&stage).await, storing.metric("tidemark_samples_waiting")), ((4, 4), 0.0));
    let latest: DateTime<Utc> =
        sqlx::query_scalar("SELECT max(second) FROM tidemark.metrics_latest").fetch_one(&stage.pool).await.unwrap();
    assert_eq!(latest, now);
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn the_latest_is_read_with_each_batch_that_is_stored(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let storing = Storing::start(&stage, config(stage.database()));
    let latest = storing.latest(&stage, config(stage.database()));
    wait_until(LONG, "there is a latest", async || latest.get().is_some()).await;
    let (began, before) = (Instant::now(), storing.reads());
    for second in until(this_second(), 4) {
        let tick = Instant::now();
        // Two batches a second, as on a machine that is busy.
        storing.store(2, [second].into_iter());
        wait_until(LONG, "it is read", async || newest(&latest, "server-2") == Some(second)).await;
        storing.writer.store(sample("server-3", second));
        wait_until(LONG, "it is read", async || newest(&latest, "server-3") == Some(second)).await;
        // A batch gathers for 50 ms, and a read comes 250 ms after the one before.
        assert!(tick.elapsed() < Duration::from_millis(900), "{:?}", tick.elapsed());
        tokio::time::sleep_until(tick + Duration::from_secs(1)).await;
    }
    let (reads, seconds) = (storing.reads() - before, began.elapsed().as_secs_f64());
    assert!(reads <= 2.0 * seconds + 1.0, "{reads} reads in {seconds} s");
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn many_batches_at_once_are_few_reads(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let storing = Storing::start(&stage, config(stage.database()));
    let latest = storing.latest(&stage, config(stage.database()));
    wait_until(LONG, "there is a latest", async || latest.get().is_some()).await;
    let (began, before) = (Instant::now(), storing.reads());
    // Each waits until the one before is stored: ten and more batches a second.
    for (stored, second) in (1..).zip(until(this_second(), 20)) {
        storing.store(1, [second].into_iter());
        storing.stored(f64::from(stored)).await;
    }
    let (reads, seconds) = (storing.reads() - before, began.elapsed().as_secs_f64());
    assert!(reads <= 4.0 * seconds + 1.0, "{reads} reads in {seconds} s");
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn lists_have_the_newest_first_of_one_server_or_of_all(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let storing = Storing::start(&stage, config(stage.database()));
    let now = this_second();
    storing.store(10, until(now, 3));
    storing.stored(30.0).await;
    let samples = Samples::new(config(stage.database()), storing.metrics.clone());

    let one = samples.newest(Some("server-2"), 2).await.unwrap();
    assert_eq!(one, [sample("server-2", now), sample("server-2", now - chrono::Duration::seconds(1))]);
    let all = samples.newest(None, 11).await.unwrap();
    let expected = (1..=10).map(|server| sample(&format!("server-{server}"), now));
    assert_eq!(all[..10], expected.collect::<Vec<_>>(), "in natural order");
    assert_eq!(all[10], sample("server-1", now - chrono::Duration::seconds(1)));
    assert_eq!(samples.newest(None, 1_000).await.unwrap().len(), 30);
    for nobody in ["nobody", "", "a\0b"] {
        assert_eq!(samples.newest(Some(nobody), 5).await.unwrap(), []);
    }
    samples.close().await;
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn what_waits_at_the_end_is_stored(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let storing = Storing::start(&stage, config(stage.database()));
    storing.store(100, until(this_second(), 2));
    // Before the samples of a second are together.
    storing.token.cancel();
    storing.stored(200.0).await;
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_database_that_does_not_answer_does_not_hold_up_the_end(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let (proxy, through) = stage.proxy().await;
    let storing = Storing::start(&stage, config(through));
    storing.store(1, until(this_second(), 1));
    storing.stored(1.0).await;
    proxy.freeze();
    storing.store(1, until(this_second(), 1));
    let (began, token) = (Instant::now(), stage.token.clone());
    token.cancel();
    stage.tracker.close();
    stage.tracker.wait().await;
    assert!(began.elapsed() < Duration::from_millis(1_500), "{:?}", began.elapsed());
}

#[sqlx::test(migrations = false)]
async fn without_a_schema_samples_wait_for_it(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let storing = Storing::start(&stage, config(stage.database()));
    storing.store(3, until(this_second(), 1));
    wait_for(LONG, "the writer says what it waits for", async || {
        (storing.progress().hindrance == Some(Hindrance::NoSchema)).then_some(())
    })
    .await;
    migrated(&stage.database()).await;
    storing.stored(3.0).await;
    assert_eq!(rows(&stage).await, (3, 3));
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn servers_that_are_silent_for_the_retention_have_no_latest_any_more(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let stage = Stage::new(pool, options);
    stage
        .pool
        .execute(
            "INSERT INTO tidemark.metrics_latest VALUES ('gone', now() - interval '61 minutes', 1, 2, 3), ('silent', now() - interval '59 minutes', 1, 2, 3)",
        )
        .await
        .unwrap();
    let storing = Storing::start(&stage, SamplesConfig { retention: HOUR, ..config(stage.database()) });
    storing.store(1, until(this_second(), 1));
    storing.stored(1.0).await;
    let servers: Vec<String> = sqlx::query_scalar("SELECT server_id FROM tidemark.metrics_latest ORDER BY 1")
        .fetch_all(&stage.pool)
        .await
        .unwrap();
    assert_eq!(servers, ["server-1", "silent"]);
    stage.end().await;
}

#[sqlx::test(migrations = false)]
async fn ids_that_are_not_utf_8_are_read_with_replacement_characters(pool: PgPoolOptions, options: PgConnectOptions) {
    let server = Stage::new(pool.clone(), options.clone());
    let name = format!("sql_ascii_{}", Uuid::new_v4().simple());
    let create = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'");
    server.pool.execute(AssertSqlSafe(create)).await.unwrap();
    let stage = Stage::new(pool, options.database(&name));
    migrated(&stage.database()).await;
    let storing = Storing::start(&stage, config(stage.database()));
    let latest = storing.latest(&stage, config(stage.database()));
    let now = this_second();
    storing.store(1, until(now, 1));
    storing.stored(1.0).await;
    // As a program stores them whose encoding is another one. Two of them look the same.
    let insert = r"
        INSERT INTO tidemark.metrics_latest (server_id, second, cpu_usage, memory_usage, disk_usage)
        VALUES (E'caf\xe9', now(), 1, 2, 3), (E'caf\xe8', now() + interval '1 hour', 4, 5, 6);
        INSERT INTO tidemark.metrics SELECT server_id, now(), cpu_usage, memory_usage, disk_usage FROM tidemark.metrics_latest WHERE server_id <> 'server-1'";
    stage.pool.execute(insert).await.unwrap();

    let read = async || newest(&latest, "caf\u{fffd}").is_some();
    wait_until(LONG, "they are read", read).await;
    let all = latest.get().unwrap();
    let newest: Vec<_> = all.all().iter().map(|sample| (&*sample.server, sample.usage.cpu)).collect();
    assert_eq!(newest[0], ("caf\u{fffd}", 4.0), "the newer of both");
    assert_eq!((newest.len(), newest[1].0), (2, "server-1"));
    let list = Samples::new(config(stage.database()), storing.metrics.clone());
    let servers = |list: Vec<Sample>| list.iter().map(|sample| sample.server.to_string()).collect::<Vec<_>>();
    assert_eq!(servers(list.newest(Some("server-1"), 10).await.unwrap())[0], "server-1");
    let all = servers(list.newest(None, 10).await.unwrap());
    assert_eq!(all.iter().filter(|server| *server == "caf\u{fffd}").count(), 2, "{all:?}");
    list.close().await;
    stage.end().await;
    let drop = format!("DROP DATABASE {name} WITH (FORCE)");
    server.pool.execute(AssertSqlSafe(drop)).await.unwrap();
    server.end().await;
}
