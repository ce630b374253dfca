//! One look at all feeds.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection, Row as _};
use tokio::time::Instant;

use crate::{
    DatabaseError,
    connection::{ConnectError, is_undefined},
    own_feeds::{FeedProblem, ProblemWord},
    transaction::one_transaction,
};

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
    /// Why the value is not right any more.
    pub problem: Option<FeedProblem>,
    /// Since when it may be wrong, by the database's clock, if the database knows.
    pub(crate) problem_at: Option<DateTime<Utc>>,
    /// When the value was last known to be right, on the clock of this process: the reading, unless there is a problem.
    pub known_at: Instant,
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
    /// Whether there are writers that never notify: those of users' tables, on a server where transactions can be prepared.
    pub unannounced: bool,
    /// Deltas that this read had to add, of the feed that has most.
    pub pending: u64,
}

impl Reading {
    /// When a feed of this reading changed last, on the clock of this process. The two clocks never meet: how long ago it was comes from the database's
    /// alone, and is counted back from the moment before the query was sent. So the change seems older than it is by that query's way to the server,
    /// a tenth of a millisecond, and never younger.
    #[must_use]
    pub fn changed(&self, feed: &FeedValue) -> Option<Instant> {
        self.on_our_clock(feed.changed_at?)
    }

    /// Says of each feed with a problem when it was last known to be right: when an `earlier` reading knew it to be, or else when the database saw the problem, or
    /// counted the last change.
    pub(crate) fn know(&mut self, earlier: Option<&Self>) {
        let mut feeds = std::mem::take(&mut self.feeds);
        for feed in feeds.iter_mut().filter(|feed| feed.problem.is_some()) {
            let known = earlier.and_then(|earlier| earlier.feeds.iter().find(|before| before.name == feed.name));
            let known = known.map(|before| before.known_at);
            feed.known_at =
                known.or_else(|| self.on_our_clock(feed.problem_at.or(feed.changed_at)?)).unwrap_or(self.at);
        }
        self.feeds = feeds;
    }

    fn on_our_clock(&self, database_time: DateTime<Utc>) -> Option<Instant> {
        // A database's clock that was set back would put the change into the future.
        let ago = (self.database_time - database_time).to_std().unwrap_or_default();
        self.at.checked_sub(ago)
    }

    /// Whether a feed has a problem that the database does not keep yet.
    pub(crate) fn has_new_problem(&self) -> bool {
        let is_new = |feed: &FeedValue| match feed.problem {
            None | Some(FeedProblem::Gone | FeedProblem::Swapped) => false,
            Some(_) => feed.problem_at.is_none(),
        };
        self.feeds.iter().any(is_new)
    }

    /// Whether anything is different from an earlier reading.
    pub(crate) fn moved_since(&self, earlier: &Self) -> bool {
        let is_same = |(feed, before): (&FeedValue, &FeedValue)| {
            (feed.version, &feed.name, feed.problem) == (before.version, &before.name, before.problem)
        };
        self.history != earlier.history
            || self.feeds.len() != earlier.feeds.len()
            || !self.feeds.iter().zip(&earlier.feeds).all(is_same)
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
    Query(#[source] DatabaseError),
}

impl From<sqlx::Error> for QueryError {
    fn from(error: sqlx::Error) -> Self {
        if is_undefined(&error) { Self::NotReady } else { Self::Query(error.into()) }
    }
}

/// All values come from one snapshot. There is one row per feed, and one without a name if there is no feed.
const READ: &str = one_transaction!("SELECT * FROM tidemark.read_feeds(false)");

/// The same, and the catalogs are asked whether the feeds of users' tables are still right.
const READ_AND_CHECK: &str = one_transaction!("SELECT * FROM tidemark.read_feeds(true)");

#[derive(FromRow)]
struct Row {
    store: String,
    standby: bool,
    timeline: Option<String>,
    queue_usage: f64,
    database_time: DateTime<Utc>,
    unannounced: bool,
    name: Option<String>,
    n_as: Option<String>,
    total_as: Option<String>,
    n: Option<i64>,
    total: Option<i64>,
    version: Option<i64>,
    pending: Option<i64>,
    changed_at: Option<DateTime<Utc>>,
    traceparent: Option<String>,
    #[sqlx(try_from = "Option<String>")]
    problem: ProblemWord,
    problem_at: Option<DateTime<Utc>>,
}

/// Reads all feeds. `check_problems`: also whether they are still right, which takes longer.
pub(crate) async fn read(
    connection: &mut PgConnection,
    path: Path,
    check_problems: bool,
) -> Result<Reading, QueryError> {
    let at = Instant::now();
    let read = sqlx::raw_sql(if check_problems { READ_AND_CHECK } else { READ });
    let rows = read.fetch_all(connection).await?;
    let rows: Vec<Row> = rows.iter().map(Row::from_row).collect::<Result<_, _>>()?;
    let first = rows.first().ok_or(QueryError::NotReady)?;
    if first.standby {
        return Err(QueryError::Standby);
    }
    let timeline = first.timeline.as_deref().and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let pending = rows.iter().filter_map(|row| row.pending).max().unwrap_or_default();
    Ok(Reading {
        history: History { store: first.store.clone(), timeline: timeline.ok_or(QueryError::Standby)? },
        at,
        database_time: first.database_time,
        path,
        queue_usage: first.queue_usage,
        unannounced: first.unannounced,
        pending: pending.unsigned_abs(),
        feeds: rows.into_iter().filter_map(|row| feed(row, at)).collect(),
    })
}

fn feed(row: Row, known_at: Instant) -> Option<FeedValue> {
    let fields = [(row.n_as, row.n), (row.total_as, row.total)];
    Some(FeedValue {
        name: row.name?,
        version: u64::try_from(row.version?).unwrap_or_default(),
        fields: fields.into_iter().filter_map(|(name, value)| Some((name?, value?))).collect(),
        changed_at: row.changed_at,
        traceparent: row.traceparent,
        problem: row.problem.0,
        problem_at: row.problem_at,
        known_at,
    })
}

/// Keeps the problems of feeds in the database, so that a count that missed changes is not taken for right when the problem ends.
pub(crate) async fn keep_problems(connection: &mut PgConnection) -> Result<(), QueryError> {
    sqlx::raw_sql(one_transaction!("SELECT tidemark.keep_problems()")).execute(connection).await?;
    Ok(())
}

/// Deltas that one fold takes of each feed: some 50 ms of work, so that it ends in time on a busy server too.
pub(crate) const FOLD_LIMIT: u64 = 10_000;

/// Adds deltas to their bases, so that reading stays cheap. Gives the greatest number of deltas of one feed: if it is [`FOLD_LIMIT`], there are more. `None`: another
/// reader is at it.
pub(crate) async fn fold(connection: &mut PgConnection) -> Result<Option<u64>, QueryError> {
    let row = sqlx::raw_sql(one_transaction!("SELECT tidemark.fold_feeds(10000)")).fetch_one(connection).await?;
    let folded: Option<i64> = row.try_get(0)?;
    Ok(folded.map(i64::unsigned_abs))
}
