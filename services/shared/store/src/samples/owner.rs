//! The task that stores: a batch as soon as a second's samples are together, and what waited after an outage; and it keeps the partitions.

use std::{sync::Arc, time::Duration};

use sqlx::PgConnection;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Hindrance, Progress, Sample, SamplesConfig, Shared,
    buffer::Batch,
    statements::{self, Rolled},
};
use crate::{
    DatabaseError, SampleMetrics,
    connection::{self, ExchangeError, data_error, is_lost, is_undefined},
};

/// Rows in one statement. A second of a thousand servers is a tenth; after an outage of five minutes, thirty of these are stored.
const MAX_BATCH: usize = 10_000;

/// The same after a failure: the newest second has to get through first, whatever else waits.
const FIRST_BATCH: usize = 1_000;

/// From the first sample of a second to its batch: a thousand tasks that wake at once are through in some milliseconds.
const GATHER: Duration = Duration::from_millis(50);

/// For one exchange with the database, its connection included.
const EXCHANGE: Duration = Duration::from_secs(3);

/// After a failure, before the next try.
const AGAIN: Duration = Duration::from_millis(500);

/// Between two looks at the partitions. They are made three hours ahead, and dropped at most an hour late.
const ROLL: Duration = Duration::from_secs(60);

/// A sample that waited for longer was stored late: a busy database takes less.
const LATE: Duration = Duration::from_secs(2);

/// For storing what waits at the end.
const FAREWELL: Duration = Duration::from_secs(1);

/// What came of a batch.
struct Stored {
    /// Rows that the table did not have.
    new: u64,
    /// Samples that the database does not take, and never will.
    refused: u64,
}

pub(super) struct Owner {
    config: SamplesConfig,
    metrics: SampleMetrics,
    shared: Arc<Shared>,
    progress: watch::Sender<Progress>,
    connection: Option<PgConnection>,
    next_roll: Instant,
    /// No exchange before it, after one that failed.
    not_before: Instant,
    /// Whether the last batch had samples that were refused, so that a wrong clock is logged once.
    refusing: bool,
}

impl Owner {
    pub fn new(
        config: SamplesConfig,
        metrics: SampleMetrics,
        shared: Arc<Shared>,
        progress: watch::Sender<Progress>,
    ) -> Self {
        let now = Instant::now();
        Self { config, metrics, shared, progress, connection: None, next_roll: now, not_before: now, refusing: false }
    }

    pub async fn run(mut self, token: CancellationToken) {
        loop {
            let news = self.shared.news.notified();
            let since = self.shared.lock().since();
            let due = since.map_or(self.next_roll, |since| (since + GATHER).min(self.next_roll)).max(self.not_before);
            tokio::select! {
                () = sleep_until(due) => {}
                () = news => continue,
                () = token.cancelled() => break,
            }
            let exchange = {
                let exchange = self.exchange(Instant::now());
                tokio::pin!(exchange);
                tokio::select! {
                    done = timeout(EXCHANGE, &mut exchange) => done,
                    // A database that does not answer must not hold up the end.
                    () = token.cancelled() => timeout(FAREWELL, exchange).await,
                }
            };
            self.note(exchange.unwrap_or(Err(ExchangeError::TimedOut(EXCHANGE))));
        }
        // A database that does not answer now will not answer within the next second.
        if self.progress.borrow().hindrance.is_none() {
            let _ = timeout(FAREWELL, self.farewell()).await;
        }
        let lost = self.shared.lock().len();
        if lost > 0 {
            warn!(samples = lost, "ended before everything was stored");
        }
        connection::close(self.connection.take()).await;
    }

    /// Does what is due.
    async fn exchange(&mut self, now: Instant) -> Result<(), ExchangeError> {
        let most = if self.progress.borrow().hindrance.is_some() { FIRST_BATCH } else { MAX_BATCH };
        let batch = {
            let mut buffer = self.shared.lock();
            self.metrics.samples("dropped").inc_by(buffer.expire(now, self.config.keep));
            buffer.newest(most, now, LATE)
        };
        // A connection that is in the middle of something when the time is over is not put back.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                connection::connect(&self.config.database, &format!("{} store", self.config.application_name)).await?
            }
        };
        if now >= self.next_roll {
            self.next_roll = now + ROLL;
            match self.roll(&mut connection).await {
                // There may be more to drop, when there is nothing to store.
                Ok(Rolled { dropped: 1.., .. }) => self.next_roll = now,
                Ok(_) => {}
                Err(error) if error.as_database_error().is_none() || is_lost(&error) || is_undefined(&error) => {
                    return Err(error.into());
                }
                // Somebody holds the table. What is needed at once, storing makes.
                Err(error) => {
                    let error = DatabaseError::from(error);
                    warn!(error = &error as &dyn std::error::Error, "partitions cannot be made or dropped now");
                }
            }
        }
        if !batch.samples.is_empty() {
            let stored = self.store(&mut connection, &batch.samples).await?;
            self.stored(&batch, stored);
        }
        self.connection = Some(connection);
        Ok(())
    }

    async fn roll(&self, connection: &mut PgConnection) -> Result<Rolled, sqlx::Error> {
        let rolled = statements::roll(connection, self.config.retention).await?;
        self.metrics.partitions("made").inc_by(rolled.made);
        self.metrics.partitions("dropped").inc_by(rolled.dropped);
        if rolled.made + rolled.dropped > 0 {
            info!(made = rolled.made, dropped = rolled.dropped, "partitions of samples");
        }
        Ok(rolled)
    }

    async fn store(&self, connection: &mut PgConnection, samples: &[Sample]) -> Result<Stored, sqlx::Error> {
        let mut stored = statements::store(connection, samples).await;
        if stored.as_ref().is_err_and(statements::is_partition_missing) {
            self.roll(connection).await?;
            stored = statements::store(connection, samples).await;
        }
        match stored {
            Ok(new) => Ok(Stored { new, refused: 0 }),
            Err(error) if data_error(&error).is_some() => store_apart(connection, samples).await,
            Err(error) => Err(error),
        }
    }

    fn stored(&mut self, batch: &Batch, stored: Stored) {
        let Stored { new, refused } = stored;
        let count = batch.samples.len() as u64;
        self.shared.lock().remove(batch);
        self.metrics.batch_rows.observe(count as f64);
        self.metrics.samples("stored").inc_by(new);
        self.metrics.samples("known").inc_by(count.saturating_sub(new + refused));
        self.metrics.samples("refused").inc_by(refused);
        self.metrics.late.inc_by(batch.late);
        let was_refusing = std::mem::replace(&mut self.refusing, refused > 0);
        if refused > 0 && !was_refusing {
            warn!(samples = refused, "the database refuses samples; is a clock wrong by more than an hour?");
        }
        if refused < count {
            let newest = batch.samples.iter().map(|sample| sample.second).max();
            self.progress.send_modify(|progress| progress.stored = newest);
        }
    }

    fn note(&mut self, exchange: Result<(), ExchangeError>) {
        let hindrance = match &exchange {
            Ok(()) => None,
            Err(ExchangeError::Statement(error)) if is_undefined(error) => Some(Hindrance::NoSchema),
            Err(_) => Some(Hindrance::Database),
        };
        let waiting = self.shared.lock().len();
        self.metrics.waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        if hindrance.is_some() {
            self.metrics.store_failures.inc();
            self.not_before = Instant::now() + AGAIN;
        }
        let before = self.progress.borrow().hindrance;
        if hindrance == before {
            return;
        }
        match &exchange {
            Ok(()) => info!(waiting, "samples are stored again"),
            Err(ExchangeError::Statement(error)) if is_undefined(error) => {
                info!("the database has no schema yet, waiting for its migration");
            }
            Err(error) => warn!(error = error as &dyn std::error::Error, "samples cannot be stored; they wait"),
        }
        self.progress.send_modify(|progress| progress.hindrance = hindrance);
    }

    async fn farewell(&mut self) {
        while self.shared.lock().len() > 0 && self.exchange(Instant::now()).await.is_ok() {}
    }
}

/// Stores each second by itself, so that only those are refused which the database does not take.
async fn store_apart(connection: &mut PgConnection, samples: &[Sample]) -> Result<Stored, sqlx::Error> {
    let mut samples = samples.to_vec();
    samples.sort_by_key(|sample| sample.second);
    let mut stored = Stored { new: 0, refused: 0 };
    for second in samples.chunk_by(|one, other| one.second == other.second) {
        match statements::store(connection, second).await {
            Ok(new) => stored.new += new,
            Err(error) if data_error(&error).is_some() => stored.refused += second.len() as u64,
            Err(error) => return Err(error),
        }
    }
    Ok(stored)
}
