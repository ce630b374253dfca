//! The replicas of one service: which are ready, and whose turn it is.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use hyper::{StatusCode, Uri};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use runtime::Tasks;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::DropGuard;

/// Between two looks at a replica's readiness: a replica that says it is leaving gets no new connection a quarter of a second later.
const LOOK: Duration = Duration::from_millis(250);

/// A replica that does not say within this time that it is ready is not.
const ANSWER: Duration = Duration::from_secs(1);

/// Where a replica listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    /// For users.
    pub address: SocketAddr,
    /// For health.
    pub admin: SocketAddr,
}

#[derive(Debug)]
struct Member {
    address: SocketAddr,
    ready: watch::Sender<bool>,
}

type Members = Mutex<Vec<Arc<Member>>>;

/// The replicas of one service.
#[derive(Debug)]
pub struct Pool {
    members: Arc<Members>,
    turn: AtomicUsize,
    client: Client<HttpConnector, Body>,
    tasks: Tasks,
}

/// A replica's place in the pool; it ends when this is dropped. Tunnels to the replica stay.
#[derive(Debug)]
pub struct Membership {
    ready: watch::Receiver<bool>,
    member: Arc<Member>,
    members: Weak<Members>,
    _watching: DropGuard,
}

impl Pool {
    /// A pool that looks after its replicas until the token of these tasks is cancelled.
    pub fn new(tasks: Tasks) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { members: Arc::default(), turn: AtomicUsize::new(0), client, tasks }
    }

    /// Adds a replica. It gets requests as soon as it says that it is ready.
    pub fn join(&self, backend: Backend) -> Membership {
        let (ready, receiver) = watch::channel(false);
        let member = Arc::new(Member { address: backend.address, ready });
        lock(&self.members).push(Arc::clone(&member));
        let token = self.tasks.token.child_token();
        let looking = look(self.client.clone(), backend.admin, Arc::clone(&member));
        self.tasks.tracker.spawn(token.clone().run_until_cancelled_owned(looking));
        Membership { ready: receiver, member, members: Arc::downgrade(&self.members), _watching: token.drop_guard() }
    }

    /// The ready replicas, each once, beginning with the one whose turn it is.
    pub fn in_turn(&self) -> Vec<SocketAddr> {
        let mut ready: Vec<_> =
            lock(&self.members).iter().filter(|member| *member.ready.borrow()).map(|member| member.address).collect();
        if !ready.is_empty() {
            let first = self.turn.fetch_add(1, Ordering::Relaxed) % ready.len();
            ready.rotate_left(first);
        }
        ready
    }
}

impl Membership {
    /// Waits until the replica is ready. Cancel-safe.
    pub async fn ready(&mut self) {
        // The sender lives in `member`, which we hold.
        let _ = self.ready.wait_for(|ready| *ready).await;
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if let Some(members) = self.members.upgrade() {
            lock(&members).retain(|member| !Arc::ptr_eq(member, &self.member));
        }
    }
}

fn lock(members: &Members) -> MutexGuard<'_, Vec<Arc<Member>>> {
    // Every change is one push or one retain: a panic elsewhere leaves the list whole.
    members.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks a replica again and again whether it is ready.
async fn look(client: Client<HttpConnector, Body>, admin: SocketAddr, member: Arc<Member>) {
    let Ok(uri) = format!("http://{admin}/readyz").parse::<Uri>() else { return };
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let answer = timeout(ANSWER, client.get(uri.clone())).await;
        let ready = matches!(answer, Ok(Ok(response)) if response.status() == StatusCode::OK);
        member.ready.send_if_modified(|known| std::mem::replace(known, ready) != ready);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_replicas_take_turns_and_each_is_tried_once() {
        let pool = Pool::new(Tasks::default());
        let places: Vec<_> = (1..=3_u16)
            .map(|port| {
                let address = SocketAddr::from(([127, 0, 0, 1], port));
                // The discard port of another loopback address: nobody is there to say "ready".
                pool.join(Backend { address, admin: ([127, 9, 9, 9], 9).into() })
            })
            .collect();
        assert!(pool.in_turn().is_empty(), "nobody is ready yet");
        for place in &places {
            place.member.ready.send_replace(true);
        }
        let ports = || pool.in_turn().iter().map(SocketAddr::port).collect::<Vec<_>>();
        assert_eq!([ports(), ports(), ports(), ports()], [[1, 2, 3], [2, 3, 1], [3, 1, 2], [1, 2, 3]]);
        places[1].member.ready.send_replace(false);
        assert!(!ports().contains(&2));
        drop(places);
        assert!(ports().is_empty());
    }
}
