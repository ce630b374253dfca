//! The clients: many of them, and a record of what each saw.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::Utc;
use tokio::time::{Instant, sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{generic, observe::Observer, record::Seen};
use crate::client::{Address, Client, Next, Target};

/// How often a wait looks.
const LOOK: Duration = Duration::from_millis(50);

/// The clients connect one after the other over so long: a crowd that comes at once is another experiment.
const RAMP: Duration = Duration::from_secs(1);

/// What kind of client a crowd is made of.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Clients of `tidemark.v1`, as `watch` is one.
    Tidemark(Target),
    /// Plain WebSocket clients that ping.
    Generic(Address),
}

/// The drill's own clock: milliseconds since it began.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// Starts now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Milliseconds since the start.
    pub fn now(self) -> u64 {
        self.at(Instant::now())
    }

    /// A moment on this clock, ms.
    pub fn at(self, moment: Instant) -> u64 {
        moment.saturating_duration_since(self.0).as_millis() as u64
    }
}

/// The clients of one run.
#[derive(Debug)]
pub struct Crowd {
    clients: Vec<Record>,
    tracker: TaskTracker,
    token: CancellationToken,
}

/// What one client saw, shared with its task.
pub type Record = Arc<Mutex<Seen>>;

impl Crowd {
    /// Begins to connect so many clients.
    pub fn connect(size: u32, kind: &Kind, clock: Clock) -> Self {
        let (tracker, token) = (TaskTracker::new(), CancellationToken::new());
        let clients = (0..size).map(|index| {
            let record = Record::default();
            let (shared, tracker_of_one) = (Arc::clone(&record), tracker.clone());
            let (kind, wait, token) = (kind.clone(), RAMP * index / size, token.clone());
            tracker.spawn(async move {
                if token.run_until_cancelled(sleep(wait)).await.is_none() {
                    return;
                }
                match kind {
                    Kind::Tidemark(target) => watch(target, tracker_of_one, &token, &shared, clock).await,
                    Kind::Generic(address) => generic::run(&address, &token, &shared, clock).await,
                }
            });
            record
        });
        Self { clients: clients.collect(), tracker, token }
    }

    /// A copy of all records.
    pub fn seen(&self) -> Vec<Seen> {
        self.clients.iter().map(|record| lock(record).clone()).collect()
    }

    /// How many clients have no connection, or do not know this count.
    pub fn behind(&self, count: Option<u64>) -> usize {
        self.clients.iter().filter(|record| !knows(&lock(record), count)).count()
    }

    /// Waits until nobody is behind. False if somebody is at the deadline.
    pub async fn all_know(&self, count: Option<u64>, deadline: Instant) -> bool {
        loop {
            if self.behind(count) == 0 {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            sleep(LOOK).await;
        }
    }

    /// The newest count that any client knows.
    pub fn newest(&self) -> Option<u64> {
        self.clients.iter().filter_map(|record| lock(record).count()).max()
    }

    /// Closes all connections.
    pub async fn leave(&self) {
        self.token.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

fn knows(seen: &Seen, count: Option<u64>) -> bool {
    seen.is_live() && count.is_none_or(|count| seen.count().is_some_and(|known| known >= count))
}

/// Locks a record.
pub fn lock(record: &Record) -> MutexGuard<'_, Seen> {
    // Lists of plain values are whole, whoever panicked.
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn watch(target: Target, tracker: TaskTracker, token: &CancellationToken, record: &Record, clock: Clock) {
    let mut observer = Observer::default();
    let mut client = Client::new(target, tracker);
    client
        .run(token, |step| {
            if !token.is_cancelled() {
                observer.observe(&mut lock(record), step, clock.now(), Utc::now());
            }
            Next::Continue
        })
        .await;
}
