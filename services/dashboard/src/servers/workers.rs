//! As many workers as the generator lists servers.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use rand::RngExt;
use tokio::{sync::mpsc::Sender, time::sleep};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{
    ServersConfig,
    channel::Post,
    generator::{AskError, Generator},
    metrics::ServerMetrics,
    worker,
};

/// Between two looks at a list without servers.
const EMPTY: Duration = Duration::from_secs(1);

/// Keeps the workers. They end with it.
pub(super) struct Workers {
    config: ServersConfig,
    generator: Arc<Generator>,
    metrics: ServerMetrics,
    posts: Sender<Post>,
    tracker: TaskTracker,
    token: CancellationToken,
    running: HashMap<String, DropGuard>,
}

impl Workers {
    pub fn new(
        config: ServersConfig,
        generator: Arc<Generator>,
        metrics: ServerMetrics,
        posts: Sender<Post>,
        tracker: TaskTracker,
        token: CancellationToken,
    ) -> Self {
        Self { config, generator, metrics, posts, tracker, token, running: HashMap::new() }
    }

    /// Follows the list until it is cancelled, or nobody takes posts any more.
    pub async fn run(mut self) {
        let (mut failures, mut was_down, mut listed) = (0, false, false);
        loop {
            let list = self.generator.servers().await;
            say(&list, &mut was_down);
            let post = match list {
                Ok(servers) => {
                    (failures, listed) = (0, true);
                    let servers = servers.into_iter().collect();
                    self.follow(&servers);
                    Post::Listed { servers, at: tokio::time::Instant::now() }
                }
                // Servers that were there are still asked about: the list may be all that fails.
                Err(error) => {
                    failures += 1;
                    Post::NotListed { reason: error.to_string() }
                }
            };
            if self.posts.send(post).await.is_err() {
                return;
            }
            sleep(match failures {
                // A generator that has just started has no servers yet, and somebody is looking at the empty page.
                0 if self.running.is_empty() => EMPTY,
                // A tenth of chance: replicas that started together do not ask together for ever.
                0 => self.config.list_interval.mul_f64(0.9 + rand::rng().random::<f64>() / 10.0),
                // Generators are often started at the same time, and readiness waits for the first list.
                failures => worker::backoff(if listed { failures } else { 1 }, rand::rng().random()),
            })
            .await;
        }
    }

    /// Ends the workers of servers that are gone, and starts those of new ones.
    fn follow(&mut self, servers: &BTreeSet<String>) {
        self.running.retain(|server, _| servers.contains(server));
        for server in servers {
            if !self.running.contains_key(server) {
                let token = self.token.child_token();
                let (generator, posts) = (Arc::clone(&self.generator), self.posts.clone());
                let worker = worker::run(server.clone(), generator, posts);
                self.tracker.spawn(token.clone().run_until_cancelled_owned(worker));
                self.running.insert(server.clone(), token.drop_guard());
            }
        }
        self.metrics.workers(self.running.len());
    }
}

/// Once when it goes and once when it is back, not once a second for a thousand servers.
fn say(list: &Result<Vec<String>, AskError>, was_down: &mut bool) {
    match list {
        Err(error) if !std::mem::replace(was_down, true) => {
            let error = error as &dyn std::error::Error;
            tracing::warn!(error, "the metric generator gives no list of servers, trying again every second");
        }
        Ok(servers) if std::mem::take(was_down) => {
            tracing::info!(servers = servers.len(), "the metric generator lists its servers again");
        }
        _ => {}
    }
}
