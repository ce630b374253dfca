//! Writers and readers that are at work while the database is migrated, and what they observe.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, rngs::StdRng};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::time::sleep;

use crate::version_0_1::{self, Value};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    Before,
    /// `migrate` has been called.
    Migrating,
    /// It has returned.
    After,
    /// Everybody ends.
    End,
}

const PHASES: [Phase; 4] = [Phase::Before, Phase::Migrating, Phase::After, Phase::End];

/// What all tasks share.
pub struct Observed {
    phase: AtomicU8,
    /// Transactions that ended well in each phase.
    commits: [AtomicU64; 4],
    /// Snapshots that were checked in each phase.
    checks: [AtomicU64; 4],
    /// Transactions that failed because of slots in each phase.
    failures: [AtomicU64; 4],
    /// The longest wait for a lock of the slots while the migration ran: only the migration takes
    /// one that others wait for.
    longest: Mutex<Duration>,
}

impl Observed {
    pub fn new() -> Self {
        Self {
            phase: AtomicU8::new(Phase::Before as u8),
            commits: Default::default(),
            checks: Default::default(),
            failures: Default::default(),
            longest: Mutex::default(),
        }
    }

    pub fn phase(&self) -> Phase {
        PHASES[usize::from(self.phase.load(Ordering::SeqCst))]
    }

    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::SeqCst);
    }

    pub fn commits(&self, phase: Phase) -> u64 {
        self.commits[phase as usize].load(Ordering::Relaxed)
    }

    pub fn checks(&self, phase: Phase) -> u64 {
        self.checks[phase as usize].load(Ordering::Relaxed)
    }

    pub fn longest(&self) -> Duration {
        *self.longest.lock().unwrap()
    }

    /// For the log of a test that failed.
    pub fn summary(&self) -> String {
        let numbers = |counters: &[AtomicU64; 4]| counters.each_ref().map(|counter| counter.load(Ordering::Relaxed));
        format!(
            "commits {:?}, failures {:?}, checks {:?}, longest wait {:?}",
            numbers(&self.commits),
            numbers(&self.failures),
            numbers(&self.checks),
            self.longest()
        )
    }
}

/// One of the writers. It changes only rows of its own, so that writers do not make each other
/// fail; at SERIALIZABLE it only adds to tables that others use.
pub struct Writer {
    pub number: u64,
    pub level: &'static str,
    /// Whether it may write texts, and empty the tables of all.
    pub owner: bool,
    pub session: PgConnection,
    pub random: StdRng,
}

impl Writer {
    pub async fn run(mut self, observed: &Observed) {
        let level = format!("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL {}", self.level);
        self.session.execute(AssertSqlSafe(level)).await.unwrap();
        while observed.phase() != Phase::End {
            let began = observed.phase();
            let script = self.script();
            match self.transaction(&script).await {
                Ok(()) => drop(observed.commits[observed.phase() as usize].fetch_add(1, Ordering::Relaxed)),
                Err(error) => {
                    let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default();
                    // The slots of version 0.1 made transactions with one snapshot fail, and wait
                    // in a circle. Deltas do neither.
                    let is_known =
                        ["40001", "40P01"].contains(&&*code) && self.level != "READ COMMITTED" && began < Phase::After;
                    assert!(is_known, "{} {}, begun {began:?}: {script:?}: {error}", self.number, self.level);
                    observed.failures[observed.phase() as usize].fetch_add(1, Ordering::Relaxed);
                    self.session.execute("ROLLBACK").await.unwrap();
                }
            }
            sleep(Duration::from_millis(self.random.random_range(0..4))).await;
        }
        self.session.close().await.unwrap();
    }

    async fn transaction(&mut self, script: &[String]) -> Result<(), sqlx::Error> {
        for statement in script {
            self.session.execute(AssertSqlSafe(statement.as_str())).await?;
        }
        Ok(())
    }

    fn script(&mut self) -> Vec<String> {
        // On its own, because whoever empties a table waits for all who have written to it.
        if self.owner && self.level == "READ COMMITTED" && self.random.random_bool(0.02) {
            let table = ["tidemark.texts", "public.orders"][self.random.random_range(0..2)];
            return vec![format!("TRUNCATE {table}")];
        }
        if self.random.random_bool(0.3) {
            return vec![self.change()];
        }
        let mut script = vec!["BEGIN".to_owned()];
        for _ in 0..self.random.random_range(1..5) {
            match self.random.random_range(0..10) {
                0 => script.push(format!("SELECT pg_sleep({})", self.random.random_range(0.0..0.02))),
                1 | 2 => {
                    let end = if self.random.random_bool(0.5) { "ROLLBACK TO a" } else { "RELEASE a" };
                    script.extend(["SAVEPOINT a".to_owned(), self.change(), self.change(), end.to_owned()]);
                }
                _ => script.push(self.change()),
            }
        }
        script.push(if self.random.random_bool(0.85) { "COMMIT" } else { "ROLLBACK" }.to_owned());
        script
    }

    fn change(&mut self) -> String {
        let (writer, rows) = (self.number, self.random.random_range(1..6));
        let status = ["'open'", "'closed'", "NULL"][self.random.random_range(0..3)];
        let insert = "(writer, status, amount) SELECT";
        let series = format!("FROM generate_series(1, {rows})");
        // The table that nobody else uses: with changes of all kinds at each level.
        let own = format!("public.items_{writer}");
        let some =
            |table: &str| format!("id IN (SELECT id FROM {table} WHERE writer = {writer} ORDER BY id LIMIT {rows})");
        let shared = self.random.random_range(0..if self.level == "SERIALIZABLE" { 5 } else { 10 });
        match shared {
            0 | 1 if self.owner => format!("INSERT INTO tidemark.texts (body) SELECT 'writer {writer}' {series}"),
            0..4 => format!("INSERT INTO public.orders {insert} {writer}, {status}, 50 {series}"),
            4 => match self.random.random_range(0..10) {
                0..5 => format!("INSERT INTO {own} {insert} {writer}, {status}, 50 {series}"),
                5 | 6 => format!("UPDATE {own} SET status = {status} WHERE {}", some(&own)),
                7 | 8 => format!("DELETE FROM {own} WHERE {}", some(&own)),
                _ => format!("TRUNCATE {own}"),
            },
            5 if self.owner => format!(
                "DELETE FROM tidemark.texts WHERE seq IN (SELECT seq FROM tidemark.texts WHERE body = 'writer {writer}' LIMIT {rows})"
            ),
            5..8 => format!("UPDATE public.orders SET status = {status} WHERE {}", some("public.orders")),
            _ => format!("DELETE FROM public.orders WHERE {}", some("public.orders")),
        }
    }
}

/// Visitors come and go as a dashboard of version 0.1 counts them, and are audited.
pub async fn visit(mut session: PgConnection, mut random: StdRng, observed: &Observed) {
    while observed.phase() != Phase::End {
        let statement = match random.random_range(0..10) {
            0..5 => {
                "WITH visit AS (INSERT INTO tidemark.visits (id) VALUES (gen_random_uuid()) RETURNING id)
                 INSERT INTO tidemark.connections (visit, instance, n) SELECT id, '00000000-0000-0000-0000-000000000001', 1 FROM visit"
            }
            5..9 => "DELETE FROM tidemark.connections WHERE visit IN (SELECT visit FROM tidemark.connections LIMIT 1)",
            _ => "DO $$ BEGIN IF tidemark.audit_visitors() <> 0 THEN RAISE 'visitors were miscounted'; END IF; END $$",
        };
        session.execute(statement).await.unwrap();
        sleep(Duration::from_millis(random.random_range(0..5))).await;
    }
    session.close().await.unwrap();
}

/// A reader of version 0.1, in its burst: no read fails, and no number goes back.
pub async fn read(mut session: PgConnection, observed: &Observed) {
    let mut before = Vec::new();
    while observed.phase() != Phase::End {
        let values = version_0_1::values(&mut session).await.unwrap();
        never_back(&before, &values);
        before = values;
        sleep(Duration::from_millis(5)).await;
    }
    session.close().await.unwrap();
}

fn never_back(before: &[Value], now: &[Value]) {
    assert!(before.is_empty() || before.len() == now.len(), "{before:?} {now:?}");
    for (before, now) in before.iter().zip(now) {
        assert_eq!(before.name, now.name);
        let same = before.version == now.version && (before.n, before.total) == (now.n, now.total);
        assert!(same || before.version < now.version && before.total <= now.total, "{before:?} {now:?}");
    }
}

/// Measures how long sessions wait for a lock of the slots.
pub async fn measure_waits(mut session: PgConnection, observed: &Observed) {
    let slots: i64 = sqlx::query_scalar("SELECT 'tidemark.feed_slots'::regclass::oid::bigint")
        .fetch_one(&mut session)
        .await
        .unwrap();
    let waits = "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - waitstart)), 0)::float8 FROM pg_locks
        WHERE relation = $1::oid AND NOT granted AND mode <> 'AccessExclusiveLock'";
    while observed.phase() != Phase::End {
        let longest: f64 = sqlx::query_scalar(waits).bind(slots).fetch_one(&mut session).await.unwrap();
        let longest = Duration::from_secs_f64(longest.max(0.0));
        {
            let mut known = observed.longest.lock().unwrap();
            *known = known.max(longest);
        }
        sleep(Duration::from_millis(5)).await;
    }
    session.close().await.unwrap();
}

/// What a feed should say.
pub struct Expected {
    pub name: String,
    pub n: String,
}

/// Compares each feed with its table, in one snapshot after the other.
pub async fn check(mut session: PgConnection, feeds: &[Expected], tables: &str, observed: &Observed) {
    let mut before = Vec::new();
    while observed.phase() != Phase::End {
        let values = check_once(&mut session, feeds, tables).await;
        never_back(&before, &values);
        before = values;
        observed.checks[observed.phase() as usize].fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(2)).await;
    }
    session.close().await.unwrap();
}

pub async fn check_once(session: &mut PgConnection, feeds: &[Expected], tables: &str) -> Vec<Value> {
    let mut transaction = session.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.unwrap();
    // Before the snapshot: one that is older than a TRUNCATE sees an empty table.
    transaction.execute(AssertSqlSafe(format!("LOCK TABLE {tables} IN ACCESS SHARE MODE"))).await.unwrap();
    let is_migrated = "SELECT EXISTS (SELECT FROM tidemark._sqlx_migrations WHERE version = 6)";
    let is_migrated: bool = sqlx::query_scalar(is_migrated).fetch_one(&mut *transaction).await.unwrap();
    let values = version_0_1::values(&mut transaction).await.unwrap();
    let rows: Vec<String> =
        feeds.iter().map(|Expected { name, n }| format!("SELECT '{name}' AS name, ({n}) AS n")).collect();
    let rows: Vec<(String, i64)> =
        sqlx::query_as(AssertSqlSafe(rows.join(" UNION ALL "))).fetch_all(&mut *transaction).await.unwrap();
    for (name, n) in rows {
        let value = values.iter().find(|value| value.name == name).unwrap();
        assert_eq!(value.n, n, "{name}, migrated: {is_migrated}: {values:?}");
    }
    if is_migrated {
        let values_of_today =
            "SELECT feed AS name, n, total, version, false AS armed FROM tidemark.feed_values() ORDER BY feed";
        let values_of_today: Vec<Value> = sqlx::query_as(values_of_today).fetch_all(&mut *transaction).await.unwrap();
        assert_eq!(values_of_today, values);
    }
    let visits = "SELECT count(*) FROM tidemark.visits";
    let visits: i64 = sqlx::query_scalar(visits).fetch_one(&mut *transaction).await.unwrap();
    assert_eq!(values.iter().find(|value| value.name == "visitors").unwrap().total, visits);
    transaction.commit().await.unwrap();
    values
}
