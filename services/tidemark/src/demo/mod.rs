//! `tidemark demo`: the whole system on one machine, and replicas that may be killed.

mod config;
mod database;
mod replicas;
pub(crate) mod roster;
mod summary;

use std::{io, net::Ipv4Addr, path::PathBuf, sync::Arc, time::Duration};

use runtime::Tasks;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Mutex,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

pub use config::Args;

use crate::{
    front::{self, Door, Front},
    postgres,
    process::{Household, StartLimit, Tail},
    say,
};
use config::Config;
use replicas::{Service, Stage};
use roster::{Entry, Roster};

/// How long after a death a fresh replica starts: long enough to see on the page that one is missing.
const RESTART: Duration = Duration::from_secs(3);

/// How long requests in flight may take at the end.
const FINISH: Duration = Duration::from_secs(1);

/// How long all replicas, and then the database, may take to end before the guard ends them: more than their own steps add up to.
const END: Duration = Duration::from_secs(20);

/// Why there is no demo.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program of ours has not been built.
    #[error("{} is missing: build it with `cargo build -p app -p dashboard -p metric-generator`, or name its directory with --bin-dir", .0.display())]
    Program(PathBuf),
    /// The page has not been built.
    #[error("{} has no index.html: build the page with `make page`, or name its directory with --page-dir", .0.display())]
    Page(PathBuf),
    /// Two demos cannot share a directory.
    #[error("a demo already runs here: pid {pid}, {url} (says {}); stop it first, or start this one in another directory", file.display())]
    Running {
        /// Its process.
        pid: i32,
        /// Its address.
        url: String,
        /// Where that is written.
        file: PathBuf,
    },
    /// The file that names the replicas.
    #[error("failed to write {}", path.display())]
    Roster {
        /// Which.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The port.
    #[error(transparent)]
    Front(#[from] front::Error),
    /// The database.
    #[error(transparent)]
    Database(#[from] postgres::Error),
    /// A replica could not be started.
    #[error("failed to start {name}")]
    Spawn {
        /// Which.
        name: String,
        /// What went wrong.
        source: io::Error,
    },
    /// A replica ended before it was ready.
    #[error("{name} {how} before it was ready. Its last lines:\n{tail}")]
    Ended {
        /// Which.
        name: String,
        /// How it ended.
        how: String,
        /// The last lines that it wrote.
        tail: String,
    },
    /// A replica did not become ready before its limit.
    #[error(
        "{name} was not ready within {limit} ({report}); --start-timeout sets the limit. Its last lines:\n{tail}{database}"
    )]
    Slow {
        /// Which.
        name: String,
        /// The limit of the start.
        limit: String,
        /// What `GET /readyz` answered last.
        report: String,
        /// The last lines that it wrote.
        tail: String,
        /// The last lines of the demo's own database, with a heading.
        database: String,
    },
    /// Nothing serves the address any more.
    #[error("the front ended")]
    FrontEnded,
    /// Signals, or something that the system refused.
    #[error("failed to prepare")]
    Prepare(#[source] io::Error),
}

impl Error {
    /// Adds what the demo's own database printed, which may be why a replica was not ready.
    fn with_database(mut self, tail: Option<&Tail>) -> Self {
        if let (Self::Slow { database, .. }, Some(tail)) = (&mut self, tail) {
            *database = format!("\nThe last lines of postgres:\n{}", tail.text());
        }
        self
    }
}

/// Runs until the first SIGINT or SIGTERM. A second one ends everything at once. SIGUSR1 replaces all dashboards, new ones first.
///
/// # Errors
/// [`Error`]; each says what to do. Replicas that were not ready by then are ended by the guard.
pub async fn run(args: Args, household: &Household) -> Result<(), Error> {
    let config = args.check()?;
    let limit = config.start_limit();
    // The front holds two sockets for each page.
    runtime::raise_file_limit();
    let signals = runtime::signals().map_err(Error::Prepare)?;
    let mut roll = signal(SignalKind::user_defined1()).map_err(Error::Prepare)?;
    // Before anything is started: a busy port is the commonest reason to fail.
    let listener = front::bind(config.host, config.port).await?;
    let address = listener.local_addr().map_err(Error::Prepare)?;
    let roster = Roster::create(&household.guard)?;
    let url = summary::front_url(address);
    roster.set(Entry::front(url.clone()))?;

    let (front_tasks, began) = (Tasks::default(), Instant::now());
    let front = Arc::new(Front::new(&front_tasks));
    let mut server = front_tasks.tracker.spawn(front::serve(listener, Arc::clone(&front), Door::Users));
    let internal = front::bind(Ipv4Addr::LOCALHOST.into(), 0).await?;
    let generator_url = format!("http://{}", internal.local_addr().map_err(Error::Prepare)?);
    front_tasks.tracker.spawn(front::serve(internal, Arc::clone(&front), Door::Services));
    let system = System::new(signals.hurry.clone());

    let starting = system.start(config, &limit, front, generator_url, &roster, household);
    let started = tokio::select! {
        started = starting => started.map(Some),
        () = signals.stop.cancelled() => Ok(None),
    };
    let outcome = match started {
        Ok(Some(stage)) => {
            say::line(summary::text(&url, &roster.entries(), began.elapsed()));
            loop {
                tokio::select! {
                    () = signals.stop.cancelled() => break Ok(()),
                    _ = &mut server => break Err(Error::FrontEnded),
                    _ = roll.recv() => system.roll(&stage),
                }
            }
        }
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    say::line("stopping");
    // Users first, then those who serve them, then the database.
    front_tasks.stop(FINISH).await;
    system.stop().await;
    roster.remove_file();
    outcome
}

/// Everything behind the front.
struct System {
    replicas: Tasks,
    database: Tasks,
    hurry: CancellationToken,
}

impl System {
    fn new(hurry: CancellationToken) -> Self {
        Self { replicas: Tasks::default(), database: Tasks::default(), hurry }
    }

    /// Starts the database and all replicas, and returns when they are ready; they are then looked after until [`System::stop`].
    async fn start(
        &self,
        config: Config,
        limit: &StartLimit,
        front: Arc<Front>,
        generator_url: String,
        roster: &Arc<Roster>,
        household: &Household,
    ) -> Result<Arc<Stage>, Error> {
        let (database_url, database_tail) = match config.database_url.clone() {
            Some(url) => (url, None),
            None => {
                say::line("starting Postgres");
                let database = database::Database::start(config.postgres.clone(), limit, roster, household).await?;
                let (url, tail) = (database.url(), database.tail_handle());
                self.database.tracker.spawn(database.keep(self.database.token.clone(), self.hurry.clone()));
                (url, Some(tail))
            }
        };
        let counts = Service::ALL.map(|service| format!("{} x {}", service.count(&config), service.name()));
        say::line(format_args!("starting {}", counts.join(", ")));
        let stage = Stage {
            config,
            database_url,
            generator_url,
            front,
            roster: Arc::clone(roster),
            household: household.clone(),
            token: self.replicas.token.clone(),
            hurry: self.hurry.clone(),
            numbers: [const { std::sync::atomic::AtomicU32::new(1) }; Service::ALL.len()],
            dashboards: Mutex::default(),
        };
        let stage = Arc::new(stage);
        let replicas = stage.all(limit).await.map_err(|error| error.with_database(database_tail.as_ref()))?;
        for replica in replicas {
            self.replicas.tracker.spawn(replica.keep());
        }
        Ok(stage)
    }

    /// Replaces all dashboards. Meanwhile everything goes on, so that it can be ended.
    fn roll(&self, stage: &Arc<Stage>) {
        say::line("replacing all dashboards, new ones first");
        let (stage, tracker) = (Arc::clone(stage), self.replicas.tracker.clone());
        self.replicas.tracker.spawn(async move {
            match stage.token.run_until_cancelled(stage.roll()).await {
                Some(Ok(fresh)) => fresh.into_iter().for_each(|replica| drop(tracker.spawn(replica.keep()))),
                Some(Err(error)) => say::line(format_args!("the old dashboards stay: {error}")),
                None => {} // those that were about to start are ended by the guard
            }
        });
    }

    async fn stop(&self) {
        self.replicas.stop(END).await;
        self.database.stop(END).await;
    }
}

/// What the parts wait for between a death and the next start: false if everything ends meanwhile.
async fn pause(token: &CancellationToken) -> bool {
    token.run_until_cancelled(tokio::time::sleep(RESTART)).await.is_some()
}
