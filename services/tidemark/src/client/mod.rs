//! The shell around [`protocol::client::Machine`]: sockets, one timer, the clock and the dice. Everything that is decided is decided there.
//!
//! A [`Client`] is one future. Thousands of them share a runtime; each holds one task per connection, of which it rarely has more than one.

mod connection;
mod dial;
mod events;
mod target;
mod trust;

use std::{collections::HashMap, future::pending};

use protocol::{
    Transport,
    client::{ANSWER_MS, Conn, Effect, Event, Machine},
    close,
};
use tokio::{
    sync::mpsc,
    time::{Duration, Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use {
    connection::{Socket, close_code, open},
    trust::{causes, distrust},
};

pub use target::{Address, Target, TargetError};
pub use trust::{Trust, TrustError};

/// Frames that wait for the owner. It handles one in microseconds; beyond that the connection stops reading, and the server sends newer values only.
const QUEUE: usize = 16;

/// How long opening may take. The machine gives up after [`ANSWER_MS`] by itself; this only ends what it has forgotten.
const OPEN: Duration = Duration::from_millis(2 * ANSWER_MS);

/// Longest frame that is accepted, bytes: some thousand items.
const MAX_FRAME: usize = 1024 * 1024;

/// A client of one address.
#[derive(Debug)]
pub struct Client {
    machine: Machine,
    target: Target,
    tracker: TaskTracker,
    began: Instant,
    /// The tokens that close open connections.
    connections: HashMap<Conn, CancellationToken>,
    events: mpsc::Sender<Event>,
    inbox: mpsc::Receiver<Event>,
}

/// What an observer is shown after each step.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// The state.
    pub machine: &'a Machine,
    /// What has to be done, and what is news.
    pub effects: &'a [Effect],
    /// What made it take the step.
    pub cause: Cause,
    /// Why a connection could not be opened, or broke.
    pub failure: Option<&'a str>,
    /// The client's time, ms; [`protocol::client::Values::known_at`] is in the same.
    pub now: u64,
}

/// What made the client take a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A frame arrived.
    Frame,
    /// A connection ended with this code, or could not be opened.
    Closed(u16),
    /// The client's own time.
    Time,
}

/// What an observer wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// More.
    Continue,
    /// No more.
    Stop,
}

impl Client {
    /// A client that has not connected yet. Its connections run on `tracker`.
    pub fn new(target: Target, tracker: TaskTracker) -> Self {
        let (events, inbox) = mpsc::channel(QUEUE);
        let (machine, connections) = (Machine::default(), HashMap::new());
        Self { machine, target, tracker, began: Instant::now(), connections, events, inbox }
    }

    /// Connects, and stays connected until the token is cancelled or the observer wants no more. The observer is called after each step.
    pub async fn run(&mut self, token: &CancellationToken, mut observe: impl FnMut(Step<'_>) -> Next) {
        let mut next = self.step(Event::Start, &mut observe);
        while next == Next::Continue {
            let wake_at = self.machine.wake_at().map(|ms| self.began + Duration::from_millis(ms));
            let timer = async {
                match wake_at {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            let event = tokio::select! {
                () = token.cancelled() => break,
                // The channel never ends: we hold a sender ourselves.
                Some(event) = self.inbox.recv() => event,
                () = timer => Event::Tick,
            };
            next = self.step(event, &mut observe);
        }
        self.step(Event::Stop, &mut observe);
    }

    fn step(&mut self, event: Event, observe: &mut impl FnMut(Step<'_>) -> Next) -> Next {
        if let Event::Closed { conn, .. } = &event {
            self.connections.remove(conn);
        }
        let failure = match &event {
            Event::Closed { code: close::ABNORMAL, reason, .. } if !reason.is_empty() => Some(reason.clone()),
            _ => None,
        };
        let cause = match &event {
            Event::Frame { .. } => Cause::Frame,
            Event::Closed { code, .. } => Cause::Closed(*code),
            Event::Start | Event::Tick | Event::Nudge | Event::Stop => Cause::Time,
        };
        let now = self.began.elapsed().as_millis() as u64;
        let effects = self.machine.step(now, event, rand::random());
        for effect in &effects {
            match effect {
                Effect::Open { conn, since, transport } => self.open(*conn, since.as_deref(), *transport),
                Effect::Close { conn } => {
                    if let Some(close) = self.connections.remove(conn) {
                        close.cancel();
                    }
                }
                Effect::Items { .. } | Effect::Handover { .. } => {}
            }
        }
        observe(Step { machine: &self.machine, effects: &effects, cause, failure: failure.as_deref(), now })
    }

    fn open(&mut self, conn: Conn, since: Option<&str>, transport: Transport) {
        let close = CancellationToken::new();
        let address = self.target.address(transport, since);
        let events = self.events.clone();
        match transport {
            Transport::WebSocket => self.tracker.spawn(connection::run(conn, address, events, close.clone())),
            Transport::Sse => self.tracker.spawn(events::run(conn, address, events, close.clone())),
        };
        self.connections.insert(conn, close);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        for close in self.connections.values() {
            close.cancel();
        }
    }
}
