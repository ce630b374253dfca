//! Writers of all kinds against folds and snapshots: every value is that of its snapshot.
//!
//! `RACE_SECONDS` lets it run for longer than the 30 s of the suite, `RACE_SEED` repeats the choices of a run.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use common::Stage;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sqlx::{
    AssertSqlSafe, Connection, Executor, PgConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

const LEVELS: [&str; 3] = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];
const WRITERS: u64 = 9;
const CHECKERS: u64 = 3;
const FOLDERS: u64 = 3;

/// What was seen.
#[derive(Default)]
struct Seen {
    commits: [AtomicU64; 3],
    observations: AtomicU64,
    folds: AtomicU64,
    /// The value of each version.
    values: Mutex<HashMap<i64, (i64, i64)>>,
}

/// Codes by which transactions give way to each other, with and without us: serialization failure, deadlock, lock not available.
fn gives_way(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default();
    ["40001", "40P01", "55P03"].contains(&code.as_ref())
}

async fn write(mut session: PgConnection, level: usize, mut random: StdRng, seen: Arc<Seen>, token: CancellationToken) {
    session.execute("SET deadlock_timeout = '50ms'; SET lock_timeout = '2s'").await.unwrap();
    while !token.is_cancelled() {
        let mut script = vec![format!("BEGIN ISOLATION LEVEL {}", LEVELS[level])];
        for _ in 0..random.random_range(1..5) {
            let rows = random.random_range(1..6);
            script.push(match random.random_range(0..1000) {
                0..550 => format!("INSERT INTO tidemark.texts (body) SELECT 'x' FROM generate_series(1, {rows})"),
                550..800 => format!(
                    "DELETE FROM tidemark.texts WHERE seq IN (SELECT seq FROM tidemark.texts ORDER BY seq LIMIT {rows} FOR UPDATE SKIP LOCKED)"
                ),
                800..950 => {
                    let end = if random.random_bool(0.5) { "ROLLBACK TO" } else { "RELEASE" };
                    format!("SAVEPOINT a; INSERT INTO tidemark.texts (body) VALUES ('s'); {end} a")
                }
                950..990 => format!("SELECT pg_sleep({})", random.random_range(0.0..0.2)),
                // A snapshot that is older than a TRUNCATE sees an empty table.
                _ if level == 0 => "TRUNCATE tidemark.texts".to_owned(),
                _ => "SELECT 1".to_owned(),
            });
        }
        script.push(if random.random_bool(0.9) { "COMMIT".into() } else { "ROLLBACK".into() });
        let mut committed = true;
        for statement in script {
            if let Err(error) = session.execute(AssertSqlSafe(statement)).await {
                assert!(gives_way(&error), "{}: {error}", LEVELS[level]);
                session.execute("ROLLBACK").await.unwrap();
                committed = false;
                break;
            }
        }
        if committed {
            seen.commits[level].fetch_add(1, Ordering::Relaxed);
        }
    }
    session.close().await.unwrap();
}

async fn check(mut session: PgConnection, seen: Arc<Seen>, token: CancellationToken) {
    let mut last = -1;
    while !token.is_cancelled() {
        let mut transaction = session.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.unwrap();
        let value = "SELECT n, total, version FROM tidemark.feed_values() WHERE feed = 'texts'";
        let (n, total, version): (i64, i64, i64) = sqlx::query_as(value).fetch_one(&mut *transaction).await.unwrap();
        let rows: i64 =
            sqlx::query_scalar("SELECT count(*) FROM tidemark.texts").fetch_one(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
        // TRUNCATE is not MVCC: a snapshot from before it sees no rows, and their number.
        assert!(n == rows || rows == 0, "{n} counted, {rows} rows at version {version}");
        assert!(version >= last, "version {version} after {last}");
        let known = *seen.values.lock().unwrap().entry(version).or_insert((n, total));
        assert_eq!(known, (n, total), "two values of version {version}");
        last = version;
        seen.observations.fetch_add(1, Ordering::Relaxed);
    }
}

/// Folds, mostly in pieces that leave deltas of the same transaction behind.
async fn fold(mut session: PgConnection, mut random: StdRng, seen: Arc<Seen>, token: CancellationToken) {
    while !token.is_cancelled() {
        let most = [1_i64, 2, 7, 1_000][random.random_range(0..4)];
        let folded: Option<i64> =
            sqlx::query_scalar("SELECT tidemark.fold_feeds($1)").bind(most).fetch_one(&mut session).await.unwrap();
        if folded.is_some_and(|folded| folded > 0) {
            seen.folds.fetch_add(1, Ordering::Relaxed);
        }
        sleep(Duration::from_millis(random.random_range(0..30))).await;
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn every_value_is_that_of_its_snapshot(pool: PgPoolOptions, options: PgConnectOptions) {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let (seconds, seed) = (number("RACE_SECONDS").unwrap_or(30), number("RACE_SEED").unwrap_or_else(rand::random));
    println!("RACE_SEED={seed}");
    let stage = Stage::new(pool, options);
    let (seen, token) = (Arc::new(Seen::default()), stage.token.clone());
    let session = async || PgConnection::connect_with(&stage.options).await.unwrap();
    let random = |task: u64| StdRng::seed_from_u64(seed.wrapping_add(task));
    let mut tasks = JoinSet::new();
    for writer in 0..WRITERS {
        let level = usize::try_from(writer % 3).unwrap();
        tasks.spawn(write(session().await, level, random(writer), Arc::clone(&seen), token.clone()));
    }
    for _ in 0..CHECKERS {
        tasks.spawn(check(session().await, Arc::clone(&seen), token.clone()));
    }
    for folder in 0..FOLDERS {
        tasks.spawn(fold(session().await, random(WRITERS + folder), Arc::clone(&seen), token.clone()));
    }
    // A task that ends before the token has failed.
    if let Ok(Some(ended)) = timeout(Duration::from_secs(seconds), tasks.join_next()).await {
        ended.unwrap();
    }
    token.cancel();
    tasks.join_all().await;

    let mut session = session().await;
    let fold = "SELECT tidemark.fold_feeds(1000000)";
    sqlx::query(fold).execute(&mut session).await.unwrap();
    let end =
        "SELECT n, (SELECT count(*) FROM tidemark.texts), pending FROM tidemark.feed_values() WHERE feed = 'texts'";
    let (n, rows, pending): (i64, i64, i64) = sqlx::query_as(end).fetch_one(&mut session).await.unwrap();
    assert_eq!((n, pending), (rows, 0));
    session.close().await.unwrap();
    let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
    let commits: Vec<u64> = seen.commits.iter().map(count).collect();
    println!("{} observations, {} folds, commits by level {commits:?}", count(&seen.observations), count(&seen.folds));
    // Something was seen of everything, or the test has shown nothing.
    assert!(
        count(&seen.observations) >= 100 && count(&seen.folds) >= 20 && commits.iter().all(|commits| *commits >= 50)
    );
    stage.end().await;
}
