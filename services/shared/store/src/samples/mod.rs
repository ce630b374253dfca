//! Samples: what servers use, second by second. A writer stores them in batches and keeps them while the database is away; the newest of each server is
//! read once a second for everybody; lists are read on demand.

mod buffer;
mod latest;
mod list;
mod order;
mod owner;
mod statements;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{buffer::Buffer, owner::Owner};
pub use self::{
    latest::{Latest, LatestSamples},
    list::{Samples, SamplesError},
};
use crate::{DatabaseUrl, SampleMetrics, lossy::Lossy};

/// How long a sample waits for a database that is away. A thousand servers make some twenty megabytes in this time.
const KEEP: Duration = Duration::from_secs(300);

/// What a server used in one second.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct Sample {
    /// The server's id. U+FFFD stands for bytes that are not UTF-8; only another writer can have stored them.
    #[sqlx(rename = "server_id", try_from = "Lossy")]
    pub server: Arc<str>,
    /// The second, by the clock of whoever took the sample. A fraction is rounded away.
    pub second: DateTime<Utc>,
    /// What was used.
    #[sqlx(flatten)]
    pub usage: Usage,
}

/// How much of its resources a server uses, each in percent: 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, FromRow)]
pub struct Usage {
    /// Of its processors' time.
    #[sqlx(rename = "cpu_usage")]
    pub cpu: f32,
    /// Of its memory.
    #[sqlx(rename = "memory_usage")]
    pub memory: f32,
    /// Of its disk's space.
    #[sqlx(rename = "disk_usage")]
    pub disk: f32,
}

/// What the parts that store and read samples need to know.
#[derive(Debug, Clone)]
pub struct SamplesConfig {
    /// Where they are.
    pub database: DatabaseUrl,
    /// The name that the server's administrator sees, for example `metric-generator-1`.
    pub application_name: String,
    /// How long samples stay in the database: an hour or longer.
    pub retention: Duration,
    /// How long a sample waits for a database that is away, until it is dropped.
    pub keep: Duration,
}

impl SamplesConfig {
    /// Samples wait for five minutes.
    pub fn new(database: DatabaseUrl, application_name: impl Into<String>, retention: Duration) -> Self {
        Self { database, application_name: application_name.into(), retention, keep: KEEP }
    }
}

/// How storing goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// The newest second of the last batch that is in the table.
    pub stored: Option<DateTime<Utc>>,
    /// What stands in the way now.
    pub hindrance: Option<Hindrance>,
}

/// What stands in the way of storing. The writer has logged the details.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hindrance {
    /// Nobody has migrated this database so far.
    NoSchema,
    /// The database cannot be reached, does not answer, or fails.
    Database,
}

/// A handle on the task that stores; clones share it.
#[derive(Clone)]
pub struct SampleWriter {
    shared: Arc<Shared>,
    progress: watch::Receiver<Progress>,
}

struct Shared {
    buffer: Mutex<Buffer>,
    news: Notify,
}

impl SampleWriter {
    /// Starts the task in `tracker`. It needs no database to start. When the token is cancelled it stores what waits, for at most a second, and ends.
    pub fn start(
        config: SamplesConfig,
        metrics: SampleMetrics,
        tracker: &TaskTracker,
        token: CancellationToken,
    ) -> Self {
        let shared = Arc::new(Shared { buffer: Mutex::new(Buffer::default()), news: Notify::new() });
        let (sender, progress) = watch::channel(Progress::default());
        tracker.spawn(Owner::new(config, metrics, Arc::clone(&shared), sender).run(token));
        Self { shared, progress }
    }

    /// Hands a sample over, and returns at once. It goes with all others of these 50 ms in one transaction. A sample that the table has
    /// already, because another replica made it or a clock was stepped back, changes nothing.
    pub fn store(&self, sample: Sample) {
        let first = self.shared.lock().push(Instant::now(), sample);
        if first {
            self.shared.news.notify_one();
        }
    }

    /// How storing goes, now and whenever it changes. It closes when the writer ends.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }
}

impl Shared {
    /// Held for moments only, never across an await.
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
