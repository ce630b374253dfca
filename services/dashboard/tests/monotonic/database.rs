//! What is true: a database that fails over to standbys which lag behind, and the samples of servers. Pure.

use std::collections::BTreeMap;

use dashboard::{
    hub::{Scalar, Snapshot},
    servers::Sample,
};
use protocol::History;
use serde_json::{Value, json};
use tokio::time::Instant;

/// The scalar feeds.
pub const FEEDS: [&str; 2] = ["texts", "visitors"];
/// The servers that may exist.
pub const SERVERS: [&str; 3] = ["a", "b", "c"];
/// The name of the database in every history.
pub const STORE: &str = "s";

/// Feed -> version and count, as one transaction left them.
type State = BTreeMap<&'static str, (u64, u64)>;

/// A database server that is a primary, or was one. The last one is the primary now; those before it may go on serving whoever still
/// reaches them.
struct Server {
    /// The states after each commit, the first one inherited.
    commits: Vec<State>,
    /// Commits that it had, and lost in a crash.
    lost: Vec<State>,
    /// The last commit that its standby has received.
    received: usize,
}

impl Server {
    fn new(first: State) -> Self {
        Self { commits: vec![first], lost: Vec::new(), received: 0 }
    }

    fn newest(&self) -> &State {
        &self.commits[self.commits.len() - 1]
    }

    /// The greatest version that this feed ever had here.
    fn greatest(&self, feed: &str) -> u64 {
        self.commits.iter().chain(&self.lost).map(|state| state[feed].0).max().unwrap_or_default()
    }
}

/// All servers that ever were a primary, by timeline from 1.
pub struct Database {
    servers: Vec<Server>,
    /// No two commits leave the same count, so that a count tells which commit it came from.
    counts: u64,
}

impl Database {
    pub fn new() -> Self {
        let state = FEEDS.into_iter().zip(1..).map(|(feed, count)| (feed, (1, count))).collect();
        Self { servers: vec![Server::new(state)], counts: FEEDS.len() as u64 }
    }

    /// The timeline of the primary.
    pub fn timeline(&self) -> usize {
        self.servers.len()
    }

    /// A commit on the server of this timeline. It gives no version a second time: whoever has the lost one could not tell the two apart.
    pub fn write(&mut self, timeline: usize, feed: &'static str) {
        self.counts += 1;
        let server = &mut self.servers[timeline - 1];
        let mut state = server.newest().clone();
        state.insert(feed, (server.greatest(feed) + 1, self.counts));
        server.commits.push(state);
    }

    /// The primary crashes and comes back without its last commits, in the same history: a disk that had promised too much.
    pub fn lose(&mut self, commits: usize) {
        if let Some(primary) = self.servers.last_mut() {
            let kept = primary.commits.len().saturating_sub(commits).max(1);
            primary.lost.extend(primary.commits.drain(kept..));
            primary.received = primary.received.min(kept - 1);
        }
    }

    /// Whether versions may have fallen within this history.
    pub fn has_lost(&self, history: &History) -> bool {
        self.server(history).is_some_and(|server| !server.lost.is_empty())
    }

    /// The standby receives everything up to now.
    pub fn replicate(&mut self) {
        if let Some(primary) = self.servers.last_mut() {
            primary.received = primary.commits.len() - 1;
        }
    }

    /// The standby becomes the primary with what it has received; versions fall back to that.
    pub fn promote(&mut self) {
        if let Some(old) = self.servers.last() {
            self.servers.push(Server::new(old.commits[old.received].clone()));
        }
    }

    fn server(&self, history: &History) -> Option<&Server> {
        (history.store == STORE).then(|| self.servers.get(history.timeline as usize - 1)).flatten()
    }

    /// What a reading of the server of this timeline finds now.
    pub fn read(&self, timeline: usize, at: Instant) -> Snapshot {
        let scalar = |(feed, (version, count)): (&&str, &(u64, u64))| Scalar {
            feed: (*feed).to_owned(),
            version: *version,
            value: json!({ "count": count }),
            changed: None,
            known_at: at,
        };
        let history = History { store: STORE.to_owned(), timeline: timeline as u32 };
        Snapshot { history, at, values: self.servers[timeline - 1].newest().iter().map(scalar).collect() }
    }

    /// Whether this feed ever had this version with this value in this history.
    pub fn committed(&self, history: &History, feed: &str, version: u64, value: &Value) -> bool {
        self.server(history).is_some_and(|server| {
            let is = |state: &State| state.get(feed).is_some_and(|(v, n)| *v == version && value["count"] == json!(n));
            server.commits.iter().chain(&server.lost).any(is)
        })
    }

    /// What everybody has to know in the end, as a client names it.
    pub fn truth(&self) -> BTreeMap<String, (u64, Value)> {
        let item = |(feed, (version, count)): (&&str, &(u64, u64))| {
            (format!("{feed}:"), (*version, json!({ "count": count })))
        };
        self.servers[self.timeline() - 1].newest().iter().map(item).collect()
    }
}

/// What the metric generator stores: the latest sample of each server that exists.
#[derive(Default)]
pub struct Samples {
    latest: BTreeMap<&'static str, u64>,
    second: u64,
}

impl Samples {
    /// A new sample, of a new server perhaps.
    pub fn sample(&mut self, server: &'static str) {
        self.second += 1;
        self.latest.insert(server, self.second);
    }

    /// The server ends.
    pub fn end(&mut self, server: &str) {
        self.latest.remove(server);
    }

    pub fn list(&self) -> impl Iterator<Item = &'static str> {
        self.latest.keys().copied()
    }

    pub fn latest(&self, server: &str) -> Option<Sample> {
        self.latest
            .get(server)
            .map(|second| Sample { version: *second, value: json!({ "second": second, "of": server }) })
    }

    /// As [`Database::truth`].
    pub fn truth(&self) -> BTreeMap<String, (u64, Value)> {
        let item =
            |server| self.latest(server).map(|sample| (format!("servers:{server}"), (sample.version, sample.value)));
        self.list().filter_map(item).collect()
    }
}
