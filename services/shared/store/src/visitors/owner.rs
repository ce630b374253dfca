//! The task that tells the database: batches as they come, a beat every five seconds, and what has to be tidied up.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rand::RngExt;
use sqlx::PgConnection;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::{Shared, VisitorsConfig, statements};
use crate::{
    VisitorMetrics,
    connection::{self, ExchangeError, sqlstate},
};

/// Rows in one statement.
const MAX_BATCH: usize = 1_000;

/// Between two batches. 1,000 connects at 2,000 a second, the most that one replica admits, are 10 batches; a lone visitor never waits.
const PACE: Duration = Duration::from_millis(50);

/// For one exchange with the database, its connection included.
const EXCHANGE: Duration = Duration::from_secs(3);

/// After a failure, before the next try.
const AGAIN: Duration = Duration::from_millis(500);

/// For taking oneself out at the end.
const FAREWELL: Duration = Duration::from_millis(500);

/// The lease of this replica.
#[derive(Debug, Clone, Copy)]
struct Lease {
    instance: Uuid,
    /// Since when it was never in danger.
    since: Instant,
    renewed: Instant,
}

pub(super) struct Owner {
    config: VisitorsConfig,
    metrics: VisitorMetrics,
    shared: Arc<Shared>,
    connection: Option<PgConnection>,
    lease: Option<Lease>,
    /// Whether the last exchange succeeded, so that an outage is logged once.
    up: bool,
    next_beat: Instant,
    next_batch: Instant,
    next_sweep: Option<Instant>,
    next_audit: Instant,
}

impl Owner {
    pub fn new(config: VisitorsConfig, metrics: VisitorMetrics, shared: Arc<Shared>) -> Self {
        let now = Instant::now();
        // Replicas that start together do not audit together.
        let next_audit = now + config.timing.audit.mul_f64(rand::rng().random_range(0.5..1.0));
        Self {
            config,
            metrics,
            shared,
            connection: None,
            lease: None,
            up: true,
            next_beat: now,
            next_batch: now,
            next_sweep: None,
            next_audit,
        }
    }

    pub async fn run(mut self, token: CancellationToken) {
        loop {
            let news = self.shared.news.notified();
            let (arrived, left) = {
                let sockets = self.shared.lock();
                (sockets.has_arrived(), sockets.next_left())
            };
            // Without a lease there is nothing to tell: the beat that gets one tells everything.
            let batch = self.lease.and(if arrived {
                Some(self.next_batch)
            } else {
                left.map(|left| left.max(self.next_batch))
            });
            let due = [batch, self.next_sweep, Some(self.next_audit)]
                .into_iter()
                .flatten()
                .fold(self.next_beat, Instant::min);
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
        let _ = timeout(FAREWELL, self.farewell()).await;
    }

    /// Does what is due.
    async fn exchange(&mut self, now: Instant) -> Result<(), ExchangeError> {
        // A connection that is in the middle of something when the time is over is not put back.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                connection::connect(&self.config.database, &format!("{} visitors", self.config.application_name))
                    .await?
            }
        };
        if now >= self.next_beat {
            self.beat(&mut connection, now).await?;
        }
        if let Some(lease) = self.lease
            && now >= self.next_batch
        {
            self.batch(&mut connection, lease.instance, now).await?;
        }
        if self.next_sweep.is_some_and(|due| now >= due) {
            self.sweep(&mut connection, now).await?;
        }
        if now >= self.next_audit {
            self.audit(&mut connection, now).await?;
        }
        self.connection = Some(connection);
        Ok(())
    }

    async fn batch(
        &mut self,
        connection: &mut PgConnection,
        instance: Uuid,
        now: Instant,
    ) -> Result<(), ExchangeError> {
        let (arrived, left) = {
            let mut sockets = self.shared.lock();
            (sockets.take_arrived(MAX_BATCH), sockets.take_left(now))
        };
        if arrived.is_empty() && left.is_empty() {
            return Ok(());
        }
        self.next_batch = now + PACE;
        if !arrived.is_empty() {
            self.metrics.batch_rows.observe(arrived.len() as f64);
            statements::connect(connection, instance, &arrived).await?;
        }
        if !left.is_empty() {
            statements::disconnect(connection, instance, &left).await?;
        }
        Ok(())
    }

    async fn beat(&mut self, connection: &mut PgConnection, now: Instant) -> Result<(), ExchangeError> {
        let rows = self.shared.lock().all();
        if let Some(lease) = self.lease {
            let beat = statements::beat(connection, lease.instance, &rows, self.config.timing.lease).await?;
            if beat.held {
                self.metrics.repairs("added").inc_by(beat.added);
                self.metrics.repairs("removed").inc_by(beat.removed);
                let unbroken = now.duration_since(lease.renewed) < self.config.timing.lease;
                self.beaten(lease.instance, if unbroken { lease.since } else { now }, now, beat);
                return Ok(());
            }
            self.lease = None;
            self.metrics.leases_lost.inc();
            warn!("this replica was taken for dead; it counts its visitors again, under a new id");
        }
        let instance = Uuid::new_v4();
        statements::register(connection, instance, &self.config.application_name, self.config.timing.lease).await?;
        let beat = statements::beat(connection, instance, &rows, self.config.timing.lease).await?;
        self.beaten(instance, now, now, beat);
        Ok(())
    }

    fn beaten(&mut self, instance: Uuid, since: Instant, now: Instant, beat: statements::Beat) {
        self.lease = Some(Lease { instance, since, renewed: now });
        self.next_beat = now + self.config.timing.beat;
        self.shared.peers.store(usize::try_from(beat.peers).unwrap_or(usize::MAX), Ordering::Relaxed);
        // Another lease that ends before the next beat would be renewed by then if its owner lived.
        self.next_sweep = beat
            .next_end
            .filter(|end| *end < self.config.timing.beat)
            .map(|end| (now + end).max(since + self.config.timing.trusted));
    }

    async fn sweep(&mut self, connection: &mut PgConnection, now: Instant) -> Result<(), ExchangeError> {
        self.next_sweep = None;
        let mut gone = 0;
        while let Some(some) = statements::sweep(connection).await? {
            gone += some;
            self.next_sweep = Some(now + AGAIN);
            if some == 0 {
                break;
            }
        }
        if gone > 0 {
            self.metrics.swept.inc_by(gone);
            info!(connections = gone, "took out what a dead replica had left");
        }
        Ok(())
    }

    async fn audit(&mut self, connection: &mut PgConnection, now: Instant) -> Result<(), ExchangeError> {
        self.next_audit = now + self.config.timing.audit;
        if let Some(difference) = statements::audit(connection, self.config.retention).await?
            && difference != 0
        {
            self.metrics.audit_differences.inc();
            warn!(difference, "the number of visitors was wrong, and is right now");
        }
        Ok(())
    }

    fn note(&mut self, exchange: Result<(), ExchangeError>) {
        match exchange {
            Ok(()) if !self.up => {
                info!("visitors are counted again");
                self.up = true;
            }
            Ok(()) => {}
            Err(error) => {
                let now = Instant::now();
                // Swept: the beat finds out and begins anew, at once.
                let swept =
                    matches!(&error, ExchangeError::Statement(error) if sqlstate(error).as_deref() == Some("23503"));
                self.next_beat = if swept { now } else { now + AGAIN };
                (self.next_batch, self.next_sweep) = (self.next_beat, None);
                if self.next_audit <= now {
                    self.next_audit = now + self.config.timing.audit;
                }
                if self.up && !swept {
                    warn!(error = &error as &dyn std::error::Error, "visitors cannot be counted");
                    self.up = false;
                }
            }
        }
    }

    async fn farewell(&mut self) {
        if let (Some(lease), Some(mut connection)) = (self.lease, self.connection.take()) {
            // If it fails, the lease ends by itself.
            if let Err(error) = statements::deregister(&mut connection, lease.instance).await {
                info!(
                    error = &error as &dyn std::error::Error,
                    "could not take this replica's visitors out; its lease will end"
                );
            }
            connection::close(Some(connection)).await;
        }
    }
}
