//! The feed `servers`: asked of the metric generator, because its values are no counts that Postgres keeps.
//!
//! The way of a value: [`workers`] keeps one [`worker`] per server that the generator lists; each asks for its server's latest [`sample`] every second
//! and posts it to the [`channel`], which brings them into the hub, four times a second at most.

pub mod channel;
mod generator;
mod metrics;
mod sample;
mod worker;
mod workers;

use std::{sync::Arc, time::Duration};

use runtime::Condition;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use generator::{GeneratorUrl, UrlError};
pub use metrics::ServerMetrics;
pub use sample::Sample;

use crate::hub::Hub;
use generator::Generator;
use workers::Workers;

/// The feed's name.
pub const FEED: &str = "servers";

/// Most posts that wait for the channel: it takes all that wait every quarter of a second, and a worker posts once a second.
const WAITING: usize = 1_024;

/// How the generator is asked.
#[derive(Debug, Clone)]
pub struct ServersConfig {
    /// Where it listens; without one the feed is empty.
    pub generator: Option<GeneratorUrl>,
    /// Between two looks at the list of servers.
    pub list_interval: Duration,
    /// How long the generator has to answer.
    pub patience: Duration,
}

impl ServersConfig {
    /// A list every 5 s, and 800 ms to answer: less than the second between two questions.
    #[must_use]
    pub fn new(generator: Option<GeneratorUrl>) -> Self {
        Self { generator, list_interval: Duration::from_secs(5), patience: Duration::from_millis(800) }
    }
}

/// Starts asking; it ends with the token. `ready` holds as soon as the feed is complete, or after two seconds: a generator that is down makes the
/// values old, not the replica unready.
pub fn start(
    config: ServersConfig,
    hub: Arc<Hub>,
    metrics: ServerMetrics,
    ready: Condition,
    tracker: &TaskTracker,
    token: &CancellationToken,
) {
    hub.update(|items| items.declare(FEED));
    let Some(url) = config.generator.clone() else {
        hub.update(|items| items.complete(FEED));
        ready.set(true, "no generator (GENERATOR_URL is not set)");
        return;
    };
    let (posts, posted) = mpsc::channel(WAITING);
    let generator = Arc::new(Generator::new(url, config.patience, metrics.clone()));
    tracker.spawn(token.clone().run_until_cancelled_owned(channel::run(posted, hub, ready)));
    let workers = Workers::new(config, generator, metrics, posts, tracker.clone(), token.clone());
    tracker.spawn(token.clone().run_until_cancelled_owned(workers.run()));
}
