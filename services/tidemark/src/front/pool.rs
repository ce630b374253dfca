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
use http_body_util::{BodyExt, Limited};
use hyper::{StatusCode, Uri};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use runtime::Tasks;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::DropGuard;

use crate::http::reason;

/// Poll interval of a replica's readiness: a replica that leaves gets no new connection after it.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// The same until the replica is ready for the first time: the start waits for it.
const STARTING_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A replica that does not answer within this time is not ready.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest answer that is read, bytes. It has a line for each condition.
const MAX_REPORT: usize = 4 * 1024;

/// Where a replica listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    /// For users.
    pub address: SocketAddr,
    /// For health.
    pub admin: SocketAddr,
}

/// Readiness of a replica, as it answered last.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Readiness {
    ready: bool,
    /// Its conditions on one line, or why there is no answer.
    report: String,
}

#[derive(Debug)]
struct Member {
    address: SocketAddr,
    readiness: watch::Sender<Readiness>,
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
    readiness: watch::Receiver<Readiness>,
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
        let (sender, readiness) = watch::channel(Readiness { ready: false, report: "not probed yet".to_owned() });
        let member = Arc::new(Member { address: backend.address, readiness: sender });
        lock(&self.members).push(Arc::clone(&member));
        let token = self.tasks.token.child_token();
        let polling = poll(self.client.clone(), backend.admin, Arc::clone(&member));
        self.tasks.tracker.spawn(token.clone().run_until_cancelled_owned(polling));
        Membership { readiness, member, members: Arc::downgrade(&self.members), _watching: token.drop_guard() }
    }

    /// The ready replicas, each once, beginning with the one whose turn it is.
    pub fn in_turn(&self) -> Vec<SocketAddr> {
        let mut ready: Vec<_> = lock(&self.members)
            .iter()
            .filter(|member| member.readiness.borrow().ready)
            .map(|member| member.address)
            .collect();
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
        let _ = self.readiness.wait_for(|readiness| readiness.ready).await;
    }

    /// The replica's last answer about its readiness, on one line.
    pub fn report(&self) -> String {
        self.readiness.borrow().report.clone()
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

/// Polls a replica's readiness.
async fn poll(client: Client<HttpConnector, Body>, admin: SocketAddr, member: Arc<Member>) {
    let Ok(uri) = format!("http://{admin}/readyz").parse::<Uri>() else { return };
    let mut was_ready = false;
    loop {
        let readiness = probe(&client, &uri).await;
        was_ready |= readiness.ready;
        member.readiness.send_if_modified(|known| {
            let changed = *known != readiness;
            *known = readiness;
            changed
        });
        sleep(if was_ready { POLL_INTERVAL } else { STARTING_POLL_INTERVAL }).await;
    }
}

/// Requests a replica's readiness.
async fn probe(client: &Client<HttpConnector, Body>, uri: &Uri) -> Readiness {
    let answer = async {
        let response = client.get(uri.clone()).await.map_err(|error| format!("GET {uri}: {}", reason(&error)))?;
        let ready = response.status() == StatusCode::OK;
        let body = Limited::new(response.into_body(), MAX_REPORT).collect().await.map(|body| body.to_bytes());
        let body = body.map_err(|error| format!("GET {uri}: {error}"))?;
        let lines: Vec<_> = str::from_utf8(&body).unwrap_or_default().lines().collect();
        Ok(Readiness { ready, report: lines.join(", ") })
    };
    let unanswered = |report| Readiness { ready: false, report };
    match timeout(ANSWER_TIMEOUT, answer).await {
        Ok(answered) => answered.unwrap_or_else(unanswered),
        Err(_) => unanswered(format!("GET {uri}: no answer within {} s", ANSWER_TIMEOUT.as_secs())),
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
            place.member.readiness.send_replace(Readiness { ready: true, report: String::new() });
        }
        let ports = || pool.in_turn().iter().map(SocketAddr::port).collect::<Vec<_>>();
        assert_eq!([ports(), ports(), ports(), ports()], [[1, 2, 3], [2, 3, 1], [3, 1, 2], [1, 2, 3]]);
        places[1].member.readiness.send_replace(Readiness { ready: false, report: String::new() });
        assert!(!ports().contains(&2));
        drop(places);
        assert!(ports().is_empty());
    }
}
