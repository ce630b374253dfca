//! Replicas, clients and what lies between them: every step of the test is one thing that happens somewhere.

use std::time::Duration;

use protocol::{
    Feeds, Transport,
    client::{Effect, Event, Status},
    close,
};
use tokio::time::{Instant, advance};

use super::{
    client::Client,
    connection::{Connection, frames},
    database::{Database, FEEDS, SERVERS, Samples},
    replica::{Replica, Shown},
    step::Step,
};

/// What each client asks for.
const CLIENTS: [&str; 4] = ["texts,visitors,servers", "texts", "servers,visitors", "servers:a,texts"];
const REPLICAS: usize = 3;
/// Within this many ms of quiet everybody is connected and knows everything. Two rounds of the longest wait, with their time for an answer.
const QUIET_MS: u64 = 2 * (protocol::client::BACKOFF_CAP_MS + 2 * protocol::client::ANSWER_MS);

pub struct World {
    began: Instant,
    database: Database,
    samples: Samples,
    replicas: Vec<Replica>,
    clients: Vec<Client>,
    connections: Vec<Connection>,
    random: u64,
    restarts: usize,
}

impl World {
    /// Everybody is connected and knows everything.
    pub async fn new(seed: u64) -> Self {
        let (database, mut samples) = (Database::new(), Samples::default());
        SERVERS[..2].iter().for_each(|server| samples.sample(server));
        let replicas = (0..REPLICAS).map(|n| Replica::new(format!("r{n}"), Some(1))).collect();
        let clients = CLIENTS.map(Client::new).into();
        let began = Instant::now();
        let mut world =
            Self { began, database, samples, replicas, clients, connections: Vec::new(), random: seed, restarts: 0 };
        world.settle().await;
        world
    }

    pub async fn step(&mut self, step: Step) {
        // No two things happen at the same moment; readings above all.
        self.wait(1).await;
        match step {
            Step::Write { feed } => self.database.write(self.database.timeline(), pick(&FEEDS, feed)),
            Step::WriteToOld { feed, timeline } => {
                self.database.write(1 + timeline as usize % self.database.timeline(), pick(&FEEDS, feed));
            }
            Step::Replicate => self.database.replicate(),
            Step::Promote => {
                self.database.promote();
                // Whoever reached the primary by name reaches the new one.
                let promoted = self.database.timeline();
                for replica in &mut self.replicas {
                    replica.way =
                        replica.way.map(|timeline| if timeline + 1 == promoted { promoted } else { timeline });
                }
            }
            Step::LoseCommits { commits } => self.database.lose(commits.into()),
            Step::Lead { replica, timeline } => {
                let timeline = 1 + timeline as usize % self.database.timeline();
                self.replica(replica).way = Some(timeline);
            }
            Step::Cut { replica } => self.replica(replica).way = None,
            Step::Read { replica } => {
                let index = replica as usize % REPLICAS;
                self.replicas[index].read(&self.database, Instant::now());
            }
            Step::Follow { replica } => self.replica(replica).follow(),
            Step::Sample { server } => self.samples.sample(pick(&SERVERS, server)),
            Step::EndServer { server } => self.samples.end(pick(&SERVERS, server)),
            Step::List { replica } => {
                self.replicas[replica as usize % REPLICAS].list(&self.samples, Instant::now());
            }
            Step::Ask { replica, server } => {
                self.replicas[replica as usize % REPLICAS].ask(&self.samples, pick(&SERVERS, server));
            }
            Step::Answered { replica } => self.replica(replica).answered(Instant::now()),
            Step::Restart { replica, arrives } => self.restart(replica as usize % REPLICAS, arrives as usize),
            Step::Serve { connection } => {
                self.with_connection(connection, |connection, replica| _ = connection.serve(replica));
            }
            Step::Beat { connection } => self.with_connection(connection, Connection::beat),
            Step::Move { connection } => self.with_connection(connection, |connection, _| connection.ask_to_move()),
            Step::Lose { connection, arrives } => self.with_connection(connection, |connection, _| {
                connection.lose(arrives as usize, close::ABNORMAL);
            }),
            Step::Deliver { connection } => {
                if !self.connections.is_empty() {
                    self.deliver(connection as usize % self.connections.len());
                }
            }
            Step::Converse { client } => self.converse(client as usize % CLIENTS.len()),
            Step::Wait { ms } => self.wait(ms.into()).await,
            Step::Nudge { client } => self.tell(client as usize % CLIENTS.len(), Event::Nudge),
            Step::Stop { client } => self.tell(client as usize % CLIENTS.len(), Event::Stop),
            Step::Start { client } => self.tell(client as usize % CLIENTS.len(), Event::Start),
        }
    }

    /// No more changes, and nothing is in the way: everybody ends with what is true.
    pub async fn end(&mut self) {
        self.settle().await;
        let truth: Shown = self.database.truth().into_iter().chain(self.samples.truth()).collect();
        let all = Feeds::parse("texts,visitors,servers").unwrap();
        for (index, replica) in self.replicas.iter().enumerate() {
            let mut items = Shown::new();
            let known = replica.hub.greet(&all, None, false, Transport::WebSocket).first;
            for frame in frames(&known, Transport::WebSocket) {
                if let protocol::Frame::Set(set) = frame {
                    assert_eq!(set.complete, ["servers"], "replica {index}");
                    let item =
                        |item: protocol::Item| (format!("{}:{}", item.feed, item.key), (item.version, item.value));
                    items.extend(set.items.into_iter().map(item));
                }
            }
            assert_eq!(items, truth, "replica {index}");
        }
        for (index, client) in self.clients.iter().enumerate() {
            let feeds = Feeds::parse(client.feeds).unwrap();
            let asked_for = |name: &str| name.split_once(':').is_some_and(|(feed, key)| feeds.contains(feed, key));
            let truth = truth.iter().filter(|(name, _)| asked_for(name));
            assert_eq!(
                client.shown(),
                truth.map(|(name, item)| (name.clone(), item.clone())).collect(),
                "client {index}"
            );
            let open =
                self.connections.iter().filter(|connection| connection.client == index && !connection.closed).count();
            assert_eq!(open, 1, "connections of client {index}");
            let values = &client.machine.values;
            assert_eq!(
                values.history.as_ref().map(|history| history.timeline as usize),
                Some(self.database.timeline())
            );
            assert_eq!(values.database, protocol::Database::Up, "client {index}");
        }
    }

    /// Every replica reaches the primary and knows everything; every client wants values, gets a connection, and everything that is on it.
    async fn settle(&mut self) {
        let timeline = self.database.timeline();
        for replica in &mut self.replicas {
            replica.way = Some(timeline);
            replica.catch_up(&self.database, &self.samples, Instant::now());
        }
        for client in 0..self.clients.len() {
            self.tell(client, Event::Start);
        }
        for _ in 0..QUIET_MS / 10 {
            for client in 0..self.clients.len() {
                self.converse(client);
            }
            if self.clients.iter().all(|client| client.machine.status() == Status::Live) {
                return;
            }
            self.wait(10).await;
            self.replicas.iter_mut().for_each(|replica| replica.read(&self.database, Instant::now()));
        }
        let states: Vec<_> = self.clients.iter().map(|client| &client.machine).collect();
        panic!("not everybody is live after {QUIET_MS} ms of quiet: {states:#?}");
    }

    /// Both ends of all connections of a client go on until nothing is left to say.
    fn converse(&mut self, client: usize) {
        while let Some(index) = (0..self.connections.len()).find(|index| {
            let connection = &mut self.connections[*index];
            connection.client == client
                && (connection.serve(&self.replicas[connection.replica]) || connection.has_more())
        }) {
            self.deliver(index);
        }
    }

    fn deliver(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let (client, closed) = (connection.client, connection.closed);
        let event = connection.deliver();
        if connection.is_over() {
            self.connections.remove(index);
        }
        match event {
            Some(event) if closed => {
                let (now, random) = (self.now(), self.random());
                self.clients[client].late(now, event, random);
            }
            Some(event) => self.tell(client, event),
            None => {}
        }
    }

    /// An event for a client's machine, and what it wants done.
    fn tell(&mut self, client: usize, event: Event) {
        let (now, random) = (self.now(), self.random());
        let effects = self.clients[client].step(now, event, random, &self.database);
        for effect in effects {
            match effect {
                Effect::Open { conn, transport, since } => {
                    let replica = (self.random() * REPLICAS as f64) as usize;
                    let feeds = self.clients[client].feeds;
                    self.connections.push(Connection::new((client, conn), replica, feeds, transport, since.as_deref()));
                }
                Effect::Close { conn } => {
                    let is = |connection: &&mut Connection| connection.client == client && connection.conn == conn;
                    if let Some(connection) = self.connections.iter_mut().find(is) {
                        connection.closed = true;
                    }
                }
                Effect::Items { .. } | Effect::Handover { .. } => {}
            }
        }
    }

    /// The process ends, and another one with an empty hub takes its place.
    fn restart(&mut self, index: usize, arrives: usize) {
        for connection in self.connections.iter_mut().filter(|connection| connection.replica == index) {
            connection.lose(arrives, close::RESTART);
        }
        self.restarts += 1;
        self.replicas[index] = Replica::new(format!("r{index}-{}", self.restarts), self.replicas[index].way);
    }

    async fn wait(&mut self, ms: u64) {
        let until = self.now() + ms;
        loop {
            let due = |client: &Client| client.machine.wake_at().filter(|at| *at <= until);
            let next = (0..self.clients.len()).filter_map(|index| Some((due(&self.clients[index])?, index))).min();
            let Some((at, client)) = next else { break };
            advance(Duration::from_millis(at.saturating_sub(self.now()))).await;
            self.tell(client, Event::Tick);
        }
        advance(Duration::from_millis(until.saturating_sub(self.now()))).await;
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// The next number in [0, 1) of a sequence that the seed determines (Knuth's MMIX generator).
    fn random(&mut self) -> f64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn replica(&mut self, index: u8) -> &mut Replica {
        &mut self.replicas[index as usize % REPLICAS]
    }

    fn with_connection(&mut self, index: u8, act: impl FnOnce(&mut Connection, &Replica)) {
        if !self.connections.is_empty() {
            let index = index as usize % self.connections.len();
            let connection = &mut self.connections[index];
            act(connection, &self.replicas[connection.replica]);
        }
    }
}

fn pick<'a>(names: &[&'a str], index: u8) -> &'a str {
    names[index as usize % names.len()]
}
