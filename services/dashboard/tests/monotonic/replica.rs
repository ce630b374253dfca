//! A replica without its sockets: the real hub, and what fills it.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use dashboard::{
    hub::{Hub, Snapshot},
    servers::{
        FEED, Sample,
        channel::{Post, Servers},
    },
};
use protocol::Database as Reachable;
use tokio::{sync::oneshot, time::Instant};

use super::database::{Database, Samples};

/// Silence after which a session sends a beat.
pub const BEAT: Duration = Duration::from_secs(5);

/// Sessions that wait for a reading. Those of one query get the same one, each when its task runs.
pub type Asks = Rc<RefCell<Vec<oneshot::Sender<Option<Snapshot>>>>>;

pub struct Replica {
    pub hub: Arc<Hub>,
    pub asks: Asks,
    /// Which server of the database it reaches, by timeline; `None`: none.
    pub way: Option<usize>,
    /// What the reader shows: its newest reading, and whether the last attempt succeeded. The stream processor comes to it in its own time.
    view: Option<(Snapshot, bool)>,
    servers: Servers,
    /// The answers of the generator that have not been posted.
    answers: VecDeque<(&'static str, Option<Sample>)>,
}

impl Replica {
    pub fn new(name: String, way: Option<usize>) -> Self {
        let hub = Hub::new(name, BEAT);
        hub.update(|items| items.declare(FEED));
        let (asks, servers, answers) = (Asks::default(), Servers::default(), VecDeque::new());
        Self { hub: Arc::new(hub), asks, way, view: None, servers, answers }
    }

    /// The reader reads, and answers everyone who asked before.
    pub fn read(&mut self, database: &Database, now: Instant) {
        let reading = self.way.map(|timeline| database.read(timeline, now));
        for ask in self.asks.take() {
            // A session whose client has gone needs no answer.
            let _ = ask.send(reading.clone());
        }
        match (reading, &mut self.view) {
            (Some(reading), view) => *view = Some((reading, true)),
            (None, Some((_, up))) => *up = false,
            (None, None) => {}
        }
    }

    /// The stream processor brings into the hub what the reader shows.
    pub fn follow(&self) {
        if let Some((reading, up)) = self.view.clone() {
            self.hub.update(|items| if up { items.apply(reading) } else { items.set_database(Reachable::Down) });
        }
    }

    /// A list of the servers arrives.
    pub fn list(&mut self, samples: &Samples, now: Instant) {
        let servers = samples.list().map(str::to_owned).collect();
        self.post(Post::Listed { servers, at: now });
    }

    /// A worker asks the generator for the latest sample of its server.
    pub fn ask(&mut self, samples: &Samples, server: &'static str) {
        self.answers.push_back((server, samples.latest(server)));
    }

    /// The oldest answer arrives: other samples may have been stored since, and the server may have gone.
    pub fn answered(&mut self, now: Instant) {
        if let Some((server, sample)) = self.answers.pop_front() {
            self.post(Post::Asked { server: server.to_owned(), sample, at: now });
        }
    }

    fn post(&mut self, post: Post) {
        self.hub.update(|items| self.servers.take(post, items));
    }

    /// Everything is read, and arrives.
    pub fn catch_up(&mut self, database: &Database, samples: &Samples, now: Instant) {
        self.read(database, now);
        self.follow();
        self.list(samples, now);
        samples.list().for_each(|server| self.ask(samples, server));
        while !self.answers.is_empty() {
            self.answered(now);
        }
    }
}

/// Names of items -> version and value.
pub type Shown = BTreeMap<String, (u64, serde_json::Value)>;
