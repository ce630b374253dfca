//! The reader is quick by the bell, right by the poll, and cheap when idle.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has said what it found")]

mod common;

use std::time::Duration;

use common::{LONG, NEVER, Stage, count, count_is, view_is};
use sqlx::{
    Executor,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use store::{Doorbell, Intervals, Path, Reader, ReaderConfig, Unavailable};
use test_support::wait_until;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_bell_wakes_a_sleeping_reader_at_once(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let reader = stage.reader(stage.config_without_poll());
    let mut times = Vec::new();
    for expected in 1..=5 {
        stage.asleep(&reader).await;
        stage.insert("wake up").await;
        times.push(count_is(&reader, expected).await);
    }
    assert!(median(times.clone()) < Duration::from_millis(100), "{times:?}");
    assert_eq!(reader.subscribe().borrow().reading.as_ref().unwrap().path, Path::Bell);
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn bursts_with_slow_commits_never_leave_a_reader_behind(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    // Without a poll a bell that is lost once leaves the reader behind for good, and the test fails.
    let readers: Vec<Reader> = (0..3).map(|_| stage.other_reader(stage.config_without_poll())).collect();
    let (mut expected, mut times) = (0, Vec::new());
    for burst in 0..16 {
        // Every other burst meets readers that are just about to arm.
        if burst % 2 == 0 {
            for reader in &readers {
                stage.asleep(reader).await;
            }
        }
        let mut writers = JoinSet::new();
        for writer in 0..8_u64 {
            let pool = stage.pool.clone();
            writers.spawn(async move {
                for round in 0..5 {
                    let mut transaction = pool.begin().await.unwrap();
                    transaction.execute("INSERT INTO tidemark.texts (body) VALUES ('burst')").await.unwrap();
                    // One commit in five is slow, the last one of a burst among them: what it wrote is in a slot that
                    // the reader could not arm.
                    if (writer + round + burst) % 5 == 0 {
                        sleep(Duration::from_millis(30)).await;
                    }
                    transaction.commit().await.unwrap();
                }
            });
        }
        writers.join_all().await;
        expected += 40;
        let began = Instant::now();
        for reader in &readers {
            count_is(reader, expected).await;
        }
        times.push(began.elapsed());
    }
    assert!(median(times.clone()) < Duration::from_millis(200), "{times:?}");
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_commit_that_was_in_flight_while_the_reader_asked_for_a_notification_is_seen(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let stage = Stage::new(pool, options);
    let reader = stage.reader(stage.config_without_poll());
    let mut session = stage.pool.acquire().await.unwrap();
    for round in 1..=3 {
        stage.asleep(&reader).await;
        // The first rings. The second is open when the reader asks, and will not ring; so the reader is refused, and reads on.
        let mut holder = stage.pool.begin().await.unwrap();
        let other = holder.execute("SELECT pg_advisory_xact_lock(1953064037, pg_backend_pid() & 63)");
        let ring = async {
            common::a_backend_waits(&stage.pool).await;
            session.execute("INSERT INTO tidemark.texts (body) VALUES ('rings')").await.unwrap();
        };
        // As if another writer were at work from the moment on when the reader takes its request back.
        let (other, ()) = timeout(LONG, async { tokio::join!(other, ring) }).await.unwrap();
        other.unwrap();
        session.execute("BEGIN").await.unwrap();
        session.execute("INSERT INTO tidemark.texts (body) VALUES ('does not ring')").await.unwrap();
        holder.rollback().await.unwrap();
        count_is(&reader, 2 * round - 1).await;
        let refused = stage.metric("tidemark_notification_requests_total", "refused");
        wait_until(LONG, "the reader is refused", async || {
            stage.metric("tidemark_notification_requests_total", "refused") > refused + 1.0
        })
        .await;
        session.execute("COMMIT").await.unwrap();
        let took = count_is(&reader, 2 * round).await;
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
    drop(session);
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn the_poll_finds_what_no_bell_announced_and_the_doorbell_is_rebuilt(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let stage = Stage::new(pool, options);
    let quick = Duration::from_millis(300);
    let intervals = Intervals { poll: quick, bell_grace: quick, ..Intervals::default() };
    let reader = stage.reader(ReaderConfig { intervals, ..stage.config() });
    stage.asleep(&reader).await;
    assert_eq!(stage.metric("tidemark_doorbell_rebuilds_total", ""), 0.0);

    // What a server that lost a notification looks like.
    let silent = "INSERT INTO tidemark.deltas (source, n) VALUES ('texts', 7)";
    stage.pool.execute(silent).await.unwrap();
    count_is(&reader, 7).await;
    wait_until(LONG, "the doorbell is rebuilt", async || {
        stage.metric("tidemark_doorbell_missed_bells_total", "") == 1.0
            && stage.metric("tidemark_doorbell_rebuilds_total", "") == 1.0
    })
    .await;
    stage.asleep(&reader).await;
    stage.insert("and it works again").await;
    count_is(&reader, 8).await;
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn an_idle_reader_asks_once_per_interval(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let intervals = Intervals { poll: Duration::from_millis(500), ..Intervals::default() };
    let reader = stage.reader(ReaderConfig { intervals, ..stage.config() });
    stage.asleep(&reader).await;
    let (reads, requests) =
        (stage.metric("tidemark_reads_total", ""), stage.metric("tidemark_notification_requests_total", ""));
    // The time that passes is the subject here: 8 intervals, and one more read at most at the edge.
    sleep(Duration::from_secs(4)).await;
    let more = stage.metric("tidemark_reads_total", "") - reads;
    assert!((6.0..=9.0).contains(&more), "{more} reads");
    assert_eq!(stage.metric("tidemark_notification_requests_total", ""), requests);
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn neither_reads_nor_bells_grow_with_the_write_rate(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let reader = stage.reader(stage.config_without_poll());
    stage.asleep(&reader).await;
    let (reads, bells) = (stage.metric("tidemark_reads_total", ""), stage.metric("tidemark_doorbell_bells_total", ""));
    let began = Instant::now();
    let mut written = 0;
    while began.elapsed() < Duration::from_secs(2) {
        stage.insert("again").await;
        written += 1;
    }
    let reads = stage.metric("tidemark_reads_total", "") - reads;
    // 50 reads a second, and a few at the start.
    assert!(reads <= began.elapsed().as_secs_f64() * 50.0 + 10.0, "{reads} reads for {written} writes");
    let bells = stage.metric("tidemark_doorbell_bells_total", "") - bells;
    assert!(bells * 4.0 < written as f64, "{bells} bells for {written} writes");
    count_is(&reader, written).await;
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn callers_who_want_a_new_reading_share_queries(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let reader = stage.reader(stage.config_without_poll());
    stage.asleep(&reader).await;
    stage.insert("new").await;
    let asked = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..3000 {
        let reader = reader.clone();
        callers.spawn(async move { reader.reread().await.unwrap() });
    }
    for reading in callers.join_all().await {
        assert!(reading.at >= asked);
        assert_eq!(count(&reading), 1);
    }
    let reads = stage.metric("tidemark_reads_total", "");
    assert!(reads < 100.0, "{reads} reads for 3000 callers");
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_database_that_goes_away_and_comes_back_is_read_again_within_3_seconds(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let stage = Stage::new(pool, options);
    let (proxy, through) = stage.proxy().await;
    let reader = stage.reader(ReaderConfig { database: through.clone(), listen: through, ..stage.config() });
    stage.insert("before").await;
    count_is(&reader, 1).await;
    stage.asleep(&reader).await;

    proxy.cut();
    view_is(&reader, "the database is down", |view| !view.database_up && view.doorbell == Doorbell::Lost).await;
    assert_eq!(reader.reread().await.unwrap_err(), Unavailable::Failed);
    let kept = reader.subscribe().borrow().reading.clone().unwrap();
    assert_eq!(count(&kept), 1, "the last values stay");
    stage.insert("meanwhile").await;

    proxy.restore();
    let took = count_is(&reader, 2).await;
    assert!(took < Duration::from_secs(3), "{took:?}");
    view_is(&reader, "the doorbell is back", |view| view.doorbell == Doorbell::Listening).await;
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_database_that_goes_silent_is_noticed_and_no_caller_waits_for_it(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let stage = Stage::new(pool, options);
    let (proxy, through) = stage.proxy().await;
    let listen = stage.database();
    let reader = stage.reader(ReaderConfig { database: through, listen, ..stage.config() });
    stage.asleep(&reader).await;

    proxy.freeze();
    let asked = Instant::now();
    reader.reread().await.unwrap_err();
    assert!(asked.elapsed() < Duration::from_secs(3));
    view_is(&reader, "the database is down", |view| !view.database_up).await;
    stage.insert("meanwhile").await;

    proxy.thaw();
    let took = count_is(&reader, 1).await;
    assert!(took < Duration::from_secs(3), "{took:?}");
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_reader_that_has_ended_says_so(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    let intervals = Intervals { poll: NEVER, ..Intervals::default() };
    let reader = stage.reader(ReaderConfig { intervals, ..stage.config() });
    stage.asleep(&reader).await;
    stage.end().await;
    assert_eq!(reader.reread().await.unwrap_err(), Unavailable::Ended);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_reading_says_when_a_feed_changed_last_and_in_which_trace(pool: PgPoolOptions, options: PgConnectOptions) {
    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let stage = Stage::new(pool, options);
    let reader = stage.reader(stage.config());
    let never = &reader.reread().await.unwrap().feeds[0];
    assert_eq!((never.changed_at, never.traceparent.as_deref()), (None, None));

    let writer = stage.writer(stage.database());
    let before = Instant::now();
    writer.save(Uuid::new_v4(), "traced".into(), Some(TRACE.into())).await.unwrap();
    let reading = reader.reread().await.unwrap();
    assert_eq!(reading.feeds[0].traceparent.as_deref(), Some(TRACE));
    let changed = reading.changed(&reading.feeds[0]).unwrap();
    // Counted back from before the query, so it may seem older by the query's way to the server.
    assert!(changed + Duration::from_millis(500) > before && changed < Instant::now(), "{:?}", before - changed);

    // A newer change in another slot and without a trace: the older one's is not shown any more.
    stage.insert("not traced").await;
    assert_eq!(reader.reread().await.unwrap().feeds[0].traceparent, None);
    // And neither does it stay with the connection.
    writer.save(Uuid::new_v4(), "traced again".into(), Some(TRACE.into())).await.unwrap();
    writer.save(Uuid::new_v4(), "not traced".into(), None).await.unwrap();
    assert_eq!(reader.reread().await.unwrap().feeds[0].traceparent, None);
    stage.end().await;
}
