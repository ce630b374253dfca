//! Two replicas, a database that goes away, a schema that comes late.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;

use std::time::Duration;

use common::{LONG, faults, is_error, metrics, now, second, seconds, start, start_behind_proxy, start_unready, url};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use test_support::{Program, wait_until};
use tokio::time::sleep;

/// A sample that waits for longer is counted as late.
const LATE: Duration = Duration::from_secs(2);

/// Warnings and errors in the log, without those about an exceeded time limit: on a busy machine a
/// connection may take longer, and the next attempt succeeds.
fn complaints(generator: &Program) -> Vec<String> {
    let mut complaints = [generator.said(" WARN "), generator.said(" ERROR ")].concat();
    complaints.retain(|line| ![" within ", "timed out"].iter().any(|limit| line.contains(limit)));
    complaints
}

/// How many samples wait.
async fn waiting(generator: &Program) -> f64 {
    generator.metric("tidemark_samples_waiting").await
}

async fn count(generator: &Program, outcome: &str) -> f64 {
    generator.metric(&format!("tidemark_samples_total{{outcome=\"{outcome}\"}}")).await
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn two_generators_at_once_store_each_sample_once(pool: PgPool) {
    let many = [("SERVER_COUNT", "200")];
    let (mut one, mut two) = tokio::join!(start(&pool, &many), start(&pool, &many));
    wait_until(LONG, "some seconds are stored", async || seconds(&pool).await >= 5).await;
    assert_eq!((one.stop().await, two.stop().await), (Some(0), Some(0)));
    assert_eq!(faults(&pool).await, (0, 0), "rows that are double, rows that are missing");
    for generator in [&one, &two] {
        assert_eq!(complaints(generator), Vec::<String>::new());
    }
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(sqlx::query_scalar::<_, i64>(deadlocks).fetch_one(&pool).await.unwrap(), 0);
    let servers: i64 =
        sqlx::query_scalar("SELECT count(*) FROM tidemark.metrics_latest").fetch_one(&pool).await.unwrap();
    assert_eq!(servers, 200);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn while_the_database_is_away_nothing_looks_fresh_and_nothing_is_lost(pool: PgPool) {
    let (generator, proxy) = start_behind_proxy(&pool, &[]).await;
    let failures = async || generator.metric("tidemark_sample_store_failures_total").await;
    let (logged, failed) = (generator.said("samples cannot be stored").len(), failures().await);
    proxy.cut();
    wait_until(LONG, "there is no latest", async || generator.get("/metrics?limit=1").await.status == 503).await;
    for path in ["/servers", "/metrics?limit=1", "/metrics?limit=1&serverId=server-1", "/metrics?limit=5"] {
        is_error(&generator.get(path).await, 503, "database_unavailable");
    }
    is_error(&generator.get("/metrics?limit=0").await, 400, "limit_invalid");
    wait_until(LONG, "samples wait", async || waiting(&generator).await >= 6.0).await;
    // From now on every sample that waits has waited long enough to be late.
    sleep(LATE).await;
    wait_until(LONG, "storing has failed more than once", async || failures().await >= failed + 2.0).await;
    assert_eq!(generator.said("samples cannot be stored").len(), logged + 1, "an outage is logged once");
    assert_eq!(
        generator.readiness().await,
        (true, "samples: the database is away, samples wait\nserving: yes\n".into())
    );

    proxy.restore();
    let back = now();
    let fresh = async || {
        let answer = generator.get("/metrics?limit=1").await;
        answer.status == 200 && metrics(&answer).iter().all(|sample| second(sample) as f64 >= back - 1.0)
    };
    let took = wait_until(LONG, "the latest is fresh", fresh).await;
    // The generator tries every 500 ms, however long the outage was; on a busy machine the first
    // attempt may fail.
    assert!(took < Duration::from_secs(5), "{took:?}");
    wait_until(LONG, "nothing waits", async || waiting(&generator).await == 0.0).await;
    assert_eq!(faults(&pool).await, (0, 0), "rows that are double, rows that are missing");
    assert!(generator.metric("tidemark_samples_late_total").await >= 6.0);
    assert_eq!((count(&generator, "dropped").await, count(&generator, "refused").await), (0.0, 0.0));
}

#[sqlx::test(migrations = false)]
async fn it_waits_for_the_schema_and_says_so(pool: PgPoolOptions, options: PgConnectOptions) {
    let pool = pool.connect_lazy_with(options.clone());
    let generator = start_unready(&url(&pool, options.get_port()), &[]).await;
    wait_until(LONG, "it says what it waits for", async || {
        let (ready, report) = generator.readiness().await;
        !ready && report.contains("samples: waiting for somebody else to migrate the database")
    })
    .await;
    is_error(&generator.get("/servers").await, 503, "database_unavailable");
    assert!(sqlx::query("SELECT FROM tidemark.metrics").execute(&pool).await.is_err(), "it has made nothing");
    let database = options.into();
    // As the app does: on a busy machine a connection may take longer than its limit.
    let migrated = async || match store::migrate(&database).await {
        Err(error) => {
            assert!(error.is_passing(), "{error:?}");
            false
        }
        Ok(()) => true,
    };
    wait_until(LONG, "the database is migrated", migrated).await;
    generator.ready().await;
    assert!(complaints(&generator).is_empty());
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn told_to_stop_it_stores_what_it_has_and_exits_0(pool: PgPool) {
    let mut generator = start(&pool, &[]).await;
    wait_until(LONG, "a second is stored", async || seconds(&pool).await >= 2).await;
    assert_eq!(generator.stop().await, Some(0));
    assert!(complaints(&generator).is_empty());
    assert_eq!(faults(&pool).await, (0, 0), "rows that are double, rows that are missing");
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_database_that_does_not_answer_does_not_hold_up_the_end(pool: PgPool) {
    let (mut generator, proxy) = start_behind_proxy(&pool, &[]).await;
    proxy.freeze();
    let frozen = now();
    wait_until(LONG, "there is no latest", async || generator.get("/metrics?limit=1").await.status == 503).await;
    // A sample is taken at the start of each second. 1.5 s after such a start one waits on a busy
    // machine too, and the exchange that hangs has not reached its timeout of 3 s.
    wait_until(LONG, "a sample waits", async || now() > frozen.floor() + 2.5).await;
    let began = now();
    assert_eq!(generator.stop().await, Some(0));
    assert!(now() - began < 4.0, "{}", now() - began);
    assert_eq!(generator.said("tasks still ran").len(), 0);
    let told = async || generator.said("ended before everything was stored").len() == 1;
    wait_until(LONG, "what is lost is told", told).await;
}
