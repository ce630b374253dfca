//! The list of texts, newest first.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, FromRow, PgPool};
use tokio::time::timeout;
use uuid::Uuid;

use crate::{
    DatabaseError, DatabaseUrl,
    connection::{self, data_error},
    lossy::{Form, Lossy},
    transaction,
};

/// Pages are read in a millisecond, so few connections serve many requests; a hundred replicas must not use up the server's.
const MAX_CONNECTIONS: u32 = 4;

/// A request has 5 s in all; a caller must get its answer before that.
const PAGE_TIMEOUT: Duration = Duration::from_secs(4);
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// A stored text.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Text {
    /// The place in the list; greater is newer. It has gaps.
    pub seq: i64,
    /// Made by the client.
    pub id: Uuid,
    /// 1 to 10,000 characters. U+FFFD stands for bytes that are not UTF-8; only another writer can have stored them.
    #[sqlx(rename = "body", try_from = "Lossy")]
    pub text: String,
    /// The database's clock when it was stored.
    pub created_at: DateTime<Utc>,
}

/// What [`Texts`] needs to know.
#[derive(Debug, Clone)]
pub struct TextsConfig {
    /// Where to read.
    pub database: DatabaseUrl,
    /// The name that the server's administrator sees, for example `app-1`.
    pub application_name: String,
}

/// Why a page could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The database did not answer in time.
    #[error("failed to read texts within {PAGE_TIMEOUT:?}")]
    TimedOut,
    /// The database could not be reached, or failed.
    #[error("failed to read texts")]
    Query(#[source] DatabaseError),
}

/// Reads pages of texts; clones share the connections.
#[derive(Debug, Clone)]
pub struct Texts {
    pool: PgPool,
}

impl Texts {
    /// Opens no connection yet. Needs a Tokio runtime.
    #[must_use]
    pub fn new(config: TextsConfig) -> Self {
        let TextsConfig { database, application_name } = config;
        let name = format!("{application_name} texts");
        Self { pool: connection::pool(&database, &name, MAX_CONNECTIONS, ACQUIRE_TIMEOUT) }
    }

    /// Up to `limit` texts that are older than the one at `before`, newest first.
    ///
    /// # Errors
    /// [`ReadError`], after four seconds at the latest.
    pub async fn page(&self, limit: u32, before: Option<i64>) -> Result<Vec<Text>, ReadError> {
        let page = async {
            match self.read(Form::Text, limit, before).await {
                Err(error) if data_error(&error).is_some() => self.read(Form::Bytes, limit, before).await,
                page => page,
            }
        };
        let page = timeout(PAGE_TIMEOUT, page).await.map_err(|_| ReadError::TimedOut)?;
        page.map_err(|error| ReadError::Query(error.into()))
    }

    async fn read(&self, form: Form, limit: u32, before: Option<i64>) -> Result<Vec<Text>, sqlx::Error> {
        let query = format!(
            "SELECT seq, id, {}, created_at FROM tidemark.texts WHERE seq < $1 ORDER BY seq DESC LIMIT $2",
            form.column("body")
        );
        let query = sqlx::query_as(AssertSqlSafe(query)).bind(before.unwrap_or(i64::MAX)).bind(i64::from(limit));
        transaction::fetch_all(&self.pool, query).await
    }

    /// Closes the connections, at shutdown.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}
