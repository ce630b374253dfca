//! Connections: rounds of candidates, the current one, and the change from one to the other.

use super::{ANSWER_MS, BACKOFF_BASE_MS, BACKOFF_CAP_MS, Conn, Effect, Event, STABLE_MS, Values};
use crate::{Frame, Hello, History, close};

/// What a page shows of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Not started, or stopped.
    Idle,
    /// Never been live since the start.
    Connecting,
    /// A current connection.
    Live,
    /// A current connection, and a successor being made.
    Moving,
    /// Lost; attempts are under way or waited for.
    Reconnecting,
    /// Closed for good by the server.
    Refused,
}

impl Status {
    /// The word of the protocol.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::Live => "live",
            Self::Moving => "moving",
            Self::Reconnecting => "reconnecting",
            Self::Refused => "refused",
        }
    }
}

/// What a `hello` told of the other side.
#[derive(Debug, Clone)]
struct Peer {
    replica: String,
    history: History,
    beat_ms: u64,
}

impl From<Hello> for Peer {
    fn from(hello: Hello) -> Self {
        let history = History { store: hello.store, timeline: hello.timeline };
        Self { replica: hello.replica, history, beat_ms: hello.beat_ms }
    }
}

/// A connection that has not delivered yet.
#[derive(Debug, Clone)]
struct Candidate {
    conn: Conn,
    deadline: u64,
    peer: Option<Peer>,
}

/// The connection that delivers.
#[derive(Debug, Clone)]
struct Current {
    conn: Conn,
    peer: Peer,
    heard_at: u64,
}

impl Current {
    /// When its silence counts as a loss: 2.5 beats after the last frame.
    fn silent_at(&self) -> u64 {
        // Whatever number the server told.
        self.heard_at.saturating_add(self.peer.beat_ms.saturating_mul(5) / 2)
    }
}

/// The four kinds of effects, each in its own list so that they leave in the promised order.
#[derive(Debug, Default)]
struct Effects {
    opens: Vec<Effect>,
    closes: Vec<Conn>,
    items: Vec<String>,
    handover: Option<Effect>,
}

impl Effects {
    fn into_list(mut self) -> Vec<Effect> {
        self.closes.sort_unstable();
        let closes = self.closes.into_iter().map(|conn| Effect::Close { conn });
        let items = (!self.items.is_empty()).then_some(Effect::Items { keys: self.items });
        self.opens.into_iter().chain(closes).chain(items).chain(self.handover).collect()
    }
}

/// The time of the event, and its random number in [0, 1).
#[derive(Debug, Clone, Copy)]
struct Now {
    ms: u64,
    random: f64,
}

/// The client's state machine. Feed it with [`Machine::step`], do what it says, and tick it at [`Machine::wake_at`].
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// What was learned.
    pub values: Values,
    started: bool,
    refused: Option<String>,
    replica: Option<String>,
    current: Option<Current>,
    candidates: Vec<Candidate>,
    opened: Conn,
    /// Rounds since a connection was last live.
    rounds: u32,
    failures: u32,
    next_round: Option<u64>,
    /// A candidate of this round was told to wait so long, ms.
    told_to_wait: Option<u64>,
    live_since: Option<u64>,
    lost_at: Option<u64>,
    moving_since: Option<u64>,
}

impl Machine {
    /// What a page shows.
    pub fn status(&self) -> Status {
        match (&self.current, &self.refused) {
            (_, Some(_)) => Status::Refused,
            (Some(_), _) if self.moving_since.is_some() => Status::Moving,
            (Some(_), _) => Status::Live,
            (None, _) if !self.started => Status::Idle,
            (None, _) if self.lost_at.is_some() => Status::Reconnecting,
            (None, _) => Status::Connecting,
        }
    }

    /// Who serves, or served last.
    pub fn replica(&self) -> Option<&str> {
        self.replica.as_deref()
    }

    /// Why the server refused.
    pub fn reason(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// When the machine wants its next [`Event::Tick`].
    pub fn wake_at(&self) -> Option<u64> {
        let deadlines = self.candidates.iter().map(|candidate| candidate.deadline);
        deadlines.chain(self.next_round).chain(self.current.as_ref().map(Current::silent_at)).min()
    }

    /// Takes one event. `now` is in ms of any monotonic clock, `random` in [0, 1).
    pub fn step(&mut self, now: u64, event: Event, random: f64) -> Vec<Effect> {
        let now = Now { ms: now, random };
        let mut effects = Effects::default();
        match event {
            Event::Start => self.start(now, &mut effects),
            Event::Frame { conn, frame } => self.frame(now, conn, frame, &mut effects),
            Event::Closed { conn, code, reason } => self.closed(now, conn, code, &reason, &mut effects),
            Event::Tick => {
                self.expire(now, &mut effects);
                if self.next_round.is_some_and(|at| at <= now.ms) {
                    self.begin_round(now, &mut effects);
                }
            }
            Event::Nudge => {
                self.expire(now, &mut effects);
                if self.next_round.is_some() {
                    self.begin_round(now, &mut effects);
                }
            }
            Event::Stop => {
                self.end(&mut effects);
                self.refused = None;
            }
        }
        effects.into_list()
    }

    fn start(&mut self, now: Now, effects: &mut Effects) {
        if self.started {
            return;
        }
        (self.started, self.refused, self.failures) = (true, None, 0);
        self.begin_round(now, effects);
    }

    /// Rule 1: one connection in the first round, two that race in every later one.
    fn begin_round(&mut self, now: Now, effects: &mut Effects) {
        (self.next_round, self.told_to_wait) = (None, None);
        let size = if self.rounds == 0 { 1 } else { 2 };
        self.rounds += 1;
        for _ in 0..size {
            self.opened += 1;
            self.candidates.push(Candidate { conn: self.opened, deadline: now.ms + ANSWER_MS, peer: None });
            effects.opens.push(Effect::Open { conn: self.opened, since: self.values.cursor.clone() });
        }
    }

    /// Rule 2: full jitter.
    fn delay(&self, now: Now) -> u64 {
        let ceiling = BACKOFF_BASE_MS.saturating_mul(1 << self.failures.min(16)).min(BACKOFF_CAP_MS);
        (now.random * ceiling as f64) as u64
    }

    /// Rules 2 and 6: a candidate is out; after the last one the next round is planned.
    fn fail(&mut self, now: Now, conn: Conn, wait: Option<u64>) {
        self.candidates.retain(|candidate| candidate.conn != conn);
        self.told_to_wait = self.told_to_wait.max(wait);
        if !self.candidates.is_empty() {
            return;
        }
        if let Some(wait) = self.told_to_wait {
            self.rounds -= 1;
            self.next_round = Some(now.ms + wait);
        } else {
            self.next_round = Some(now.ms + self.delay(now));
            self.failures += 1;
        }
    }

    /// Rules 4 and 5: the current connection is gone.
    fn lose(&mut self, now: Now, wait: Option<u64>, effects: &mut Effects) {
        self.current = None;
        self.moving_since = None;
        self.lost_at = Some(now.ms);
        let stable = self.live_since.take().is_some_and(|since| now.ms - since >= STABLE_MS);
        if stable {
            self.failures = 0;
        }
        let delay = self.delay(now);
        if !stable {
            self.failures += 1;
        }
        if self.next_round.is_some() {
            self.begin_round(now, effects);
        } else if self.candidates.is_empty() {
            self.next_round = Some(now.ms + wait.unwrap_or(delay));
        }
    }

    /// Closes what has not answered in time, and the current connection if it has been silent for too long.
    fn expire(&mut self, now: Now, effects: &mut Effects) {
        let late: Vec<Conn> = self.candidates.iter().filter(|c| c.deadline <= now.ms).map(|c| c.conn).collect();
        for conn in late {
            effects.closes.push(conn);
            self.fail(now, conn, None);
        }
        if let Some(conn) =
            self.current.as_ref().filter(|current| current.silent_at() <= now.ms).map(|current| current.conn)
        {
            effects.closes.push(conn);
            self.lose(now, None, effects);
        }
    }

    fn closed(&mut self, now: Now, conn: Conn, code: u16, reason: &str, effects: &mut Effects) {
        let is_current = self.current.as_ref().is_some_and(|current| current.conn == conn);
        let is_candidate = self.candidates.iter().any(|candidate| candidate.conn == conn);
        if !is_current && !is_candidate {
            return; // rule 11
        }
        if code == close::POLICY && (is_current || self.current.is_none()) {
            self.end(effects);
            effects.closes.retain(|closed| *closed != conn);
            self.refused = Some(reason.to_owned());
            return;
        }
        let wait = (code == close::TRY_LATER).then(|| close::parse_retry(reason)).flatten();
        if is_current { self.lose(now, wait, effects) } else { self.fail(now, conn, wait) }
    }

    fn frame(&mut self, now: Now, conn: Conn, frame: Option<Frame>, effects: &mut Effects) {
        if self.current.as_ref().is_some_and(|current| current.conn == conn) {
            self.frame_of_current(now, conn, frame, effects);
        } else if let Some(index) = self.candidates.iter().position(|candidate| candidate.conn == conn) {
            self.frame_of_candidate(now, index, frame, effects);
        }
    }

    fn frame_of_current(&mut self, now: Now, conn: Conn, frame: Option<Frame>, effects: &mut Effects) {
        let Some(current) = self.current.as_mut() else { return };
        current.heard_at = now.ms;
        match frame {
            Some(Frame::Hello(hello)) => {
                let peer = Peer::from(hello);
                if self.values.is_past(&peer.history) {
                    effects.closes.push(conn);
                    self.lose(now, None, effects);
                } else {
                    self.replica = Some(peer.replica.clone());
                    current.peer = peer;
                }
            }
            Some(Frame::Move(_)) if self.moving_since.is_none() => {
                self.moving_since = Some(now.ms);
                if self.candidates.is_empty() && self.next_round.is_none() {
                    self.begin_round(now, effects);
                }
            }
            Some(Frame::Set(set)) => effects.items = self.values.apply(now.ms, &current.peer.history, set),
            Some(Frame::Beat(beat)) => self.values.refresh(now.ms, beat),
            Some(Frame::Move(_) | Frame::Unknown) | None => {}
        }
    }

    fn frame_of_candidate(&mut self, now: Now, index: usize, frame: Option<Frame>, effects: &mut Effects) {
        let candidate = &mut self.candidates[index];
        match frame {
            Some(Frame::Hello(hello)) => {
                let (conn, peer) = (candidate.conn, Peer::from(hello));
                if self.values.is_past(&peer.history) {
                    effects.closes.push(conn);
                    self.fail(now, conn, None);
                } else {
                    candidate.deadline = now.ms + ANSWER_MS;
                    candidate.peer = Some(peer);
                }
            }
            Some(frame @ (Frame::Set(_) | Frame::Beat(_))) => {
                let (conn, Some(peer)) = (candidate.conn, candidate.peer.clone()) else { return };
                // Since its hello the current connection may have told of a later timeline.
                if self.values.is_past(&peer.history) {
                    effects.closes.push(conn);
                    self.fail(now, conn, None);
                } else {
                    self.switch(now, Current { conn, peer, heard_at: now.ms }, effects);
                    self.frame_of_current(now, conn, Some(frame), effects);
                }
            }
            Some(Frame::Move(_) | Frame::Unknown) | None => {}
        }
    }

    /// Rule 3: this one delivers from now on.
    fn switch(&mut self, now: Now, next: Current, effects: &mut Effects) {
        let old = self.current.take();
        if let (Some(from), Some(since)) = (self.replica.take(), self.moving_since.or(self.lost_at)) {
            let (to, ms, planned) = (next.peer.replica.clone(), now.ms - since, old.is_some());
            effects.handover = Some(Effect::Handover { from, to, ms, planned });
        }
        effects.closes.extend(old.iter().map(|old| old.conn));
        effects.closes.extend(self.candidates.drain(..).map(|other| other.conn).filter(|other| *other != next.conn));
        self.replica = Some(next.peer.replica.clone());
        self.current = Some(next);
        self.live_since.get_or_insert(now.ms);
        (self.rounds, self.next_round, self.told_to_wait) = (0, None, None);
        (self.moving_since, self.lost_at) = (None, None);
    }

    /// Closes everything; what was learned stays.
    fn end(&mut self, effects: &mut Effects) {
        effects.closes.extend(self.current.take().map(|current| current.conn));
        effects.closes.extend(self.candidates.drain(..).map(|candidate| candidate.conn));
        (self.started, self.rounds, self.next_round, self.told_to_wait) = (false, 0, None, None);
        (self.live_since, self.lost_at, self.moving_since, self.replica) = (None, None, None, None);
    }
}
