//! Makes and stores servers' metrics each second; `GET /servers` lists the servers, `GET /metrics` what is stored of them.
//!
//! [`servers`] has one task per server, which follows the wall clock by [`ticks`] and takes each sample from [`curve`], or from the machine itself
//! ([`host`]). [`routes`] answers from what is in the tables, so every replica answers for all.

pub mod config;
pub mod curve;
pub mod error;
pub mod host;
pub mod list;
pub mod ready;
pub mod routes;
pub mod servers;
pub mod ticks;

use std::time::Duration;

use runtime::{Admin, HttpMetrics, Listeners, REQUEST_TIMEOUT, Signals, Tasks};
use store::{LatestSamples, SampleMetrics, SampleWriter, Samples, SamplesConfig};
use tokio::time::timeout;

use crate::{routes::Stored, servers::Source};

/// After the last request, how long tasks may take to end: the writer has a second for what it holds.
const STOP: Duration = Duration::from_millis(1_500);

/// What one replica is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where samples come from.
    pub source: Source,
    /// Where samples are stored.
    pub samples: SamplesConfig,
}

/// Makes, stores and serves until it is told to stop, then finishes the requests in flight, stores what it holds and returns.
///
/// # Errors
/// When a listener breaks, this machine cannot be measured, or two metrics have one name.
pub async fn run(settings: Settings, listeners: Listeners, signals: Signals) -> anyhow::Result<()> {
    let Settings { source, samples: config } = settings;
    let (tasks, admin) = (Tasks::default(), Admin::default());
    let metrics = SampleMetrics::register(&admin.registry)?;
    let writer = SampleWriter::start(config.clone(), metrics.clone(), &tasks.tracker, tasks.token.clone());
    let stored = Stored {
        latest: LatestSamples::start(config.clone(), metrics.clone(), &writer, &tasks.tracker, tasks.token.clone()),
        samples: Samples::new(config, metrics),
    };
    let (latest, samples) = (stored.latest.subscribe(), stored.samples.clone());
    tasks.tracker.spawn(ready::follow(writer.progress(), latest, admin.readiness.condition("samples")));
    servers::start(source, &writer, &tasks)?;

    let router = routes::router(stored, HttpMetrics::register(&admin.registry, "elsewhere")?);
    let finishing = runtime::serve(listeners, router, admin, &tasks, &signals).await?;
    tokio::select! {
        finished = timeout(REQUEST_TIMEOUT, finishing) => tracing::info!(all = finished.is_ok(), "requests finished"),
        () = signals.hurry.cancelled() => tracing::info!("closing at once"),
    }
    // Its connections may be stuck; the process ends anyway.
    let _ = timeout(STOP, samples.close()).await;
    tasks.stop(STOP).await;
    Ok(())
}
