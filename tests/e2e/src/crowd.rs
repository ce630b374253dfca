//! Protocol clients outside the cluster: the library of `tidemark watch`, many times, and a record of what each saw.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use protocol::client::{Effect, Machine, Status};
use tidemark::client::{Client, Next, Step, Target};
use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::record::Seen;

/// How often a wait looks.
const LOOK: Duration = Duration::from_millis(50);

/// The clients, and the clock that all times are measured with.
#[derive(Debug)]
pub struct Crowd {
    clients: Vec<Arc<Mutex<Seen>>>,
    tracker: TaskTracker,
    token: CancellationToken,
    began: Instant,
}

impl Crowd {
    /// Connects this many clients to one feed whose value is `{"count": n}`; `began` is the start of the clock.
    pub fn connect(size: usize, target: &Target, feed: &'static str, began: Instant) -> Self {
        let (tracker, token) = (TaskTracker::new(), CancellationToken::new());
        let clients: Vec<_> = (0..size).map(|_| Arc::new(Mutex::new(Seen::default()))).collect();
        for seen in &clients {
            let (seen, token) = (Arc::clone(seen), token.clone());
            let mut client = Client::new(target.clone(), tracker.clone());
            tracker.spawn(async move {
                client
                    .run(&token, |step| {
                        observe(&mut lock(&seen), step, began.elapsed().as_millis() as u64, feed);
                        Next::Continue
                    })
                    .await;
            });
        }
        Self { clients, tracker, token, began }
    }

    /// The time on the crowd's clock, ms.
    pub fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// A copy of all records.
    pub fn seen(&self) -> Vec<Seen> {
        self.clients.iter().map(|seen| lock(seen).clone()).collect()
    }

    /// Waits until every client is live and knows at least this count; gives how long that took.
    ///
    /// # Errors
    /// When that is not so in time.
    pub async fn all_know(&self, count: u64, within: Duration) -> Result<Duration> {
        let began = Instant::now();
        loop {
            let behind = self.clients.iter().filter(|seen| !knows(&lock(seen), count)).count();
            if behind == 0 {
                return Ok(began.elapsed());
            }
            ensure!(began.elapsed() < within, "{behind} clients do not know {count} after {} s", within.as_secs());
            sleep(LOOK).await;
        }
    }

    /// The newest count that any client knows.
    pub fn newest(&self) -> Option<u64> {
        self.clients.iter().filter_map(|seen| lock(seen).counts.last().map(|(_, count)| *count)).max()
    }

    /// Closes all connections.
    pub async fn leave(&self) {
        self.token.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn knows(seen: &Seen, count: u64) -> bool {
    let live = seen.live.last().is_some_and(|(_, live)| *live);
    live && seen.counts.last().is_some_and(|(_, known)| *known >= count)
}

fn observe(seen: &mut Seen, step: Step<'_>, at: u64, feed: &str) {
    let live = matches!(step.machine.status(), Status::Live | Status::Moving);
    if seen.live.last().is_none_or(|(_, before)| *before != live) {
        seen.live.push((at, live));
    }
    for effect in step.effects {
        match effect {
            Effect::Items { keys } => {
                let own = keys.iter().filter(|key| key.strip_suffix(':') == Some(feed));
                seen.counts.extend(own.filter_map(|key| Some((at, count(step.machine, key)?))));
            }
            Effect::Handover { planned, .. } => seen.handovers.push((at, *planned)),
            Effect::Open { .. } | Effect::Close { .. } => {}
        }
    }
}

fn count(machine: &Machine, key: &str) -> Option<u64> {
    machine.values.items.get(key)?.value["count"].as_u64()
}
