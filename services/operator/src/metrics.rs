//! What the operator counts. Labels are values that can be listed, never names.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry};

/// How a reconcile ended, as the label `outcome`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is as the Board says.
    Settled,
    /// A change is under way.
    Progressing,
    /// Something is wrong with the Board; its condition says what.
    Degraded,
    /// The Board cannot be decoded.
    Undecodable,
    /// The reconcile itself failed and is tried again.
    Failed,
}

impl Outcome {
    const ALL: [Self; 5] = [Self::Settled, Self::Progressing, Self::Degraded, Self::Undecodable, Self::Failed];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::Progressing => "progressing",
            Self::Degraded => "degraded",
            Self::Undecodable => "undecodable",
            Self::Failed => "failed",
        }
    }
}

/// All metrics of the operator.
#[derive(Debug, Clone)]
pub struct Metrics {
    reconciles: IntCounterVec,
    duration: Histogram,
}

impl Metrics {
    /// Makes them and registers them.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let reconciles = Opts::new("tidemark_reconciles_total", "Reconciles of Boards by outcome; alert on failed");
        // A reconcile is a dozen requests: tens of milliseconds when nothing changed, up to seconds when everything is applied.
        let buckets = vec![0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        let duration = HistogramOpts::new("tidemark_reconcile_duration_seconds", "How long one reconcile took");
        let metrics = Self {
            reconciles: IntCounterVec::new(reconciles, &["outcome"])?,
            duration: Histogram::with_opts(duration.buckets(buckets))?,
        };
        // A series that is there from the start can be alerted on.
        for outcome in Outcome::ALL {
            metrics.reconciles.with_label_values(&[outcome.as_str()]);
        }
        registry.register(Box::new(metrics.reconciles.clone()))?;
        registry.register(Box::new(metrics.duration.clone()))?;
        Ok(metrics)
    }

    /// A reconcile ended so.
    pub fn reconciled(&self, outcome: Outcome, took: Duration) {
        self.reconciles.with_label_values(&[outcome.as_str()]).inc();
        self.duration.observe(took.as_secs_f64());
    }
}
