//! Lists of samples, newest first.

use std::time::Duration;

use sqlx::PgPool;
use tokio::time::timeout;

use super::{Sample, SamplesConfig, order::natural, statements};
use crate::{DatabaseError, SampleMetrics, connection};

/// A list is read in some milliseconds, so few connections serve many requests.
const MAX_CONNECTIONS: u32 = 2;

/// A request has 5 s in all; a caller must get its answer before that.
const LIST_TIMEOUT: Duration = Duration::from_secs(4);
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a list could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SamplesError {
    /// The database did not answer in time.
    #[error("failed to read samples within {LIST_TIMEOUT:?}")]
    TimedOut,
    /// The database could not be reached, or failed.
    #[error("failed to read samples")]
    Query(#[source] DatabaseError),
}

/// Reads lists of samples; clones share the connections.
#[derive(Clone)]
pub struct Samples {
    pool: PgPool,
    metrics: SampleMetrics,
}

impl Samples {
    /// Opens no connection yet. Needs a Tokio runtime.
    #[must_use]
    pub fn new(config: SamplesConfig, metrics: SampleMetrics) -> Self {
        let name = format!("{} list", config.application_name);
        Self { pool: connection::pool(&config.database, &name, MAX_CONNECTIONS, ACQUIRE_TIMEOUT), metrics }
    }

    /// The newest `limit` samples, of one server or of all. Those of one second are in natural order.
    ///
    /// # Errors
    /// [`SamplesError`], after four seconds at the latest.
    pub async fn newest(&self, server: Option<&str>, limit: u32) -> Result<Vec<Sample>, SamplesError> {
        // Postgres stores no such text, and refuses to look for it.
        if server.is_some_and(|server| server.contains('\0')) {
            return Ok(Vec::new());
        }
        self.metrics.reads("list").inc();
        let list = timeout(LIST_TIMEOUT, statements::newest(&self.pool, server, limit)).await;
        let list = list
            .map_err(|_| SamplesError::TimedOut)
            .and_then(|list| list.map_err(|error| SamplesError::Query(error.into())));
        let mut list = list.inspect_err(|_| self.metrics.read_failures.inc())?;
        list.sort_by(|one, other| other.second.cmp(&one.second).then_with(|| natural(&one.server, &other.server)));
        Ok(list)
    }

    /// Closes the connections, at shutdown.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}
