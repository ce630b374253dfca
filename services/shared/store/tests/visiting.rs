//! Visitors are counted once, whatever happens to sockets, replicas, the database and its tables.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has said what it found")]

mod common;

use std::time::Duration;

use common::{LONG, Stage};
use prometheus::Registry;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use store::{DatabaseUrl, VisitorMetrics, VisitorTiming, Visitors, VisitorsConfig};
use test_support::wait_until;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A tenth of the real times, so that a test sees many beats.
const QUICK: VisitorTiming = VisitorTiming {
    beat: Duration::from_millis(500),
    lease: Duration::from_millis(1_500),
    trusted: Duration::from_millis(2_000),
    grace: Duration::from_millis(300),
    audit: Duration::from_secs(3600),
};

/// What the feed says: (online, total, version).
async fn feed(stage: &Stage) -> (i64, i64, i64) {
    let sums = "SELECT n, total, version FROM tidemark.feed_values() WHERE feed = 'visitors'";
    sqlx::query_as(sums).fetch_one(&stage.pool).await.unwrap()
}

async fn scalar(stage: &Stage, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&stage.pool).await.unwrap()
}

async fn online_is(stage: &Stage, online: i64, total: i64) -> Duration {
    wait_until(LONG, &format!("{online} online, {total} in all"), async || {
        let (now, ever, _) = feed(stage).await;
        (now, ever) == (online, total)
    })
    .await
}

fn config(database: DatabaseUrl, timing: VisitorTiming) -> VisitorsConfig {
    let application_name = "visitors-under-test".into();
    VisitorsConfig { database, application_name, retention: Duration::from_secs(3600), timing }
}

/// A replica that can be ended alone.
fn replica(stage: &Stage, database: DatabaseUrl, timing: VisitorTiming) -> (Visitors, Registry, CancellationToken) {
    let (registry, token) = (Registry::new(), stage.token.child_token());
    let metrics = VisitorMetrics::register(&registry).unwrap();
    (Visitors::start(config(database, timing), metrics, &stage.tracker, token.clone()), registry, token)
}

fn metric(registry: &Registry, name: &str) -> f64 {
    common::metric(registry, name, "")
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_visit_is_counted_once_and_leaves_with_its_last_socket(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let (visitors, ..) = replica(&stage, stage.database(), QUICK);
    let visit = Uuid::new_v4();
    visitors.connect(visit, 1);
    online_is(&stage, 1, 1).await;
    visitors.connect(visit, 2);
    visitors.disconnect(visit);
    visitors.connect(Uuid::new_v4(), 1);
    online_is(&stage, 2, 2).await;
    visitors.disconnect(visit);
    online_is(&stage, 1, 2).await;
    visitors.connect(visit, 3);
    online_is(&stage, 2, 2).await;
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_lone_visitor_is_told_at_once(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let (visitors, ..) = replica(&stage, stage.database(), QUICK);
    visitors.connect(Uuid::new_v4(), 1);
    online_is(&stage, 1, 1).await;
    sleep(QUICK.beat).await;
    visitors.connect(Uuid::new_v4(), 1);
    let took = online_is(&stage, 2, 2).await;
    assert!(took < Duration::from_millis(100), "{took:?}");
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_move_to_another_replica_changes_no_number(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let ((old, ..), (new, registry, _)) =
        (replica(&stage, stage.database(), QUICK), replica(&stage, stage.database(), QUICK));
    let visits: Vec<Uuid> = (0..100).map(|_| Uuid::new_v4()).collect();
    visits.iter().for_each(|visit| old.connect(*visit, 1));
    online_is(&stage, 100, 100).await;
    let before = feed(&stage).await;
    for visit in &visits {
        new.connect(*visit, 2);
        old.disconnect(*visit);
    }
    let owners = "SELECT count(*) FROM tidemark.connections WHERE n = 2";
    wait_until(LONG, "all belong to the new replica", async || scalar(&stage, owners).await == 100).await;
    // Longer than the grace and some beats: nobody takes out what has moved.
    sleep(QUICK.grace + QUICK.beat * 2).await;
    assert_eq!(feed(&stage).await, before, "not even the version has changed");
    assert_eq!(metric(&registry, "tidemark_visitor_repairs_total"), 0.0);
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn two_replicas_that_share_visits_never_block_each_other(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let ((left, left_metrics, _), (right, ..)) =
        (replica(&stage, stage.database(), QUICK), replica(&stage, stage.database(), QUICK));
    let visits: Vec<Uuid> = (0..500).map(|_| Uuid::new_v4()).collect();
    for n in 0..20 {
        visits.iter().for_each(|visit| left.connect(*visit, n));
        visits.iter().rev().for_each(|visit| right.connect(*visit, n));
        tokio::task::yield_now().await;
    }
    online_is(&stage, 500, 500).await;
    sleep(QUICK.beat * 2).await;
    assert_eq!(feed(&stage).await.0, 500);
    assert_eq!(metric(&left_metrics, "tidemark_visitor_leases_lost_total"), 0.0);
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_storm_is_few_statements(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let (visitors, registry, _) = replica(&stage, stage.database(), VisitorTiming::default());
    visitors.connect(Uuid::new_v4(), 1);
    online_is(&stage, 1, 1).await;
    let storm = async {
        for _ in 0..100 {
            (0..100).for_each(|_| visitors.connect(Uuid::new_v4(), 1));
            sleep(Duration::from_millis(50)).await;
        }
    };
    storm.await;
    online_is(&stage, 10_001, 10_001).await;
    let (statements, _) = common::batches(&registry, "tidemark_visitor_batch_rows");
    assert!(statements <= 200, "20 for each 1,000 connects: {statements}");
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_beat_puts_rows_right_in_both_directions(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let (visitors, registry, _) = replica(&stage, stage.database(), QUICK);
    (0..10).for_each(|_| visitors.connect(Uuid::new_v4(), 1));
    online_is(&stage, 10, 10).await;
    let run = async |sql: &'static str| {
        sqlx::query(sql).execute(&stage.pool).await.unwrap();
    };

    // The rows are there a moment before it is counted.
    let repairs_are = async |repairs: f64| {
        let counted = async || metric(&registry, "tidemark_visitor_repairs_total") == repairs;
        wait_until(LONG, "the repairs are counted", counted).await
    };

    run("DELETE FROM tidemark.connections WHERE visit IN (SELECT visit FROM tidemark.connections LIMIT 4)").await;
    online_is(&stage, 10, 10).await;
    run("TRUNCATE tidemark.connections").await;
    online_is(&stage, 10, 10).await;
    repairs_are(14.0).await;
    run("INSERT INTO tidemark.connections (visit, instance, n) SELECT gen_random_uuid(), id, 1 FROM tidemark.instances, generate_series(1, 3)")
        .await;
    assert_eq!(feed(&stage).await.0, 13);
    online_is(&stage, 10, 10).await;
    repairs_are(17.0).await;
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_beat_takes_over_visits_whose_newer_socket_is_here(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let (moved, stayed, other) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    let rows = [
        "INSERT INTO tidemark.instances (id, name, lease_until) VALUES ($1, 'other', now() + interval '1 hour')",
        "INSERT INTO tidemark.connections (visit, instance, n) SELECT UNNEST($2), $1, 5",
    ];
    sqlx::query(rows[0]).bind(other).execute(&stage.pool).await.unwrap();
    sqlx::query(rows[1]).bind(other).bind(vec![moved, stayed]).execute(&stage.pool).await.unwrap();
    // Told before there is a lease, so the first beat tells the database and no batch.
    let (visitors, ..) = replica(&stage, stage.database(), QUICK);
    visitors.connect(moved, 6);
    visitors.connect(stayed, 4);
    let owner = "SELECT count(*) FROM tidemark.connections AS c JOIN tidemark.instances AS i ON i.id = c.instance WHERE i.name <> 'other' AND n = 6";
    wait_until(LONG, "the visit that moved is taken over", async || scalar(&stage, owner).await == 1).await;
    sleep(QUICK.beat * 2).await;
    let others = "SELECT count(*) FROM tidemark.connections AS c JOIN tidemark.instances AS i ON i.id = c.instance WHERE i.name = 'other' AND n = 5";
    assert_eq!((scalar(&stage, others).await, feed(&stage).await.0), (1, 2), "the other one stays where it is newer");
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_replica_that_was_taken_for_dead_comes_back_with_its_sockets(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let (visitors, registry, _) = replica(&stage, stage.database(), QUICK);
    (0..7).for_each(|_| visitors.connect(Uuid::new_v4(), 1));
    online_is(&stage, 7, 7).await;
    // What another replica does after this one was frozen for long.
    let mut swept = stage.pool.begin().await.unwrap();
    sqlx::query("UPDATE tidemark.instances SET lease_until = clock_timestamp() - interval '1 second'")
        .execute(&mut *swept)
        .await
        .unwrap();
    let gone: Option<i64> =
        sqlx::query_scalar("SELECT tidemark.sweep_instance(100)").fetch_one(&mut *swept).await.unwrap();
    swept.commit().await.unwrap();
    assert_eq!(gone, Some(7));
    // A socket that opens before the next beat meets a row that is not there any more.
    visitors.connect(Uuid::new_v4(), 1);
    online_is(&stage, 8, 8).await;
    assert_eq!(metric(&registry, "tidemark_visitor_leases_lost_total"), 1.0);
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn what_a_dead_replica_left_is_swept_once_by_those_who_can_be_trusted(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let stage = Stage::new(pool, options);
    sqlx::query(
        "WITH dead AS (INSERT INTO tidemark.instances (id, name, lease_until) VALUES (gen_random_uuid(), 'dead', now()) RETURNING id)
         INSERT INTO tidemark.connections (visit, instance, n) SELECT gen_random_uuid(), id, 1 FROM dead, generate_series(1, 12000)",
    )
    .execute(&stage.pool)
    .await
    .unwrap();
    let began = Instant::now();
    let ((one, one_metrics, _), (_two, two_metrics, _)) =
        (replica(&stage, stage.database(), QUICK), replica(&stage, stage.database(), QUICK));
    one.connect(Uuid::new_v4(), 1);
    online_is(&stage, 12_001, 1).await;
    online_is(&stage, 1, 1).await;
    assert!(began.elapsed() >= QUICK.trusted, "nobody sweeps before it can know that the database was there for all");
    let swept = |registry| metric(registry, "tidemark_visitors_swept_total");
    wait_until(LONG, "both have told", async || swept(&one_metrics) + swept(&two_metrics) == 12_000.0).await;
    wait_until(LONG, "the dead one is forgotten", async || {
        scalar(&stage, "SELECT count(*) FROM tidemark.instances").await == 2
    })
    .await;
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn sweeps_at_the_same_time_subtract_once(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    sqlx::query(
        "WITH dead AS (INSERT INTO tidemark.instances (id, name, lease_until) SELECT gen_random_uuid(), 'dead', now() FROM generate_series(1, 3) RETURNING id)
         INSERT INTO tidemark.connections (visit, instance, n) SELECT gen_random_uuid(), id, 1 FROM dead, generate_series(1, 500)",
    )
    .execute(&stage.pool)
    .await
    .unwrap();
    assert_eq!(feed(&stage).await.0, 1_500);
    let sweep = async || {
        let mut gone = 0;
        while scalar(&stage, "SELECT count(*) FROM tidemark.instances").await > 0 {
            let some: Option<i64> =
                sqlx::query_scalar("SELECT tidemark.sweep_instance(70)").fetch_one(&stage.pool).await.unwrap();
            gone += some.unwrap_or(0);
        }
        gone
    };
    let (a, b, c) = tokio::join!(sweep(), sweep(), sweep());
    assert_eq!((a + b + c, feed(&stage).await.0), (1_500, 0));
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn after_an_outage_nobody_is_swept_and_everybody_counts(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let (proxy, through) = stage.proxy().await;
    let ((one, one_metrics, _), (two, two_metrics, _)) =
        (replica(&stage, through.clone(), QUICK), replica(&stage, through, QUICK));
    (0..5).for_each(|_| one.connect(Uuid::new_v4(), 1));
    (0..5).for_each(|_| two.connect(Uuid::new_v4(), 1));
    online_is(&stage, 10, 10).await;
    sleep(QUICK.trusted).await;
    proxy.cut();
    let leaver = Uuid::new_v4();
    one.connect(leaver, 1);
    two.connect(Uuid::new_v4(), 1);
    sleep(QUICK.lease * 2).await;
    one.disconnect(leaver);
    assert_eq!(feed(&stage).await.0, 10);
    proxy.restore();
    // The one who came and went while the database was away was a visit as well, if its grace is not over when the database is back.
    wait_until(LONG, "11 are online", async || feed(&stage).await.0 == 11).await;
    sleep(QUICK.trusted + QUICK.beat).await;
    assert_eq!(feed(&stage).await.0, 11);
    for registry in [&one_metrics, &two_metrics] {
        assert_eq!(metric(registry, "tidemark_visitors_swept_total"), 0.0);
        assert_eq!(metric(registry, "tidemark_visitor_leases_lost_total"), 0.0);
    }
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn an_audit_corrects_the_number_and_forgets_old_visits_but_not_the_total(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let stage = Stage::new(pool, options);
    let timing = VisitorTiming { audit: Duration::from_millis(400), ..QUICK };
    let (visitors, registry, _) = replica(&stage, stage.database(), timing);
    let (_other, ..) = replica(&stage, stage.database(), timing);
    (0..3).for_each(|_| visitors.connect(Uuid::new_v4(), 1));
    online_is(&stage, 3, 3).await;
    for sql in [
        "INSERT INTO tidemark.deltas (source, n) VALUES ('visitors', 40)",
        "INSERT INTO tidemark.visits (id, first_seen) SELECT gen_random_uuid(), now() - interval '2 hours' FROM generate_series(1, 6)",
        "UPDATE tidemark.visits SET first_seen = now() - interval '2 hours'",
    ] {
        sqlx::query(sql).execute(&stage.pool).await.unwrap();
    }
    online_is(&stage, 3, 9).await;
    // Those who are online are never forgotten, however old they are.
    wait_until(LONG, "old visits are forgotten", async || {
        scalar(&stage, "SELECT count(*) FROM tidemark.visits").await == 3
    })
    .await;
    online_is(&stage, 3, 9).await;
    assert!(metric(&registry, "tidemark_visitor_audit_differences_total") <= 1.0);
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_replica_knows_how_many_others_hold_a_lease(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let (visitors, ..) = replica(&stage, stage.database(), QUICK);
    let (_second, _, second) = replica(&stage, stage.database(), QUICK);
    let (_third, ..) = replica(&stage, stage.database(), QUICK);
    // One that was killed, and is not swept yet.
    let dead = "INSERT INTO tidemark.instances (id, name, lease_until) VALUES (gen_random_uuid(), 'dead', now() - interval '1 second')";
    sqlx::query(dead).execute(&stage.pool).await.unwrap();
    wait_until(LONG, "both others are known", async || visitors.peers() == 2).await;
    second.cancel();
    wait_until(LONG, "one has ended", async || visitors.peers() == 1).await;
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_replica_that_ends_takes_its_visitors_along(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let ((one, _, token), (two, ..)) =
        (replica(&stage, stage.database(), QUICK), replica(&stage, stage.database(), QUICK));
    (0..4).for_each(|_| one.connect(Uuid::new_v4(), 1));
    two.connect(Uuid::new_v4(), 1);
    online_is(&stage, 5, 5).await;
    token.cancel();
    let took = online_is(&stage, 1, 5).await;
    assert!(took < QUICK.lease, "{took:?}");
    assert_eq!(scalar(&stage, "SELECT count(*) FROM tidemark.instances").await, 1);
    stage.end().await;
}
