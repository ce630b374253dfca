//! The newest sample of each server, read with each batch for all who ask.

use std::{sync::Arc, time::Duration};

use sqlx::PgConnection;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use super::{Progress, Sample, SampleWriter, SamplesConfig, order::natural, statements};
use crate::{
    SampleMetrics,
    connection::{self, ExchangeError, is_undefined},
};

/// The least time between two reads. Batches come once a second, at its beginning: a read that waited for much longer would show each second late from
/// then on. On a busy machine a second has two, and after an outage there are many at once.
const SHORTEST: Duration = Duration::from_millis(250);

/// The most time between two reads, when nothing is stored here: other replicas may store.
const LONGEST: Duration = Duration::from_millis(1_500);

/// For one read, which takes a millisecond. What it read before is at most [`LONGEST`] older: together less than a value may lag.
const READ_TIMEOUT: Duration = Duration::from_millis(500);

/// After a failure, before the next try.
const AGAIN: Duration = Duration::from_millis(500);

/// The newest sample of each server, at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Latest {
    /// In natural order: server-2 before server-10.
    samples: Vec<Sample>,
}

impl Latest {
    fn new(mut samples: Vec<Sample>) -> Self {
        samples.sort_unstable_by(|one, other| {
            natural(&one.server, &other.server).then_with(|| other.second.cmp(&one.second))
        });
        // Two ids may differ only in bytes that are not UTF-8.
        samples.dedup_by(|one, before| one.server == before.server);
        Self { samples }
    }

    /// Of every server, in natural order of their ids: server-2 before server-10.
    #[must_use]
    pub fn all(&self) -> &[Sample] {
        &self.samples
    }

    /// Of one server.
    #[must_use]
    pub fn of(&self, server: &str) -> Option<&Sample> {
        let place = self.samples.binary_search_by(|sample| natural(&sample.server, server)).ok()?;
        self.samples.get(place)
    }
}

/// A handle on the task that reads; clones share it.
#[derive(Debug, Clone)]
pub struct LatestSamples {
    view: watch::Receiver<Option<Arc<Latest>>>,
}

impl LatestSamples {
    /// Starts the task in `tracker`. It reads whenever `writer` has stored a batch, so that what callers get is as new as it can be, and every 1.5 s in
    /// any case. It needs no database to start.
    pub fn start(
        config: SamplesConfig,
        metrics: SampleMetrics,
        writer: &SampleWriter,
        tracker: &TaskTracker,
        token: CancellationToken,
    ) -> Self {
        let (sender, view) = watch::channel(None);
        let reader =
            Reader { config, metrics, progress: writer.progress(), view: sender, connection: None, trouble: false };
        tracker.spawn(reader.run(token));
        Self { view }
    }

    /// What was read last. None while the database does not answer, since an old value must not look like a new one.
    #[must_use]
    pub fn get(&self) -> Option<Arc<Latest>> {
        self.view.borrow().clone()
    }

    /// The same, now and whenever it is read again. It closes when the task ends.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Latest>>> {
        self.view.clone()
    }
}

struct Reader {
    config: SamplesConfig,
    metrics: SampleMetrics,
    progress: watch::Receiver<Progress>,
    view: watch::Sender<Option<Arc<Latest>>>,
    connection: Option<PgConnection>,
    /// Whether the last read failed, so that an outage is logged once.
    trouble: bool,
}

impl Reader {
    async fn run(mut self, token: CancellationToken) {
        token.run_until_cancelled(self.run_forever()).await;
        connection::close(self.connection.take()).await;
    }

    async fn run_forever(&mut self) {
        // The first read waits for the first batch, which is more than what is there now.
        let mut earliest = Instant::now();
        let mut latest = earliest + LONGEST;
        loop {
            tokio::select! {
                changed = self.progress.changed() => if changed.is_err() { return },
                () = sleep_until(latest) => {}
            }
            sleep_until(earliest).await;
            // What is stored until now, this read sees.
            self.progress.mark_unchanged();
            let now = Instant::now();
            (earliest, latest) = match self.read().await {
                Ok(samples) => {
                    self.view.send_replace(Some(Arc::new(Latest::new(samples))));
                    if std::mem::take(&mut self.trouble) {
                        info!("the newest samples are read again");
                    }
                    (now + SHORTEST, now + LONGEST)
                }
                Err(error) => {
                    self.fail(&error);
                    (now + AGAIN, now + AGAIN)
                }
            };
        }
    }

    async fn read(&mut self) -> Result<Vec<Sample>, ExchangeError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                connection::connect(&self.config.database, &format!("{} latest", self.config.application_name)).await?
            }
        };
        self.metrics.reads("latest").inc();
        let samples = timeout(READ_TIMEOUT, statements::latest(&mut connection))
            .await
            .map_err(|_| ExchangeError::TimedOut(READ_TIMEOUT))??;
        self.connection = Some(connection);
        Ok(samples)
    }

    fn fail(&mut self, error: &ExchangeError) {
        self.view.send_if_modified(|view| view.take().is_some());
        self.metrics.read_failures.inc();
        // The writer says what it waits for.
        let expected = matches!(error, ExchangeError::Statement(error) if is_undefined(error));
        if !std::mem::replace(&mut self.trouble, true) && !expected {
            warn!(error = error as &dyn std::error::Error, "the newest samples cannot be read");
        }
    }
}
