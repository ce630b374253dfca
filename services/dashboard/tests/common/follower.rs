//! A client as programs have one: the real machine in a thin shell around the sockets of [`Client`], which remembers what it has shown.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use protocol::{
    Frame,
    client::{Conn, Effect, Event, Machine, Status, Values},
    close,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Duration, Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Client, Got, memory::Memory};

/// Timeline, item and version -> the value that somebody was shown. Nobody may be shown another one.
pub type Ledger = Arc<Mutex<BTreeMap<(u32, String, u64), Value>>>;

/// What a test can do to a follower.
#[derive(Debug)]
pub enum Order {
    /// Its connections break.
    Break,
    /// Its network came back.
    Nudge,
}

/// A running client.
pub struct Follower {
    pub orders: mpsc::UnboundedSender<Order>,
    pub shown: watch::Receiver<(Status, Values)>,
    token: CancellationToken,
    task: JoinHandle<()>,
}

impl Follower {
    /// Follows these feeds as a visitor, on any of the replicas.
    pub fn start(replicas: watch::Receiver<Vec<SocketAddr>>, feeds: &str, seed: u64, ledger: Ledger) -> Self {
        let (orders, ordered) = mpsc::unbounded_channel();
        let (events, arrived) = mpsc::unbounded_channel();
        let (shown, showing) = watch::channel((Status::Idle, Values::default()));
        let token = CancellationToken::new();
        let shell = Shell {
            machine: Machine::default(),
            memory: Memory::default(),
            replicas,
            query: format!("feeds={feeds}&visit={}", Uuid::new_v4()),
            random: StdRng::seed_from_u64(seed),
            began: Instant::now(),
            connections: BTreeMap::new(),
            events,
            ledger,
            shown,
        };
        let task = tokio::spawn(shell.run(arrived, ordered, token.clone()));
        Self { orders, shown: showing, token, task }
    }

    /// Ends it. A follower that was shown something wrong fails the test here.
    pub async fn stop(self) {
        self.token.cancel();
        self.task.await.unwrap();
    }

    /// Whether it has been shown something wrong already.
    pub fn has_failed(&self) -> bool {
        self.task.is_finished()
    }
}

struct Shell {
    machine: Machine,
    memory: Memory,
    replicas: watch::Receiver<Vec<SocketAddr>>,
    query: String,
    random: StdRng,
    began: Instant,
    connections: BTreeMap<Conn, CancellationToken>,
    events: mpsc::UnboundedSender<Event>,
    ledger: Ledger,
    shown: watch::Sender<(Status, Values)>,
}

impl Shell {
    async fn run(
        mut self,
        mut arrived: mpsc::UnboundedReceiver<Event>,
        mut ordered: mpsc::UnboundedReceiver<Order>,
        token: CancellationToken,
    ) {
        self.step(Event::Start);
        loop {
            let wake = self.machine.wake_at().map(|at| self.began + Duration::from_millis(at));
            tokio::select! {
                () = token.cancelled() => break,
                Some(event) = arrived.recv() => self.step(event),
                Some(order) = ordered.recv() => match order {
                    Order::Nudge => self.step(Event::Nudge),
                    Order::Break => {
                        for (conn, socket) in std::mem::take(&mut self.connections) {
                            socket.cancel();
                            self.step(Event::Closed { conn, code: close::ABNORMAL, reason: String::new() });
                        }
                    }
                },
                () = sleep_until(wake.unwrap_or(self.began)), if wake.is_some() => self.step(Event::Tick),
            }
        }
        self.step(Event::Stop);
    }

    fn step(&mut self, event: Event) {
        let of = match &event {
            Event::Frame { conn, .. } | Event::Closed { conn, .. } => Some(*conn),
            _ => None,
        };
        let is_late =
            matches!(event, Event::Frame { .. }) && of.is_some_and(|conn| !self.connections.contains_key(&conn));
        let before = is_late.then(|| format!("{:?}", self.machine.values));
        if let Event::Closed { conn, .. } = &event {
            self.connections.remove(conn);
        }
        let effects = self.machine.step(self.began.elapsed().as_millis() as u64, event, self.random.random());
        if let Some(before) = before {
            assert!(effects.is_empty(), "a closed connection has effects: {effects:?}");
            assert_eq!(before, format!("{:?}", self.machine.values), "something is applied from a closed connection");
        }
        for effect in effects {
            match effect {
                // The frames are the same on both transports; this shell knows one.
                Effect::Open { conn, since, transport: _ } => self.open(conn, since.as_deref()),
                Effect::Close { conn } => drop(self.connections.remove(&conn).map(|socket| socket.cancel())),
                Effect::Items { .. } | Effect::Handover { .. } => {}
            }
        }
        self.look();
    }

    fn open(&mut self, conn: Conn, since: Option<&str>) {
        let since = since.map(|since| format!("&since={since}")).unwrap_or_default();
        let query = format!("{}&n={conn}{since}", self.query);
        let replica = {
            let replicas = self.replicas.borrow();
            replicas[self.random.random_range(0..replicas.len())]
        };
        let socket = CancellationToken::new();
        tokio::spawn(socket.clone().run_until_cancelled_owned(carry(conn, replica, query, self.events.clone())));
        self.connections.insert(conn, socket);
    }

    fn look(&mut self) {
        let values = &self.machine.values;
        self.memory.look(values, false);
        if let Some(history) = &values.history {
            let mut ledger = self.ledger.lock().unwrap();
            for (name, known) in &values.items {
                let value =
                    ledger.entry((history.timeline, name.clone(), known.version)).or_insert(known.value.clone());
                assert_eq!(*value, known.value, "two values of {name} {} in {history:?}", known.version);
            }
        }
        self.shown.send_replace((self.machine.status(), values.clone()));
    }
}

/// Brings what arrives on one connection to its shell.
async fn carry(conn: Conn, replica: SocketAddr, query: String, events: mpsc::UnboundedSender<Event>) {
    let mut end = (close::ABNORMAL, String::new());
    if let Ok(mut client) = Client::connect(replica, &query, &[]).await {
        loop {
            match client.next().await {
                Got::Json(json) => {
                    let frame = Frame::parse(json.to_string().as_bytes());
                    // A shell that has ended needs nothing more.
                    let _ = events.send(Event::Frame { conn, frame });
                }
                Got::Close(code, reason) => break end = (code, reason),
                Got::Pong(_) | Got::End => break,
            }
        }
    }
    let (code, reason) = end;
    let _ = events.send(Event::Closed { conn, code, reason });
}
