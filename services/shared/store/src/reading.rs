//! One look at all feeds.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection};
use tokio::time::Instant;

use crate::connection::{ConnectError, is_undefined};

/// Which past of which database a version belongs to. Versions compare only within one history.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct History {
    /// Random, made by the first migration; at most 16 characters.
    pub store: String,
    /// The server's timeline: grows by one when a standby is promoted.
    pub timeline: u32,
}

/// The value of one feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedValue {
    /// The feed's name, for example `texts`.
    pub name: String,
    /// Grows with every committed change, and is the same for every reader.
    pub version: u64,
    /// What clients see, for example `("count", 1234)`.
    pub fields: Vec<(String, i64)>,
    /// When the newest change was counted, by the database's clock: in its transaction, just before the commit.
    pub changed_at: Option<DateTime<Utc>>,
    /// The W3C trace context that the newest change came with.
    pub traceparent: Option<String>,
}

/// What caused a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// The first read of a reader.
    Start,
    /// A bell rang, or rang a moment ago.
    Bell,
    /// It was time.
    Poll,
    /// Somebody called [`crate::Reader::reread`].
    Asked,
}

impl Path {
    pub(crate) const ALL: [Self; 4] = [Self::Start, Self::Bell, Self::Poll, Self::Asked];

    /// The name in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Bell => "bell",
            Self::Poll => "poll",
            Self::Asked => "asked",
        }
    }
}

/// All feeds as they were in one snapshot of the database.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Where the versions belong to.
    pub history: History,
    /// All feeds, by name.
    pub feeds: Vec<FeedValue>,
    /// Taken before the query was sent: the values were true then, or became true later.
    pub at: Instant,
    /// The database's clock, at a moment after [`at`](Self::at).
    pub database_time: DateTime<Utc>,
    /// What caused this read.
    pub path: Path,
    /// How full the server's notification queue is, 0 to 1.
    pub queue_usage: f64,
    /// Whether the next writer of any feed is sure to ring.
    pub all_armed: bool,
}

impl Reading {
    /// When a feed of this reading changed last, on the clock of this process. The two clocks never meet: how long ago it was comes from the database's
    /// alone, and is counted back from the moment before the query was sent. So the change seems older than it is by that query's way to the server,
    /// a tenth of a millisecond, and never younger.
    #[must_use]
    pub fn changed(&self, feed: &FeedValue) -> Option<Instant> {
        // A database's clock that was set back would put the change into the future.
        let ago = (self.database_time - feed.changed_at?).to_std().unwrap_or_default();
        self.at.checked_sub(ago)
    }

    /// Whether anything is different from an earlier reading.
    pub(crate) fn moved_since(&self, earlier: &Self) -> bool {
        self.history != earlier.history || self.feeds != earlier.feeds
    }

    /// Whether a feed has a greater version than in an earlier reading of the same history.
    pub(crate) fn newer_than(&self, earlier: &Self) -> bool {
        let grew = |feed: &FeedValue| {
            earlier.feeds.iter().any(|before| before.name == feed.name && before.version < feed.version)
        };
        self.history == earlier.history && self.feeds.iter().any(grew)
    }
}

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueryError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("failed to read within {:?}", crate::reader::READ_TIMEOUT)]
    TimedOut,
    #[error("failed to read, because the server is a standby: use the address of the primary")]
    Standby,
    #[error("failed to read, because the schema is not there yet")]
    NotReady,
    #[error("failed to read")]
    Query(#[source] sqlx::Error),
}

impl From<sqlx::Error> for QueryError {
    fn from(error: sqlx::Error) -> Self {
        if is_undefined(&error) { Self::NotReady } else { Self::Query(error) }
    }
}

/// One statement, so that all values come from one snapshot. It has one row per feed, and one without a name if there is no
/// feed. The timeline is read from the name of the current WAL file, because the control file learns of a promotion only at
/// the next checkpoint. Asking for the queue's usage also frees a queue that a dead listener left full.
const READ: &str = "
WITH server AS MATERIALIZED (
  SELECT store.id AS store, pg_is_in_recovery() AS standby,
    CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END AS timeline,
    pg_notification_queue_usage() AS queue_usage, clock_timestamp() AS database_time
  FROM tidemark.store
), sums AS (
  SELECT feed, sum(n)::bigint AS n, sum(total)::bigint AS total, sum(version)::bigint AS version, bool_and(armed) AS armed,
    max(at) AS changed_at, (array_agg(traceparent ORDER BY at DESC NULLS LAST))[1] AS traceparent
  FROM tidemark.feed_slots GROUP BY feed
)
SELECT server.*, feeds.name, feeds.n_as, feeds.total_as, sums.n, sums.total, sums.version, sums.armed, sums.changed_at, sums.traceparent
FROM server LEFT JOIN (tidemark.feeds JOIN sums ON sums.feed = feeds.name) ON true
ORDER BY feeds.name";

#[derive(FromRow)]
struct Row {
    store: String,
    standby: bool,
    timeline: Option<String>,
    queue_usage: f64,
    database_time: DateTime<Utc>,
    name: Option<String>,
    n_as: Option<String>,
    total_as: Option<String>,
    n: Option<i64>,
    total: Option<i64>,
    version: Option<i64>,
    armed: Option<bool>,
    changed_at: Option<DateTime<Utc>>,
    traceparent: Option<String>,
}

/// Reads all feeds.
pub(crate) async fn read(connection: &mut PgConnection, path: Path) -> Result<Reading, QueryError> {
    let at = Instant::now();
    let rows: Vec<Row> = sqlx::query_as(READ).fetch_all(connection).await?;
    let first = rows.first().ok_or(QueryError::NotReady)?;
    if first.standby {
        return Err(QueryError::Standby);
    }
    let timeline = first.timeline.as_deref().and_then(|digits| u32::from_str_radix(digits, 16).ok());
    Ok(Reading {
        history: History { store: first.store.clone(), timeline: timeline.ok_or(QueryError::Standby)? },
        at,
        database_time: first.database_time,
        path,
        queue_usage: first.queue_usage,
        all_armed: rows.iter().all(|row| row.armed.unwrap_or(true)),
        feeds: rows.into_iter().filter_map(feed).collect(),
    })
}

fn feed(row: Row) -> Option<FeedValue> {
    let fields = [(row.n_as, row.n), (row.total_as, row.total)];
    Some(FeedValue {
        name: row.name?,
        version: u64::try_from(row.version?).unwrap_or_default(),
        fields: fields.into_iter().filter_map(|(name, value)| Some((name?, value?))).collect(),
        changed_at: row.changed_at,
        traceparent: row.traceparent,
    })
}

/// Asks every writer that is not at work to ring.
pub(crate) async fn arm(connection: &mut PgConnection) -> Result<(), QueryError> {
    sqlx::query("SELECT tidemark.arm_feeds()").execute(connection).await?;
    Ok(())
}
