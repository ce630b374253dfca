//! Replicas of the services: started, watched, and replaced when they die.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_util::future::try_join_all;
use nix::sys::signal::Signal;
use tokio::{process::Command, sync::Mutex, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Error, RESTART,
    config::Config,
    pause,
    roster::{Entry, Roster},
};
use crate::{
    front::{Backend, Front, Membership, Pool},
    guard::Ending,
    postgres::ReservedPort,
    process::{Household, Process, StartLimit, describe},
    say,
};

/// Everybody leaves at once, so nobody has to be moved away: a first SIGTERM asks, a second one says "now".
const STOP: [(Signal, Duration); 3] = [
    (Signal::SIGTERM, Duration::from_secs(1)),
    (Signal::SIGTERM, Duration::from_secs(1)),
    (Signal::SIGKILL, Duration::from_secs(1)),
];

/// A replica that is replaced moves its clients away first, which takes its DRAIN_SECONDS; a second SIGTERM ends the wait.
const RETIRE: [(Signal, Duration); 2] =
    [(Signal::SIGTERM, Duration::from_secs(120)), (Signal::SIGTERM, Duration::from_secs(2))];

/// A service that has replicas.
#[derive(Debug, Clone, Copy)]
pub(super) enum Service {
    App,
    Dashboard,
    MetricGenerator,
}

impl Service {
    /// All of them, in the order of the variants.
    pub const ALL: [Self; 3] = [Self::App, Self::Dashboard, Self::MetricGenerator];

    /// The order of the start: the app migrates the database, which the others need, and a
    /// dashboard needs the generator's list of servers. If all replicas started at the same time,
    /// all would open their connections at the same time. A connection has one second, so on a busy
    /// machine most attempts time out, and the retries delay each other in the same way.
    const START_ORDER: [Self; 3] = [Self::App, Self::MetricGenerator, Self::Dashboard];

    /// The name of the program.
    pub fn name(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Dashboard => "dashboard",
            Self::MetricGenerator => "metric-generator",
        }
    }

    /// How many replicas there are to be.
    pub fn count(self, config: &Config) -> u16 {
        match self {
            Self::App => config.apps,
            Self::Dashboard => config.dashboards,
            Self::MetricGenerator => config.generators,
        }
    }

    fn pool(self, front: &Front) -> &Pool {
        match self {
            Self::App => &front.apps,
            Self::Dashboard => &front.dashboards,
            Self::MetricGenerator => &front.generators,
        }
    }
}

/// What all replicas have in common.
pub(super) struct Stage {
    pub config: Config,
    pub database_url: String,
    /// Where the front forwards to the generators.
    pub generator_url: String,
    pub front: Arc<Front>,
    pub roster: Arc<Roster>,
    pub household: Household,
    pub token: CancellationToken,
    pub hurry: CancellationToken,
    /// The next number of each service: every replica gets a name of its own.
    pub numbers: [AtomicU32; Service::ALL.len()],
    /// What makes the dashboards of today leave. Locked while they are replaced.
    pub dashboards: Mutex<CancellationToken>,
}

/// A replica that was ready once.
pub(super) struct Replica {
    stage: Arc<Stage>,
    service: Service,
    process: Process,
    place: Membership,
    /// Reserved as long as the replica runs.
    _ports: [ReservedPort; 2],
    /// Cancelled when others have come in its place.
    retire: CancellationToken,
}

impl Stage {
    /// Starts all replicas: one service after the other, the replicas of one service together.
    pub async fn all(self: &Arc<Self>, limit: &StartLimit) -> Result<Vec<Replica>, Error> {
        let dashboards = self.dashboards.lock().await.clone();
        let mut replicas = Vec::new();
        for service in Service::START_ORDER {
            let launching = (0..service.count(&self.config)).map(|_| {
                let retire = match service {
                    Service::Dashboard => dashboards.clone(),
                    Service::App | Service::MetricGenerator => CancellationToken::new(),
                };
                self.launch(service, limit, retire)
            });
            replicas.extend(try_join_all(launching).await?);
        }
        Ok(replicas)
    }

    /// A rolling update: as many new dashboards start as there are, and when all of them are ready, the old ones leave.
    pub async fn roll(self: &Arc<Self>) -> Result<Vec<Replica>, Error> {
        let mut current = self.dashboards.lock().await;
        let next = CancellationToken::new();
        let (count, limit) = (Service::Dashboard.count(&self.config), self.config.start_limit());
        let fresh = try_join_all((0..count).map(|_| self.launch(Service::Dashboard, &limit, next.clone()))).await?;
        std::mem::replace(&mut *current, next).cancel();
        Ok(fresh)
    }

    /// Starts a replica under a new name and waits until it is ready.
    async fn launch(
        self: &Arc<Self>,
        service: Service,
        limit: &StartLimit,
        retire: CancellationToken,
    ) -> Result<Replica, Error> {
        let number = self.numbers[service as usize].fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", service.name());
        let failed = |source| Error::Spawn { name: name.clone(), source };
        let mut ports = [ReservedPort::take().map_err(failed)?, ReservedPort::take().map_err(failed)?];
        let [address, admin] = ports.each_ref().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port.number())));
        ports.iter_mut().for_each(ReservedPort::hand_over);
        let command = self.command(service, &name, address, admin);
        let mut process = Process::spawn(&self.household, &name, command, Ending::Kill).map_err(failed)?;
        let mut place = service.pool(&self.front).join(Backend { address, admin });
        let ended = tokio::select! {
            status = process.wait() => Some(status),
            ready = limit.apply(place.ready()) => {
                if ready.is_none() {
                    let (limit, report) = (limit.describe().to_string(), place.report());
                    process.stop(&STOP, &self.hurry).await;
                    let tail = process.last_words().await;
                    return Err(Error::Slow { name, limit, report, tail, database: String::new() });
                }
                None
            }
        };
        if let Some(status) = ended {
            let how = status.map_or_else(|error| error.to_string(), describe);
            return Err(Error::Ended { name, how, tail: process.last_words().await });
        }
        let [url, admin] = [address, admin].map(|address| format!("http://{address}"));
        let (service_name, pid) = (service.name().to_owned(), process.pid());
        self.roster.set(Entry { service: service_name, name, pid, url, admin: Some(admin) })?;
        Ok(Replica { stage: Arc::clone(self), service, process, place, _ports: ports, retire })
    }

    fn command(&self, service: Service, name: &str, address: SocketAddr, admin: SocketAddr) -> Command {
        let mut command = Command::new(self.config.bin_dir.join(service.name()));
        command
            .env("HOST", address.ip().to_string())
            .env("PORT", address.port().to_string())
            .env("ADMIN_PORT", admin.port().to_string())
            .env("REPLICA_NAME", name)
            .env("DATABASE_URL", &self.database_url)
            .env("PAGE_DIR", &self.config.page_dir)
            // Whatever the user's shell says, it is about another database.
            .env_remove("LISTEN_DATABASE_URL")
            .env_remove("GENERATOR_URL");
        if self.config.generators > 0 {
            command.env("GENERATOR_URL", &self.generator_url);
        }
        command
    }
}

impl Replica {
    /// Replaces the replica whenever it has died, until it is retired or everything ends.
    pub async fn keep(mut self) {
        let (stage, retire) = (Arc::clone(&self.stage), self.retire.clone());
        let retired = || say::line("a dashboard that was missing has been replaced with the others");
        loop {
            let ended = tokio::select! {
                ended = self.process.wait() => ended,
                () = stage.token.cancelled() => return self.process.stop(&STOP, &stage.hurry).await,
                () = retire.cancelled() => return self.leave().await,
            };
            let how = ended.map_or_else(|error| error.to_string(), describe);
            let (name, pid, service) = (self.process.name().to_owned(), self.process.pid(), self.service);
            // Its place in the front goes now, not when the next one is there.
            drop(self);
            stage.roster.unset(&name);
            say::line(format_args!("{name} (pid {pid}) {how}; a fresh replica starts in {} s", RESTART.as_secs()));
            let began = Instant::now();
            self = loop {
                if !pause(&stage.token).await {
                    return;
                }
                if retire.is_cancelled() {
                    return retired();
                }
                let limit = stage.config.start_limit();
                match stage.token.run_until_cancelled(stage.launch(service, &limit, retire.clone())).await {
                    Some(Ok(replica)) => break replica,
                    Some(Err(error)) => say::line(error),
                    None => return, // one that was about to start is ended by the guard
                }
            };
            let (name, pid, seconds) = (self.process.name(), self.process.pid(), began.elapsed().as_secs_f32());
            say::line(format_args!("{name} (pid {pid}) is ready, {seconds:.1} s later"));
        }
    }

    /// Out of the front first: nobody new comes. Then it moves its clients away and ends.
    async fn leave(self) {
        let Self { stage, service: _, mut process, place, _ports, retire: _ } = self;
        drop(place);
        process.stop(&RETIRE, &stage.token).await;
        stage.roster.unset(process.name());
        say::line(format_args!("{} (pid {}) has left", process.name(), process.pid()));
    }
}
