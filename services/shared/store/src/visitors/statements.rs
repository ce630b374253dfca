//! What is asked of the database. Rows are sorted before they are sent, so that two replicas wait for each other in one order.

use std::time::Duration;

use sqlx::{PgConnection, Postgres, postgres::PgArguments, query::Query};
use uuid::Uuid;

use super::sockets::Row;
use crate::transaction;

/// Connections that one step of a sweep removes: some milliseconds of work, so that nobody waits long for a row.
const SWEEP: i32 = 5_000;

/// Visits that one step of the retention removes.
const FORGET: i64 = 10_000;

/// Two audits at once would both add the same difference. Any number does that no other program uses; this one is `tidemark` in a hash.
const AUDIT_LOCK: i64 = 0x7469_6465_6d61_726b;

/// The visit is counted once, and belongs to the replica whose socket is the newest. One statement, so one transaction.
const CONNECT: &str = "
WITH new AS (SELECT visit, n FROM UNNEST($2::uuid[], $3::bigint[]) AS new (visit, n)),
counted AS (INSERT INTO tidemark.visits (id) SELECT visit FROM new ORDER BY visit ON CONFLICT DO NOTHING)
INSERT INTO tidemark.connections AS old (visit, instance, n)
SELECT visit, $1, n FROM new ORDER BY visit
ON CONFLICT (visit) DO UPDATE SET instance = excluded.instance, n = excluded.n, connected_at = now() WHERE excluded.n > old.n";

/// Only what still belongs to this replica: a visit that has moved on is not this one's to remove.
const DISCONNECT: &str = "
DELETE FROM tidemark.connections WHERE visit IN (
  SELECT visit FROM tidemark.connections WHERE instance = $1 AND visit = ANY ($2) ORDER BY visit FOR UPDATE)";

/// Renews the lease, and if it was still there makes the rows agree with the sockets, in both directions: what is missing, or belongs to a replica with an
/// older socket, becomes this one's. Idle, it writes the lease alone.
const BEAT: &str = "
WITH lease AS (
  UPDATE tidemark.instances SET lease_until = clock_timestamp() + $4 * interval '1 second' WHERE id = $1 RETURNING id),
live AS (SELECT visit, n FROM UNNEST($2::uuid[], $3::bigint[]) AS live (visit, n)),
absent AS (
  SELECT visit, n, lease.id AS instance FROM live, lease
  WHERE NOT EXISTS (SELECT FROM tidemark.connections AS known WHERE known.visit = live.visit AND known.n >= live.n)),
counted AS (INSERT INTO tidemark.visits (id) SELECT visit FROM absent ORDER BY visit ON CONFLICT DO NOTHING),
added AS (
  INSERT INTO tidemark.connections AS old (visit, instance, n) SELECT visit, instance, n FROM absent ORDER BY visit
  ON CONFLICT (visit) DO UPDATE SET instance = excluded.instance, n = excluded.n, connected_at = now() WHERE excluded.n > old.n
  RETURNING visit),
removed AS (
  DELETE FROM tidemark.connections AS known USING lease
  WHERE known.instance = lease.id AND NOT EXISTS (SELECT FROM live WHERE live.visit = known.visit) RETURNING known.visit)
SELECT
  EXISTS (SELECT FROM lease),
  (SELECT count(*) FROM added),
  (SELECT count(*) FROM removed),
  (SELECT extract(epoch FROM min(lease_until) - clock_timestamp())::float8 FROM tidemark.instances WHERE id <> $1),
  (SELECT count(*) FROM tidemark.instances WHERE id <> $1 AND lease_until > clock_timestamp())";

const FORGET_VISITS: &str = "
DELETE FROM tidemark.visits WHERE id IN (
  SELECT id FROM tidemark.visits AS old WHERE first_seen < now() - $1 * interval '1 second'
    AND NOT EXISTS (SELECT FROM tidemark.connections WHERE visit = old.id) LIMIT $2)";

/// What a heartbeat found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Beat {
    /// False: somebody has swept this instance.
    pub held: bool,
    /// Rows that were missing or another's, and are there.
    pub added: u64,
    /// Rows that had no socket, and are gone.
    pub removed: u64,
    /// In how long the next lease of another instance ends, if it is not renewed.
    pub next_end: Option<Duration>,
    /// How many other instances hold a lease.
    pub peers: u64,
}

/// Makes an instance.
pub(super) async fn register(
    connection: &mut PgConnection,
    instance: Uuid,
    name: &str,
    lease: Duration,
) -> Result<(), sqlx::Error> {
    let query = sqlx::query(
        "INSERT INTO tidemark.instances (id, name, lease_until) VALUES ($1, $2, clock_timestamp() + $3 * interval '1 second')",
    )
    .bind(instance)
    .bind(name)
    .bind(lease.as_secs_f64());
    execute(connection, query).await
}

/// Counts visits and their sockets.
pub(super) async fn connect(connection: &mut PgConnection, instance: Uuid, rows: &[Row]) -> Result<(), sqlx::Error> {
    let (visits, ns) = columns(rows);
    execute(connection, sqlx::query(CONNECT).bind(instance).bind(visits).bind(ns)).await
}

/// Removes visits that have left.
pub(super) async fn disconnect(
    connection: &mut PgConnection,
    instance: Uuid,
    visits: &[Uuid],
) -> Result<(), sqlx::Error> {
    execute(connection, sqlx::query(DISCONNECT).bind(instance).bind(visits)).await
}

/// Renews the lease and repairs the rows.
pub(super) async fn beat(
    connection: &mut PgConnection,
    instance: Uuid,
    rows: &[Row],
    lease: Duration,
) -> Result<Beat, sqlx::Error> {
    let (visits, ns) = columns(rows);
    let mut transaction = transaction::begin(connection).await?;
    let beat: Result<(bool, i64, i64, Option<f64>, i64), _> = sqlx::query_as(BEAT)
        .bind(instance)
        .bind(visits)
        .bind(ns)
        .bind(lease.as_secs_f64())
        .persistent(false)
        .fetch_one(&mut *transaction)
        .await;
    let (held, added, removed, next_end, peers) = transaction::end(transaction, beat).await?;
    Ok(Beat {
        held,
        added: added.unsigned_abs(),
        removed: removed.unsigned_abs(),
        next_end: next_end.map(|seconds| Duration::from_secs_f64(seconds.max(0.0))),
        peers: peers.unsigned_abs(),
    })
}

/// Removes some connections of an instance whose lease has ended; `None` when there is nothing to do.
pub(super) async fn sweep(connection: &mut PgConnection) -> Result<Option<u64>, sqlx::Error> {
    let mut transaction = transaction::begin(connection).await?;
    let gone: Result<Option<i64>, _> = sqlx::query_scalar("SELECT tidemark.sweep_instance($1)")
        .bind(SWEEP)
        .persistent(false)
        .fetch_one(&mut *transaction)
        .await;
    Ok(transaction::end(transaction, gone).await?.map(i64::unsigned_abs))
}

/// Compares the number with the rows, corrects it, and removes old visits. Gives by how much it was wrong; `None` when another replica does it at
/// this moment.
pub(super) async fn audit(connection: &mut PgConnection, retention: Duration) -> Result<Option<i64>, sqlx::Error> {
    let mut transaction = transaction::begin(connection).await?;
    let difference = audit_alone(&mut transaction, retention).await;
    transaction::end(transaction, difference).await
}

async fn audit_alone(connection: &mut PgConnection, retention: Duration) -> Result<Option<i64>, sqlx::Error> {
    // A statement of its own: the next one has a snapshot that knows what the last audit did.
    let alone: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1)")
        .bind(AUDIT_LOCK)
        .persistent(false)
        .fetch_one(&mut *connection)
        .await?;
    if !alone {
        return Ok(None);
    }
    let difference =
        sqlx::query_scalar("SELECT tidemark.audit_visitors()").persistent(false).fetch_one(&mut *connection).await?;
    sqlx::query(FORGET_VISITS).bind(retention.as_secs_f64()).bind(FORGET).persistent(false).execute(connection).await?;
    Ok(Some(difference))
}

/// Takes an instance out that ends in order.
pub(super) async fn deregister(connection: &mut PgConnection, instance: Uuid) -> Result<(), sqlx::Error> {
    let mut transaction = transaction::begin(connection).await?;
    let removed = remove(&mut transaction, instance).await;
    transaction::end(transaction, removed).await
}

async fn remove(connection: &mut PgConnection, instance: Uuid) -> Result<(), sqlx::Error> {
    for statement in
        ["DELETE FROM tidemark.connections WHERE instance = $1", "DELETE FROM tidemark.instances WHERE id = $1"]
    {
        sqlx::query(statement).bind(instance).persistent(false).execute(&mut *connection).await?;
    }
    Ok(())
}

/// One statement in a transaction of its own.
async fn execute(connection: &mut PgConnection, query: Query<'_, Postgres, PgArguments>) -> Result<(), sqlx::Error> {
    let mut transaction = transaction::begin(connection).await?;
    let executed = query.persistent(false).execute(&mut *transaction).await;
    transaction::end(transaction, executed).await.map(|_| ())
}

fn columns(rows: &[Row]) -> (Vec<Uuid>, Vec<i64>) {
    rows.iter().map(|row| (row.visit, row.n)).unzip()
}
