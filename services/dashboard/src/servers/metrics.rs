//! What is counted about asking the generator.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry, core::Collector};

/// How a question ended, as the label `outcome`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome {
    Answered,
    TimedOut,
    Unreachable,
    Refused,
    Rubbish,
}

impl Outcome {
    /// The labels, in the order of the variants.
    const LABELS: [&'static str; 5] = ["answered", "timed_out", "unreachable", "refused", "rubbish"];
}

/// All counters of the feed `servers`.
#[derive(Debug, Clone)]
pub struct ServerMetrics {
    asked: IntCounterVec,
    workers: IntGauge,
}

impl ServerMetrics {
    /// Makes the counters and registers them.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let asked = Opts::new("tidemark_generator_requests_total", "Questions to the metric generator by outcome.");
        let metrics = Self {
            asked: IntCounterVec::new(asked, &["outcome"])?,
            workers: IntGauge::new("tidemark_server_workers", "Servers that are asked about each second.")?,
        };
        let Self { asked, workers } = metrics.clone();
        let all: [Box<dyn Collector>; 2] = [Box::new(asked), Box::new(workers)];
        all.into_iter().try_for_each(|collector| registry.register(collector))?;
        for outcome in Outcome::LABELS {
            metrics.asked.with_label_values(&[outcome]).inc_by(0);
        }
        Ok(metrics)
    }

    pub(super) fn asked(&self, outcome: Outcome) {
        self.asked.with_label_values(&[Outcome::LABELS[outcome as usize]]).inc();
    }

    pub(super) fn workers(&self, count: usize) {
        self.workers.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
