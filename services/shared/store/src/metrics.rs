//! What is counted. Labels are enums, so the number of series is known in advance.

use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, core::Collector,
};

use crate::{Doorbell, FeedProblem, Path, SaveError};

/// What became of a fold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FoldOutcome {
    /// Deltas were added to their bases.
    Folded,
    /// Another reader was at it.
    Busy,
    /// The statement failed.
    Failed,
}

impl FoldOutcome {
    const ALL: [Self; 3] = [Self::Folded, Self::Busy, Self::Failed];
}

/// What a [`crate::Reader`] counts.
#[derive(Clone)]
pub struct ReaderMetrics {
    reads: IntCounterVec,
    changes: IntCounterVec,
    pub(crate) read_failures: IntCounter,
    pub(crate) read_seconds: Histogram,
    requests: IntCounterVec,
    folds: IntCounterVec,
    pub(crate) pending: IntGauge,
    problems: IntGaugeVec,
    pub(crate) bells: IntCounter,
    pub(crate) rebuilds: IntCounter,
    pub(crate) missed_bells: IntCounter,
    pub(crate) database_up: IntGauge,
    pub(crate) queue_usage: Gauge,
    doorbell: IntGaugeVec,
}

impl ReaderMetrics {
    /// Makes the metrics and adds them to the registry.
    ///
    /// # Errors
    /// If the registry holds one of the names already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            reads: IntCounterVec::new(
                Opts::new("tidemark_reads_total", "Reads of all feeds that succeeded, by what caused them."),
                &["path"],
            )?,
            changes: IntCounterVec::new(
                Opts::new(
                    "tidemark_changes_total",
                    "Reads that found a newer value of any feed, by what caused the read. Nearly all should say bell: a poll that finds \
                     something first was quicker than the bell, or the bell is lost.",
                ),
                &["path"],
            )?,
            read_failures: IntCounter::new("tidemark_read_failures_total", "Reads of all feeds that failed.")?,
            // A read takes 0.1 ms on an idle server and is given up after 2 s.
            read_seconds: Histogram::with_opts(
                HistogramOpts::new("tidemark_read_duration_seconds", "Time that a read of all feeds took.")
                    .buckets(vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 2.0]),
            )?,
            requests: IntCounterVec::new(
                Opts::new(
                    "tidemark_notification_requests_total",
                    "Times that the reader asked the next writer to notify: refused while a transaction that has written is open.",
                ),
                &["outcome"],
            )?,
            folds: IntCounterVec::new(
                Opts::new(
                    "tidemark_folds_total",
                    "Times that the reader added deltas to their bases: busy when another reader was at it.",
                ),
                &["outcome"],
            )?,
            pending: IntGauge::new(
                "tidemark_deltas_pending",
                "Deltas that the last read had to add, of the feed that has most. Above some thousands no reader folds them.",
            )?,
            problems: IntGaugeVec::new(
                Opts::new(
                    "tidemark_feed_problem",
                    "1 for each feed of a user's table whose count is not right any more, by the reason.",
                ),
                &["feed", "reason"],
            )?,
            bells: IntCounter::new("tidemark_doorbell_bells_total", "Bells that arrived.")?,
            rebuilds: IntCounter::new(
                "tidemark_doorbell_rebuilds_total",
                "LISTEN connections that worked, were lost or given up, and are built anew.",
            )?,
            missed_bells: IntCounter::new(
                "tidemark_doorbell_missed_bells_total",
                "Changes that the poll found although a bell should have announced them. Each rebuilds the listener.",
            )?,
            database_up: IntGauge::new("tidemark_database_up", "1 if the last read succeeded, else 0.")?,
            queue_usage: Gauge::new(
                "tidemark_notification_queue_usage_ratio",
                "How full the server's notification queue is, 0 to 1. At 1 commits that notify fail.",
            )?,
            doorbell: IntGaugeVec::new(
                Opts::new("tidemark_doorbell_state", "1 for the state that the doorbell is in, 0 for the others."),
                &["state"],
            )?,
        };
        let Self {
            reads,
            changes,
            read_failures,
            read_seconds,
            requests,
            folds,
            pending,
            problems,
            bells,
            rebuilds,
            missed_bells,
            database_up,
            queue_usage,
            doorbell,
        } = metrics.clone();
        let all: [Box<dyn Collector>; 14] = [
            Box::new(reads),
            Box::new(changes),
            Box::new(read_failures),
            Box::new(read_seconds),
            Box::new(requests),
            Box::new(folds),
            Box::new(pending),
            Box::new(problems),
            Box::new(bells),
            Box::new(rebuilds),
            Box::new(missed_bells),
            Box::new(database_up),
            Box::new(queue_usage),
            Box::new(doorbell),
        ];
        all.into_iter().try_for_each(|collector| registry.register(collector))?;
        // A series that appears only with its first event hides that event from rate().
        for path in Path::ALL {
            metrics.reads(path).inc_by(0);
            metrics.changes(path).inc_by(0);
        }
        for granted in [true, false] {
            metrics.requests(granted).inc_by(0);
        }
        for outcome in FoldOutcome::ALL {
            metrics.folds(outcome).inc_by(0);
        }
        metrics.doorbell(Doorbell::Connecting);
        Ok(metrics)
    }

    pub(crate) fn requests(&self, granted: bool) -> IntCounter {
        self.requests.with_label_values(&[if granted { "granted" } else { "refused" }])
    }

    pub(crate) fn folds(&self, outcome: FoldOutcome) -> IntCounter {
        self.folds.with_label_values(&[match outcome {
            FoldOutcome::Folded => "folded",
            FoldOutcome::Busy => "busy",
            FoldOutcome::Failed => "failed",
        }])
    }

    /// Shows a feed's problem, or that it has none.
    pub(crate) fn problem(&self, feed: &str, before: Option<FeedProblem>, now: Option<FeedProblem>) {
        if let Some(before) = before.filter(|before| now != Some(*before)) {
            // There is no such series if nobody saw the problem before.
            let _ = self.problems.remove_label_values(&[feed, before.as_str()]);
        }
        if let Some(now) = now {
            self.problems.with_label_values(&[feed, now.as_str()]).set(1);
        }
    }

    pub(crate) fn reads(&self, path: Path) -> IntCounter {
        self.reads.with_label_values(&[path.as_str()])
    }

    pub(crate) fn changes(&self, path: Path) -> IntCounter {
        self.changes.with_label_values(&[path.as_str()])
    }

    pub(crate) fn doorbell(&self, current: Doorbell) {
        for state in Doorbell::ALL {
            self.doorbell.with_label_values(&[state.as_str()]).set(i64::from(state == current));
        }
    }
}

/// What a [`crate::TextWriter`] counts.
#[derive(Clone)]
pub struct WriterMetrics {
    pub(crate) batch_rows: Histogram,
    saves: IntCounterVec,
}

impl WriterMetrics {
    /// Makes the metrics and adds them to the registry.
    ///
    /// # Errors
    /// If the registry holds one of the names already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            batch_rows: Histogram::with_opts(
                HistogramOpts::new("tidemark_text_batch_rows", "Texts that went into one INSERT.")
                    .buckets(vec![1.0, 2.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1000.0]),
            )?,
            saves: IntCounterVec::new(
                Opts::new("tidemark_text_saves_total", "Texts that callers asked to save, by what came of it."),
                &["outcome"],
            )?,
        };
        let Self { batch_rows, saves } = metrics.clone();
        registry.register(Box::new(batch_rows))?;
        registry.register(Box::new(saves))?;
        for outcome in ["saved", "conflict", "rejected", "busy", "unavailable"] {
            metrics.saves.with_label_values(&[outcome]).inc_by(0);
        }
        Ok(metrics)
    }

    pub(crate) fn saved<T>(&self, result: &Result<T, SaveError>) {
        let outcome = match result {
            Ok(_) => "saved",
            Err(SaveError::Conflict) => "conflict",
            Err(SaveError::Rejected { .. }) => "rejected",
            Err(SaveError::Busy) => "busy",
            Err(SaveError::Unavailable { .. }) => "unavailable",
        };
        self.saves.with_label_values(&[outcome]).inc();
    }
}

/// What a [`crate::Visitors`] counts.
#[derive(Clone)]
pub struct VisitorMetrics {
    pub(crate) batch_rows: Histogram,
    repairs: IntCounterVec,
    pub(crate) swept: IntCounter,
    pub(crate) leases_lost: IntCounter,
    pub(crate) audit_differences: IntCounter,
}

impl VisitorMetrics {
    /// Makes the metrics and adds them to the registry.
    ///
    /// # Errors
    /// If the registry holds one of the names already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            batch_rows: Histogram::with_opts(
                HistogramOpts::new("tidemark_visitor_batch_rows", "Visits that were counted in one statement.")
                    .buckets(vec![1.0, 2.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1000.0]),
            )?,
            repairs: IntCounterVec::new(
                Opts::new(
                    "tidemark_visitor_repairs_total",
                    "Rows that did not agree with the open sockets, and do again: added were missing, removed had no socket.",
                ),
                &["direction"],
            )?,
            swept: IntCounter::new(
                "tidemark_visitors_swept_total",
                "Rows of dead replicas that this one took out of the count.",
            )?,
            leases_lost: IntCounter::new(
                "tidemark_visitor_leases_lost_total",
                "Times that this replica was taken for dead and began anew under a new id.",
            )?,
            audit_differences: IntCounter::new(
                "tidemark_visitor_audit_differences_total",
                "Audits that found another number of visitors than rows, and corrected it.",
            )?,
        };
        let Self { batch_rows, repairs, swept, leases_lost, audit_differences } = metrics.clone();
        let all: [Box<dyn Collector>; 5] = [
            Box::new(batch_rows),
            Box::new(repairs),
            Box::new(swept),
            Box::new(leases_lost),
            Box::new(audit_differences),
        ];
        all.into_iter().try_for_each(|collector| registry.register(collector))?;
        for direction in ["added", "removed"] {
            metrics.repairs(direction).inc_by(0);
        }
        Ok(metrics)
    }

    pub(crate) fn repairs(&self, direction: &str) -> IntCounter {
        self.repairs.with_label_values(&[direction])
    }
}

/// What the parts that store and read samples count.
#[derive(Clone)]
pub struct SampleMetrics {
    samples: IntCounterVec,
    pub(crate) late: IntCounter,
    pub(crate) store_failures: IntCounter,
    pub(crate) waiting: IntGauge,
    pub(crate) batch_rows: Histogram,
    partitions: IntCounterVec,
    reads: IntCounterVec,
    pub(crate) read_failures: IntCounter,
}

impl SampleMetrics {
    /// Makes the metrics and adds them to the registry.
    ///
    /// # Errors
    /// If the registry holds one of the names already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            samples: IntCounterVec::new(
                Opts::new(
                    "tidemark_samples_total",
                    "Samples by what came of them: stored here, known from another replica, refused by the database, dropped after five minutes.",
                ),
                &["outcome"],
            )?,
            late: IntCounter::new(
                "tidemark_samples_late_total",
                "Samples that waited for more than 2 s before they were stored.",
            )?,
            store_failures: IntCounter::new(
                "tidemark_sample_store_failures_total",
                "Attempts to store samples that failed.",
            )?,
            waiting: IntGauge::new("tidemark_samples_waiting", "Samples that are not stored yet.")?,
            batch_rows: Histogram::with_opts(
                HistogramOpts::new("tidemark_sample_batch_rows", "Samples that were stored in one statement.")
                    .buckets(vec![1.0, 3.0, 10.0, 100.0, 1_000.0, 10_000.0]),
            )?,
            partitions: IntCounterVec::new(
                Opts::new(
                    "tidemark_sample_partitions_total",
                    "Partitions of samples that this replica has made and dropped.",
                ),
                &["change"],
            )?,
            reads: IntCounterVec::new(
                Opts::new(
                    "tidemark_sample_reads_total",
                    "Queries for samples, by what was asked: the latest of each server, or a list.",
                ),
                &["what"],
            )?,
            read_failures: IntCounter::new("tidemark_sample_read_failures_total", "Queries for samples that failed.")?,
        };
        let Self { samples, late, store_failures, waiting, batch_rows, partitions, reads, read_failures } =
            metrics.clone();
        let all: [Box<dyn Collector>; 8] = [
            Box::new(samples),
            Box::new(late),
            Box::new(store_failures),
            Box::new(waiting),
            Box::new(batch_rows),
            Box::new(partitions),
            Box::new(reads),
            Box::new(read_failures),
        ];
        all.into_iter().try_for_each(|collector| registry.register(collector))?;
        for outcome in ["stored", "known", "refused", "dropped"] {
            metrics.samples(outcome).inc_by(0);
        }
        for change in ["made", "dropped"] {
            metrics.partitions(change).inc_by(0);
        }
        for what in ["latest", "list"] {
            metrics.reads(what).inc_by(0);
        }
        Ok(metrics)
    }

    pub(crate) fn samples(&self, outcome: &str) -> IntCounter {
        self.samples.with_label_values(&[outcome])
    }

    pub(crate) fn partitions(&self, change: &str) -> IntCounter {
        self.partitions.with_label_values(&[change])
    }

    pub(crate) fn reads(&self, what: &str) -> IntCounter {
        self.reads.with_label_values(&[what])
    }
}
