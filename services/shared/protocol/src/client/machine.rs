//! Connections: the current one, its candidates, and the change from one to the other.

use super::{
    ANSWER_MS, Conn, Effect, Event, STABLE_MS, Values,
    rounds::{Candidate, Failure, Now, Peer, Rounds},
};
use crate::{Frame, Transport, close};

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

/// The connection that delivers.
#[derive(Debug, Clone)]
struct Current {
    conn: Conn,
    transport: Transport,
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
    opens: Vec<(Conn, Transport)>,
    closes: Vec<Conn>,
    items: Vec<String>,
    handover: Option<Effect>,
}

impl Effects {
    fn into_list(mut self, cursor: Option<&str>) -> Vec<Effect> {
        let open = |(conn, transport)| Effect::Open { conn, since: cursor.map(str::to_owned), transport };
        let opens = self.opens.into_iter().map(open);
        self.closes.sort_unstable();
        let closes = self.closes.into_iter().map(|conn| Effect::Close { conn });
        let items = (!self.items.is_empty()).then_some(Effect::Items { keys: self.items });
        opens.chain(closes).chain(items).chain(self.handover).collect()
    }
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
    rounds: Rounds,
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

    /// What carries the current connection.
    pub fn transport(&self) -> Option<Transport> {
        self.current.as_ref().map(|current| current.transport)
    }

    /// When the machine wants its next [`Event::Tick`].
    pub fn wake_at(&self) -> Option<u64> {
        let Rounds { candidates, next_at, join_at, probe_at, .. } = &self.rounds;
        let deadlines = candidates.iter().map(|candidate| candidate.deadline);
        let starts = [*next_at, *join_at, *probe_at].into_iter().flatten();
        deadlines.chain(starts).chain(self.current.as_ref().map(Current::silent_at)).min()
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
                self.begin_due(now, now.ms, &mut effects);
            }
            Event::Nudge => {
                self.expire(now, &mut effects);
                self.begin_due(now, u64::MAX, &mut effects);
            }
            Event::Stop => {
                self.end(&mut effects);
                self.refused = None;
            }
        }
        effects.into_list(self.values.cursor.as_deref())
    }

    fn start(&mut self, now: Now, effects: &mut Effects) {
        if self.started {
            return;
        }
        (self.started, self.refused, self.rounds.failures) = (true, None, 0);
        effects.opens.extend(self.rounds.begin(now));
    }

    /// Rule 8: starts a waited-for round whose time lies at or before `until`, and what is due to join one or to probe.
    fn begin_due(&mut self, now: Now, until: u64, effects: &mut Effects) {
        if self.rounds.next_at.is_some_and(|at| at <= until) {
            effects.opens.extend(self.rounds.begin(now));
        }
        if self.rounds.join_at.is_some_and(|at| at <= now.ms) {
            effects.opens.extend(self.rounds.join(now));
        }
        if self.rounds.probe_at.is_some_and(|at| at <= now.ms) {
            effects.opens.push(self.rounds.probe(now));
        }
    }

    fn fail(&mut self, now: Now, conn: Conn, failure: Failure) {
        // Beside a connection that serves and asked for nothing there is no other attempt.
        let is_probe = self.current.is_some() && self.moving_since.is_none();
        self.rounds.fail(now, conn, failure, is_probe);
    }

    /// Rules 4 and 5: the current connection is gone.
    fn lose(&mut self, now: Now, wait: Option<u64>, effects: &mut Effects) {
        self.current = None;
        self.moving_since = None;
        self.lost_at = Some(now.ms);
        let stable = self.live_since.take().is_some_and(|since| now.ms - since >= STABLE_MS);
        let delay = self.rounds.delay_after_loss(now, stable);
        if self.rounds.next_at.is_some() {
            effects.opens.extend(self.rounds.begin(now));
        } else if !self.rounds.is_busy() {
            self.rounds.next_at = Some(now.ms + wait.unwrap_or(delay));
        }
    }

    /// Closes what has not answered in time, and the current connection if it has been silent for too long.
    fn expire(&mut self, now: Now, effects: &mut Effects) {
        let is_late = |candidate: &&Candidate| candidate.deadline <= now.ms;
        let late: Vec<Conn> = self.rounds.candidates.iter().filter(is_late).map(|candidate| candidate.conn).collect();
        for conn in late {
            effects.closes.push(conn);
            self.fail(now, conn, Failure::GIVEN_UP);
        }
        if let Some(conn) =
            self.current.as_ref().filter(|current| current.silent_at() <= now.ms).map(|current| current.conn)
        {
            effects.closes.push(conn);
            self.rounds.count_silence();
            self.lose(now, None, effects);
        }
    }

    fn closed(&mut self, now: Now, conn: Conn, code: u16, reason: &str, effects: &mut Effects) {
        let is_current = self.current.as_ref().is_some_and(|current| current.conn == conn);
        if !is_current && self.candidate(conn).is_none() {
            return; // rule 11
        }
        if code == close::POLICY && (is_current || self.current.is_none()) {
            self.end(effects);
            effects.closes.retain(|closed| *closed != conn);
            self.refused = Some(reason.to_owned());
            return;
        }
        let wait = (code == close::TRY_LATER).then(|| close::parse_retry(reason)).flatten();
        if is_current { self.lose(now, wait, effects) } else { self.fail(now, conn, Failure { code, wait }) }
    }

    fn candidate(&mut self, conn: Conn) -> Option<&mut Candidate> {
        self.rounds.candidates.iter_mut().find(|candidate| candidate.conn == conn)
    }

    fn frame(&mut self, now: Now, conn: Conn, frame: Option<Frame>, effects: &mut Effects) {
        if self.current.as_ref().is_some_and(|current| current.conn == conn) {
            self.frame_of_current(now, conn, frame, effects);
        } else {
            self.frame_of_candidate(now, conn, frame, effects);
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
                if self.rounds.is_busy() {
                    // A probe is left to answer: it leads away from this replica too.
                    return;
                }
                effects.opens.extend(self.rounds.begin(now));
            }
            Some(Frame::Set(set)) => effects.items = self.values.apply(now.ms, &current.peer.history, set),
            Some(Frame::Beat(beat)) => self.values.refresh(now.ms, beat),
            Some(Frame::Move(_) | Frame::Unknown) | None => {}
        }
    }

    fn frame_of_candidate(&mut self, now: Now, conn: Conn, frame: Option<Frame>, effects: &mut Effects) {
        match frame {
            Some(Frame::Hello(hello)) => {
                let peer = Peer::from(hello);
                let is_past = self.values.is_past(&peer.history);
                let Some(candidate) = self.candidate(conn) else { return };
                if is_past {
                    effects.closes.push(conn);
                    self.fail(now, conn, Failure::GIVEN_UP);
                } else {
                    candidate.deadline = now.ms + ANSWER_MS;
                    candidate.peer = Some(peer);
                }
            }
            Some(frame @ (Frame::Set(_) | Frame::Beat(_))) => {
                let Some(candidate) = self.candidate(conn) else { return };
                let (transport, opened_at) = (candidate.transport, candidate.opened_at);
                let Some(peer) = candidate.peer.clone() else { return };
                // Since its hello the current connection may have told of a later timeline.
                if self.values.is_past(&peer.history) {
                    effects.closes.push(conn);
                    self.fail(now, conn, Failure::GIVEN_UP);
                } else {
                    self.switch(now, Current { conn, transport, peer, heard_at: now.ms }, opened_at, effects);
                    self.frame_of_current(now, conn, Some(frame), effects);
                }
            }
            Some(Frame::Move(_) | Frame::Unknown) | None => {}
        }
    }

    /// Rule 3: this one delivers from now on.
    fn switch(&mut self, now: Now, next: Current, opened_at: u64, effects: &mut Effects) {
        let old = self.current.take();
        if let Some(from) = self.replica.take() {
            // A probe was neither asked for nor caused by a loss: it began with itself.
            let since = self.moving_since.or(self.lost_at).unwrap_or(opened_at);
            let (to, ms, planned) = (next.peer.replica.clone(), now.ms - since, old.is_some());
            effects.handover = Some(Effect::Handover { from, to, ms, planned });
        }
        effects.closes.extend(old.iter().map(|old| old.conn));
        effects.closes.extend(self.rounds.won(now, next.conn, next.transport));
        self.replica = Some(next.peer.replica.clone());
        self.current = Some(next);
        self.live_since.get_or_insert(now.ms);
        (self.moving_since, self.lost_at) = (None, None);
    }

    /// Closes everything; what was learned stays.
    fn end(&mut self, effects: &mut Effects) {
        effects.closes.extend(self.current.take().map(|current| current.conn));
        effects.closes.extend(self.rounds.end());
        (self.started, self.replica) = (false, None);
        (self.live_since, self.lost_at, self.moving_since) = (None, None, None);
    }
}
