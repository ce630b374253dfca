//! Visitors: which visits are online, and how many there ever were. A replica tells the database of its sockets in batches, renews a lease, and puts
//! right whatever is wrong; the feed follows from the rows by triggers.

mod owner;
mod sockets;
mod statements;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use self::{owner::Owner, sockets::Sockets};
use crate::{DatabaseUrl, VisitorMetrics};

/// How long things take. Tests use shorter ones.
#[derive(Debug, Clone, Copy)]
pub struct VisitorTiming {
    /// How often a replica renews its lease, and compares its rows with its sockets.
    pub beat: Duration,
    /// How long a replica counts that does not renew its lease: two beats may fail.
    pub lease: Duration,
    /// Who has held its lease for this long knows that the database was there for all others, too: after an outage everybody's lease is old, and
    /// nobody may be swept for it. One lease and one beat.
    pub trusted: Duration,
    /// How long a visit without a socket still counts: a reconnect or a move must not make the number flicker.
    pub grace: Duration,
    /// How often one of the replicas compares the numbers with the rows.
    pub audit: Duration,
}

impl Default for VisitorTiming {
    fn default() -> Self {
        Self {
            beat: Duration::from_secs(5),
            lease: Duration::from_secs(15),
            trusted: Duration::from_secs(20),
            grace: Duration::from_secs(3),
            audit: Duration::from_secs(600),
        }
    }
}

/// What a [`Visitors`] needs to know.
#[derive(Debug, Clone)]
pub struct VisitorsConfig {
    /// Where to write.
    pub database: DatabaseUrl,
    /// The name that the server's administrator sees, for example `dashboard-1`.
    pub application_name: String,
    /// How long a visit without a socket is remembered. Forgetting it does not change the total.
    pub retention: Duration,
    /// How long things take.
    pub timing: VisitorTiming,
}

impl VisitorsConfig {
    /// The usual times; visits are remembered for 30 days.
    pub fn new(database: DatabaseUrl, application_name: impl Into<String>) -> Self {
        let retention = Duration::from_secs(30 * 86_400);
        Self { database, application_name: application_name.into(), retention, timing: VisitorTiming::default() }
    }
}

/// A handle on the task that counts; clones share it. Both calls return at once, and nothing that is told gets lost: what the database does not know
/// because it was away, it learns with the first beat after.
#[derive(Clone)]
pub struct Visitors {
    shared: Arc<Shared>,
}

struct Shared {
    sockets: Mutex<Sockets>,
    news: Notify,
    peers: AtomicUsize,
}

impl Visitors {
    /// Starts the task in `tracker`. It needs no database to start. When the token is cancelled it takes its sockets out of the count and ends.
    pub fn start(
        config: VisitorsConfig,
        metrics: VisitorMetrics,
        tracker: &TaskTracker,
        token: CancellationToken,
    ) -> Self {
        let sockets = Mutex::new(Sockets::new(config.timing.grace));
        let shared = Arc::new(Shared { sockets, news: Notify::new(), peers: AtomicUsize::new(0) });
        tracker.spawn(Owner::new(config, metrics, Arc::clone(&shared)).run(token));
        Self { shared }
    }

    /// A visit has opened its socket number `n`; a greater one is newer, wherever it was opened.
    pub fn connect(&self, visit: Uuid, n: i64) {
        self.shared.lock().connect(visit, n);
        self.shared.news.notify_one();
    }

    /// A visit has closed a socket.
    pub fn disconnect(&self, visit: Uuid) {
        self.shared.lock().disconnect(visit, Instant::now());
        // The task has to learn when the grace ends.
        self.shared.news.notify_one();
    }

    /// How many other replicas held a lease at the last beat: one that was killed counts up to a lease longer, one that has just come not before
    /// the next beat. 0 also while the database was never there.
    #[must_use]
    pub fn peers(&self) -> usize {
        self.shared.peers.load(Ordering::Relaxed)
    }
}

impl Shared {
    /// Held for moments only, never across an await.
    fn lock(&self) -> MutexGuard<'_, Sockets> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
