//! Samples, and the parts that store and read them.

use std::time::Duration;

use chrono::{DateTime, SubsecRound, Utc};
use prometheus::Registry;
use store::{DatabaseUrl, LatestSamples, Progress, Sample, SampleMetrics, SampleWriter, SamplesConfig, Usage};
use test_support::wait_until;
use tokio_util::sync::CancellationToken;

use super::{LONG, Stage, metric};

/// The shortest retention.
pub const HOUR: Duration = Duration::from_secs(3600);

/// A writer, its own counters, and a way to end it alone.
pub struct Storing {
    pub writer: SampleWriter,
    pub metrics: SampleMetrics,
    pub registry: Registry,
    pub token: CancellationToken,
}

pub fn config(database: DatabaseUrl) -> SamplesConfig {
    SamplesConfig::new(database, "samples-under-test", HOUR * 24)
}

impl Storing {
    pub fn start(stage: &Stage, config: SamplesConfig) -> Self {
        let (registry, token) = (Registry::new(), stage.token.child_token());
        let metrics = SampleMetrics::register(&registry).unwrap();
        let writer = SampleWriter::start(config, metrics.clone(), &stage.tracker, token.clone());
        Self { writer, metrics, registry, token }
    }

    pub fn latest(&self, stage: &Stage, config: SamplesConfig) -> LatestSamples {
        LatestSamples::start(config, self.metrics.clone(), &self.writer, &stage.tracker, stage.token.clone())
    }

    /// Hands over one sample of each server for each second.
    pub fn store(&self, servers: usize, seconds: impl Iterator<Item = DateTime<Utc>>) {
        for second in seconds {
            (1..=servers).for_each(|server| self.writer.store(sample(&format!("server-{server}"), second)));
        }
    }

    pub fn count(&self, outcome: &str) -> f64 {
        metric(&self.registry, "tidemark_samples_total", outcome)
    }

    /// How often the newest samples were read.
    pub fn reads(&self) -> f64 {
        metric(&self.registry, "tidemark_sample_reads_total", "latest")
    }

    pub fn metric(&self, name: &str) -> f64 {
        metric(&self.registry, name, "")
    }

    /// Waits until so many samples were stored or found.
    pub async fn stored(&self, samples: f64) -> Duration {
        let what = format!("{samples} samples are in the table");
        wait_until(LONG, &what, async || self.count("stored") + self.count("known") == samples).await
    }

    pub fn progress(&self) -> Progress {
        *self.writer.progress().borrow()
    }
}

/// A value that says of which second it is.
pub fn sample(server: &str, second: DateTime<Utc>) -> Sample {
    let usage = Usage { cpu: (second.timestamp() % 100) as f32, memory: 20.25, disk: 30.5 };
    Sample { server: server.into(), second, usage }
}

pub fn this_second() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(0)
}

/// As many seconds as told, up to this one.
pub fn until(last: DateTime<Utc>, count: i64) -> impl Iterator<Item = DateTime<Utc>> {
    (0..count).rev().map(move |ago| last - chrono::Duration::seconds(ago))
}

pub async fn scalar(stage: &Stage, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&stage.pool).await.unwrap()
}

/// Rows of the history, and how many pairs of server and second they have.
pub async fn rows(stage: &Stage) -> (i64, i64) {
    let rows = "SELECT count(*), count(DISTINCT (server_id, second)) FROM tidemark.metrics";
    sqlx::query_as(rows).fetch_one(&stage.pool).await.unwrap()
}

/// The name of the partition that has this hour.
pub fn partition(hour: DateTime<Utc>) -> String {
    format!("metrics_{}", hour.format("%Y%m%d%H"))
}

pub async fn partitions(stage: &Stage) -> Vec<String> {
    let names =
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'tidemark.metrics'::regclass ORDER BY 1";
    let names: Vec<String> = sqlx::query_scalar(names).fetch_all(&stage.pool).await.unwrap();
    names.into_iter().map(|name| name.trim_start_matches("tidemark.").to_owned()).collect()
}
