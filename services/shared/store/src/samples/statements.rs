//! What is asked of the database. Rows are sorted in the statement, so that two replicas wait for each other in one order.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, PgConnection, PgPool, postgres::types::PgInterval};

use super::Sample;
use crate::{
    connection::{data_error, sqlstate},
    lossy::Form,
    transaction,
};

/// The history, and the newest of each server, in one statement, so in one transaction. What is there already stays, and the newest never becomes older,
/// whatever the clocks of replicas do.
const STORE: &str = "
WITH new AS MATERIALIZED (
  SELECT server_id, second, cpu_usage, memory_usage, disk_usage
  FROM UNNEST($1::text[], $2::timestamptz[], $3::real[], $4::real[], $5::real[]) AS new (server_id, second, cpu_usage, memory_usage, disk_usage)),
stored AS (
  INSERT INTO tidemark.metrics (server_id, second, cpu_usage, memory_usage, disk_usage)
  SELECT server_id, second, cpu_usage, memory_usage, disk_usage FROM new ORDER BY server_id, second
  ON CONFLICT DO NOTHING RETURNING second),
newest AS (
  INSERT INTO tidemark.metrics_latest AS old (server_id, second, cpu_usage, memory_usage, disk_usage)
  SELECT DISTINCT ON (server_id) server_id, second, cpu_usage, memory_usage, disk_usage FROM new ORDER BY server_id, second DESC
  ON CONFLICT (server_id) DO UPDATE
  SET second = excluded.second, cpu_usage = excluded.cpu_usage, memory_usage = excluded.memory_usage, disk_usage = excluded.disk_usage
  WHERE excluded.second > old.second)
SELECT count(*) FROM stored";

/// Stores samples; gives how many the table did not have. Several of one server and second are one.
pub(super) async fn store(connection: &mut PgConnection, samples: &[Sample]) -> Result<u64, sqlx::Error> {
    let servers: Vec<&str> = samples.iter().map(|sample| &*sample.server).collect();
    let seconds: Vec<DateTime<Utc>> = samples.iter().map(|sample| sample.second).collect();
    let column = |percent: fn(&Sample) -> f32| samples.iter().map(percent).collect::<Vec<f32>>();
    let mut transaction = transaction::begin(connection).await?;
    let stored: Result<i64, _> = sqlx::query_scalar(STORE)
        .bind(servers)
        .bind(seconds)
        .bind(column(|sample| sample.usage.cpu))
        .bind(column(|sample| sample.usage.memory))
        .bind(column(|sample| sample.usage.disk))
        .persistent(false)
        .fetch_one(&mut *transaction)
        .await;
    Ok(transaction::end(transaction, stored).await?.unsigned_abs())
}

/// Whether a sample has no partition: the one error of the data that [`roll`] may heal. Postgres has no code of its own for it.
pub(super) fn is_partition_missing(error: &sqlx::Error) -> bool {
    sqlstate(error).as_deref() == Some("23514")
}

/// What [`roll`] has done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rolled {
    /// Partitions that were not there.
    pub made: u64,
    /// Partitions that were too old: one at most, so whoever calls may call again.
    pub dropped: u64,
}

/// Makes the partitions of the hours around now, and drops one that is older than the retention.
pub(super) async fn roll(connection: &mut PgConnection, retention: Duration) -> Result<Rolled, sqlx::Error> {
    let microseconds = i64::try_from(retention.as_micros()).unwrap_or(i64::MAX);
    let mut transaction = transaction::begin(connection).await?;
    let rolled: Result<(i32, i32), _> = sqlx::query_as("SELECT made, dropped FROM tidemark.roll_metrics($1)")
        .bind(PgInterval { months: 0, days: 0, microseconds })
        .persistent(false)
        .fetch_one(&mut *transaction)
        .await;
    let (made, dropped) = transaction::end(transaction, rolled).await?;
    Ok(Rolled { made: made.unsigned_abs().into(), dropped: dropped.unsigned_abs().into() })
}

/// The newest sample of each server.
pub(super) async fn latest(connection: &mut PgConnection) -> Result<Vec<Sample>, sqlx::Error> {
    match read_latest(connection, Form::Text).await {
        Err(error) if data_error(&error).is_some() => read_latest(connection, Form::Bytes).await,
        samples => samples,
    }
}

async fn read_latest(connection: &mut PgConnection, form: Form) -> Result<Vec<Sample>, sqlx::Error> {
    let id = form.column("server_id");
    let query = format!("SELECT {id}, second, cpu_usage, memory_usage, disk_usage FROM tidemark.metrics_latest");
    let mut transaction = transaction::begin(connection).await?;
    let samples = sqlx::query_as(AssertSqlSafe(query)).persistent(false).fetch_all(&mut *transaction).await;
    transaction::end(transaction, samples).await
}

/// Samples, the newest first: of one server, or of all.
pub(super) async fn newest(pool: &PgPool, server: Option<&str>, limit: u32) -> Result<Vec<Sample>, sqlx::Error> {
    match read_newest(pool, Form::Text, server, limit).await {
        Err(error) if data_error(&error).is_some() => read_newest(pool, Form::Bytes, server, limit).await,
        samples => samples,
    }
}

async fn read_newest(pool: &PgPool, form: Form, server: Option<&str>, limit: u32) -> Result<Vec<Sample>, sqlx::Error> {
    let id = form.column("server_id");
    let of = if server.is_some() { "WHERE server_id = $2" } else { "" };
    let query = format!(
        "SELECT {id}, second, cpu_usage, memory_usage, disk_usage FROM tidemark.metrics AS stored {of}
         ORDER BY second DESC, stored.server_id LIMIT $1"
    );
    let query = sqlx::query_as(AssertSqlSafe(query)).bind(i64::from(limit));
    transaction::fetch_all(pool, if let Some(server) = server { query.bind(server) } else { query }).await
}
