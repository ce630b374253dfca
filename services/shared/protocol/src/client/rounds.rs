//! Attempts: rounds of candidates, the waits between rounds, what carries a candidate, and the probes of a client that fell back.

use super::{ANSWER_MS, BACKOFF_BASE_MS, BACKOFF_CAP_MS, Conn, FALLBACK, JOIN_MS, JOINS, PROBE_FIRST_MS, PROBE_MS};
use crate::{Hello, History, Transport, close};

/// The time of the event, and its random number in [0, 1).
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub ms: u64,
    pub random: f64,
}

/// What a `hello` told of the other side.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub replica: String,
    pub history: History,
    pub beat_ms: u64,
}

impl From<Hello> for Peer {
    fn from(hello: Hello) -> Self {
        let history = History { store: hello.store, timeline: hello.timeline };
        Self { replica: hello.replica, history, beat_ms: hello.beat_ms }
    }
}

/// A connection that has not delivered yet.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub conn: Conn,
    pub transport: Transport,
    pub opened_at: u64,
    pub deadline: u64,
    pub peer: Option<Peer>,
}

/// How a candidate ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failure {
    /// Close code; [`close::ABNORMAL`] without one.
    pub code: u16,
    /// Told to wait so long, ms.
    pub wait: Option<u64>,
}

impl Failure {
    /// Given up by the client itself.
    pub const GIVEN_UP: Self = Self { code: close::ABNORMAL, wait: None };
}

/// All attempts of a machine.
#[derive(Debug, Clone, Default)]
pub(super) struct Rounds {
    /// Those of the round under way, or the probe.
    pub candidates: Vec<Candidate>,
    /// When the next round starts, if one is waited for.
    pub next_at: Option<u64>,
    /// When one more connection joins the round under way, if one is waited for.
    pub join_at: Option<u64>,
    /// When the next probe starts, if one is waited for.
    pub probe_at: Option<u64>,
    /// How often the wait has doubled.
    pub failures: u32,
    /// Connections opened in the life of the machine.
    opened: Conn,
    /// Rounds that failed since a connection was last live, and its silence if that was its end.
    failed: u32,
    /// How many connections may still join rounds: some after a silence, else none.
    joins: u32,
    /// WebSockets that failed in a row (rule 13).
    sockets_failed: u32,
    /// A candidate of this round was told to wait so long, ms.
    told_to_wait: Option<u64>,
}

impl Rounds {
    /// Whether an attempt is under way or waited for.
    pub fn is_busy(&self) -> bool {
        !self.candidates.is_empty() || self.next_at.is_some()
    }

    /// Rules 1 and 13: one connection in the first round, two that race in every later one. Gives what has to be opened.
    pub fn begin(&mut self, now: Now) -> Vec<(Conn, Transport)> {
        (self.next_at, self.probe_at, self.told_to_wait) = (None, None, None);
        self.await_join(now);
        let second = (self.failed > 0).then_some(Transport::WebSocket);
        [Some(self.carrier()), second].into_iter().flatten().map(|transport| self.open(now, transport)).collect()
    }

    /// Rule 1: one more connection joins the round, unless somebody there is answering.
    pub fn join(&mut self, now: Now) -> Option<(Conn, Transport)> {
        let is_answered = self.candidates.iter().any(|candidate| candidate.peer.is_some());
        if !is_answered {
            self.joins -= 1;
        }
        self.await_join(now);
        (!is_answered).then(|| self.open(now, self.carrier()))
    }

    fn await_join(&mut self, now: Now) {
        self.join_at = (self.joins > 0).then_some(now.ms + JOIN_MS);
    }

    /// Rule 13: what carries a connection that does not race for another transport.
    fn carrier(&self) -> Transport {
        if self.sockets_failed < FALLBACK { Transport::WebSocket } else { Transport::Sse }
    }

    /// Rule 14: a WebSocket beside an SSE connection.
    pub fn probe(&mut self, now: Now) -> (Conn, Transport) {
        (self.probe_at, self.told_to_wait) = (None, None);
        self.open(now, Transport::WebSocket)
    }

    fn open(&mut self, now: Now, transport: Transport) -> (Conn, Transport) {
        self.opened += 1;
        let (conn, opened_at, deadline) = (self.opened, now.ms, now.ms + ANSWER_MS);
        self.candidates.push(Candidate { conn, transport, opened_at, deadline, peer: None });
        (conn, transport)
    }

    /// Rules 2, 6, 13 and 14: a candidate is out; after the last one the next round is planned, or, if this was a probe, the next probe.
    pub fn fail(&mut self, now: Now, conn: Conn, failure: Failure, is_probe: bool) {
        let Some(index) = self.candidates.iter().position(|candidate| candidate.conn == conn) else { return };
        if self.candidates.remove(index).transport == Transport::WebSocket {
            // These two came through a WebSocket: what is refused is not the transport.
            let got_through = matches!(failure.code, close::TRY_LATER | close::POLICY);
            self.sockets_failed = if got_through { 0 } else { self.sockets_failed.saturating_add(1) };
        }
        self.told_to_wait = self.told_to_wait.max(failure.wait);
        if !self.candidates.is_empty() {
            return;
        }
        self.join_at = None;
        if is_probe {
            self.probe_at = Some(now.ms + self.told_to_wait.unwrap_or_else(|| spread(PROBE_MS, now)));
        } else if let Some(wait) = self.told_to_wait {
            self.next_at = Some(now.ms + wait);
        } else {
            self.next_at = Some(now.ms + self.delay(now));
            self.failures += 1;
            self.failed += 1;
        }
    }

    /// Rule 5: the current connection is gone. Gives the delay of the next round, if one has to be planned.
    pub fn delay_after_loss(&mut self, now: Now, stable: bool) -> u64 {
        self.probe_at = None;
        if stable {
            self.failures = 0;
        }
        let delay = self.delay(now);
        if !stable {
            self.failures += 1;
        }
        delay
    }

    /// Rule 5: the current connection has been silent. Whoever chooses the replica may take it for alive as well, so this counts as a failed round, and more than
    /// two attempts may be needed.
    pub fn count_silence(&mut self) {
        (self.failed, self.joins) = (self.failed.max(1), JOINS);
    }

    /// Rules 3 and 14: a candidate has delivered. Gives the connections that have to be closed.
    pub fn won(&mut self, now: Now, conn: Conn, transport: Transport) -> Vec<Conn> {
        let mut others = std::mem::take(&mut self.candidates);
        others.retain(|other| other.conn != conn);
        self.end();
        match transport {
            Transport::WebSocket => self.sockets_failed = 0,
            Transport::Sse => {
                let is_socket = |other: &Candidate| other.transport == Transport::WebSocket;
                (self.candidates, others) = others.into_iter().partition(is_socket);
                if self.candidates.is_empty() {
                    self.probe_at = Some(now.ms + spread(PROBE_FIRST_MS, now));
                }
            }
        }
        others.into_iter().map(|other| other.conn).collect()
    }

    /// Ends all attempts. Gives the connections that are left.
    pub fn end(&mut self) -> Vec<Conn> {
        (self.next_at, self.join_at, self.probe_at, self.told_to_wait) = (None, None, None, None);
        (self.failed, self.joins) = (0, 0);
        self.candidates.drain(..).map(|candidate| candidate.conn).collect()
    }

    /// Rule 2: full jitter.
    fn delay(&self, now: Now) -> u64 {
        let ceiling = BACKOFF_BASE_MS.saturating_mul(1 << self.failures.min(16)).min(BACKOFF_CAP_MS);
        (now.random * ceiling as f64) as u64
    }
}

/// Between half of it and all of it: clients that fell back together do not probe together.
fn spread(ms: u64, now: Now) -> u64 {
    (ms as f64 * (1.0 + now.random) / 2.0) as u64
}
