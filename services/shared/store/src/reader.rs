//! Holds the newest value of every feed. One task owns one connection; the decisions are in [`crate::pace`].

use std::{collections::BTreeMap, mem::Discriminant, sync::Arc, time::Duration};

use sqlx::PgConnection;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::yield_now,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    DatabaseUrl, Doorbell, FeedProblem, Intervals, Path, ReaderMetrics, Reading,
    connection::{self, connect},
    doorbell::{COMMANDS, Command, Ear},
    folding::Folding,
    metrics::FoldOutcome,
    pace::{Pace, Request, Seen, Step},
    reading::{self, FOLD_LIMIT, QueryError},
};

/// A read takes 0.1 ms. One that takes as long as the poll interval is given up with its connection.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// How long [`Reader::reread`] waits: a read that hangs when it is called is given up within this time.
const REREAD_TIMEOUT: Duration = READ_TIMEOUT;

/// The connection that listens takes 0.2 ms for a request. One that takes as long as this is refused: the reader reads on.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(500);

/// Callers of [`Reader::reread`] that wait in line. More than these wait for a place, within the same bound of time.
const ASK_QUEUE: usize = 1024;

/// What a reader needs to know.
#[derive(Debug, Clone)]
pub struct ReaderConfig {
    /// Where to read.
    pub database: DatabaseUrl,
    /// Where to listen: the same server without a transaction pooler in between.
    pub listen: DatabaseUrl,
    /// The name that the server's administrator sees, for example `dashboard-1`.
    pub application_name: String,
    /// How often to read.
    pub intervals: Intervals,
}

impl ReaderConfig {
    /// Reads and listens at one address, at the default intervals.
    #[must_use]
    pub fn new(database: DatabaseUrl, application_name: impl Into<String>) -> Self {
        let listen = database.clone();
        Self { database, listen, application_name: application_name.into(), intervals: Intervals::default() }
    }
}

/// What a reader knows.
#[derive(Debug, Clone)]
pub struct View {
    /// The last reading that succeeded. It stays while the database is down, and becomes older.
    pub reading: Option<Arc<Reading>>,
    /// Whether the last read succeeded.
    pub database_up: bool,
    /// The state of the doorbell.
    pub doorbell: Doorbell,
    /// What the reader does between changes.
    pub rest: Rest,
}

/// What a reader with a working doorbell does between changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Values move, or did a moment ago.
    None,
    /// It waits for a bell.
    Asleep,
    /// Nothing moves, but a transaction that has written is open, or somebody holds its lock: it reads every 200 ms.
    KeptAwake,
}

/// Why there is no new reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The database did not answer in time.
    #[error("failed to read within {REREAD_TIMEOUT:?}")]
    TimedOut,
    /// The read failed. The reader has logged why.
    #[error("failed to read")]
    Failed,
    /// The reader has ended.
    #[error("the reader has ended")]
    Ended,
}

type Answer = Result<Arc<Reading>, Unavailable>;

/// A handle on the reader's tasks; clones share them.
#[derive(Debug, Clone)]
pub struct Reader {
    view: watch::Receiver<View>,
    asks: mpsc::Sender<oneshot::Sender<Answer>>,
}

impl Reader {
    /// Starts the tasks in `tracker`. They need no database to start, and end within one second of the token.
    pub fn start(
        config: ReaderConfig,
        metrics: ReaderMetrics,
        tracker: &TaskTracker,
        token: CancellationToken,
    ) -> Self {
        let ReaderConfig { database, listen, application_name, intervals } = config;
        let (view_sender, view) = watch::channel(View {
            reading: None,
            database_up: false,
            doorbell: Doorbell::Connecting,
            rest: Rest::None,
        });
        let (asks, asked) = mpsc::channel(ASK_QUEUE);
        let (state, doorbell) = watch::channel(Doorbell::Connecting);
        let (bell, rebuild) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (command_sender, commands) = mpsc::channel(COMMANDS);

        let ear = Ear {
            database: database.clone(),
            listen,
            application_name: application_name.clone(),
            state,
            bell: bell.clone(),
            rebuild: rebuild.clone(),
            commands,
            metrics: metrics.clone(),
        };
        tracker.spawn(ear.run(token.clone()));

        let pace = Pace::new(intervals, Instant::now(), rand::random());
        let owner = Owner {
            database,
            application_name,
            metrics,
            pace,
            connection: None,
            view: view_sender,
            asked,
            waiting: Vec::new(),
            doorbell,
            bell,
            rebuild,
            commands: command_sender,
            problems: BTreeMap::new(),
            folding: Folding::new(Instant::now(), rand::random()),
            trouble: None,
        };
        tracker.spawn(owner.run(token));
        Self { view, asks }
    }

    /// The view, now and whenever there is another reading or another state. It closes when the reader ends.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// A reading whose query began after this call. Callers at the same time share one query.
    ///
    /// # Errors
    /// [`Unavailable`], after two seconds at the latest.
    pub async fn reread(&self) -> Result<Arc<Reading>, Unavailable> {
        let ask = async {
            let (answer, answered) = oneshot::channel();
            self.asks.send(answer).await.map_err(|_| Unavailable::Ended)?;
            answered.await.map_err(|_| Unavailable::Ended)?
        };
        timeout(REREAD_TIMEOUT, ask).await.unwrap_or(Err(Unavailable::TimedOut))
    }
}

/// The task that owns the connection and publishes the view.
struct Owner {
    database: DatabaseUrl,
    application_name: String,
    metrics: ReaderMetrics,
    pace: Pace,
    connection: Option<PgConnection>,
    view: watch::Sender<View>,
    asked: mpsc::Receiver<oneshot::Sender<Answer>>,
    waiting: Vec<oneshot::Sender<Answer>>,
    doorbell: watch::Receiver<Doorbell>,
    bell: Arc<Notify>,
    rebuild: Arc<Notify>,
    /// To the connection that listens.
    commands: mpsc::Sender<Command>,
    /// Feeds that were not right when that was checked last.
    problems: BTreeMap<String, FeedProblem>,
    folding: Folding,
    /// How the last read failed, if it did.
    trouble: Option<Discriminant<QueryError>>,
}

impl Owner {
    async fn run(mut self, token: CancellationToken) {
        token.run_until_cancelled(self.run_forever()).await;
        connection::close(self.connection.take()).await;
    }

    async fn run_forever(&mut self) {
        loop {
            let (at, step) = self.pace.next();
            let fold = self.folding.next();
            let now = Instant::now();
            // A timer counts in whole milliseconds, so even one that is due takes one: a bell must not wait for it.
            if at <= now {
                self.step(step).await;
                continue;
            }
            if fold.is_some_and(|fold| fold <= now) {
                self.fold().await;
                continue;
            }
            tokio::select! {
                // In this order, so that neither many bells nor many callers can delay a read that is due.
                biased;
                () = sleep_until(fold.map_or(at, |fold| at.min(fold))) => {}
                Ok(()) = self.doorbell.changed() => self.doorbell_changed(),
                () = self.bell.notified() => self.pace.bell(Instant::now()),
                Some(answer) = self.asked.recv() => {
                    self.waiting.push(answer);
                    self.pace.asked(Instant::now());
                }
            }
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Read(path) => self.look(path, Request::None).await,
            Step::RequestAndRead => {
                let request = self.request().await;
                self.look(Path::Bell, request).await;
            }
            Step::Rebuild => {
                self.metrics.missed_bells.inc();
                self.pace.rebuilding();
                self.rebuild.notify_one();
            }
        }
    }

    /// Asks the next writer to ring.
    async fn request(&mut self) -> Request {
        let (answer, answered) = oneshot::channel();
        let ask = async {
            self.commands.send(Command::Request(answer)).await.ok()?;
            answered.await.ok()
        };
        let granted = timeout(REQUEST_TIMEOUT, ask).await.ok().flatten().unwrap_or_default();
        self.metrics.requests(granted).inc();
        if granted { Request::Granted } else { Request::Refused }
    }

    fn doorbell_changed(&mut self) {
        let doorbell = *self.doorbell.borrow_and_update();
        self.pace.doorbell(Instant::now(), doorbell == Doorbell::Listening);
        self.view.send_modify(|view| (view.doorbell, view.rest) = (doorbell, Rest::None));
    }

    /// Reads, publishes, and answers everyone who asked before the query began.
    async fn look(&mut self, path: Path, request: Request) {
        while let Ok(answer) = self.asked.try_recv() {
            self.waiting.push(answer);
        }
        let waiting = std::mem::take(&mut self.waiting);
        let answer = match self.read(path).await {
            Ok(reading) => Ok(self.publish(reading, request)),
            Err(error) => {
                self.fail(&error);
                Err(Unavailable::Failed)
            }
        };
        for waiter in waiting {
            // A caller that has given up needs no answer.
            let _ = waiter.send(answer.clone());
        }
        // Those who were told pass it on before the next query: who finds it with them need not ask for another.
        yield_now().await;
    }

    /// On any failure the connection is dropped: whatever it was doing, it does not get into the way of the next read.
    async fn read(&mut self, path: Path) -> Result<Reading, QueryError> {
        let mut connection = self.connect().await?;
        let timer = self.metrics.read_seconds.start_timer();
        let check_problems = matches!(path, Path::Start | Path::Poll);
        let read = reading::read(&mut connection, path, check_problems);
        let mut reading = timeout(READ_TIMEOUT, read).await.map_err(|_| QueryError::TimedOut)??;
        timer.observe_duration();
        if check_problems && reading.has_new_problem() {
            let kept = timeout(READ_TIMEOUT, reading::keep_problems(&mut connection)).await;
            kept.map_err(|_| QueryError::TimedOut)??;
        }
        self.connection = Some(connection);
        self.complete(&mut reading, check_problems);
        Ok(reading)
    }

    async fn connect(&mut self) -> Result<PgConnection, QueryError> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => Ok(connect(&self.database, &format!("{} read", self.application_name)).await?),
        }
    }

    /// Adds what the last check found to a reading without one, and takes over what this one found.
    fn complete(&mut self, reading: &mut Reading, checked: bool) {
        let earlier = self.view.borrow().reading.clone();
        for feed in &mut reading.feeds {
            let before = self.problems.get(&feed.name).copied();
            if !checked && before.is_some() {
                // Of two problems the check names the first one.
                feed.problem = before;
            }
            if feed.problem != before {
                self.metrics.problem(&feed.name, before, feed.problem);
                match feed.problem {
                    Some(problem) => {
                        warn!(
                            feed = feed.name,
                            problem = problem.as_str(),
                            "the count of a table is not right any more"
                        );
                        self.problems.insert(feed.name.clone(), problem);
                    }
                    None => {
                        info!(feed = feed.name, "the count of a table is right again");
                        self.problems.remove(&feed.name);
                    }
                }
            }
        }
        let is_gone = |name: &String| !reading.feeds.iter().any(|feed| feed.name == *name);
        for (name, problem) in self.problems.extract_if(.., |name, _| is_gone(name)) {
            self.metrics.problem(&name, Some(problem), None);
        }
        reading.know(earlier.as_deref());
    }

    fn publish(&mut self, reading: Reading, request: Request) -> Arc<Reading> {
        let reading = Arc::new(reading);
        let (before, was_up) = {
            let view = self.view.borrow();
            (view.reading.clone(), view.database_up)
        };
        let seen = Seen {
            moved: before.as_ref().is_none_or(|before| reading.moved_since(before)),
            newer: before.as_ref().is_some_and(|before| reading.newer_than(before)),
            unannounced: reading.unannounced,
        };
        self.pace.read(reading.at, seen, request);
        if seen.moved {
            // Writers need not ring while it reads on. If the connection is busy or away, they ring once more than they need.
            let _ = self.commands.try_send(Command::Cancel);
        }
        self.folding.read(Instant::now(), reading.pending);
        self.metrics.reads(reading.path).inc();
        if seen.newer {
            self.metrics.changes(reading.path).inc();
        }
        self.metrics.database_up.set(1);
        self.metrics.queue_usage.set(reading.queue_usage);
        self.metrics.pending.set(i64::try_from(reading.pending).unwrap_or(i64::MAX));
        self.trouble = None;
        if !was_up {
            info!(
                store = reading.history.store,
                timeline = reading.history.timeline,
                "reading feeds from the database"
            );
        }
        let rest = if self.pace.is_asleep() {
            Rest::Asleep
        } else if self.pace.is_kept_awake() {
            Rest::KeptAwake
        } else {
            Rest::None
        };
        self.view.send_modify(|view| {
            view.reading = Some(reading.clone());
            view.database_up = true;
            view.rest = rest;
        });
        reading
    }

    /// Adds deltas to their bases. If it fails, the next reading only takes longer.
    async fn fold(&mut self) {
        let fold = async {
            let mut connection = self.connect().await?;
            let folded = reading::fold(&mut connection).await?;
            self.connection = Some(connection);
            Ok(folded)
        };
        let folded = match timeout(READ_TIMEOUT, fold).await.map_err(|_| QueryError::TimedOut) {
            Ok(folded) => folded,
            Err(error) => Err(error),
        };
        let outcome = match &folded {
            Ok(Some(_)) => FoldOutcome::Folded,
            Ok(None) => FoldOutcome::Busy,
            Err(error) => {
                warn!(
                    error = error as &dyn std::error::Error,
                    "deltas cannot be added to their bases; reading takes longer"
                );
                FoldOutcome::Failed
            }
        };
        self.metrics.folds(outcome).inc();
        self.folding.folded(Instant::now(), folded.is_ok_and(|folded| folded == Some(FOLD_LIMIT)));
    }

    fn fail(&mut self, error: &QueryError) {
        self.pace.failed(Instant::now());
        if matches!(error, QueryError::TimedOut) {
            // There may be so many deltas that they cannot be added in time: some millions, if nobody read for long.
            self.folding.read(Instant::now(), u64::MAX);
        }
        self.metrics.read_failures.inc();
        self.metrics.database_up.set(0);
        // Once per kind of trouble, not twice a second.
        let kind = std::mem::discriminant(error);
        if self.trouble.replace(kind) != Some(kind) {
            let error_chain = error as &dyn std::error::Error;
            match error {
                QueryError::NotReady => info!("the database has no schema yet, waiting for its migration"),
                _ => warn!(error = error_chain, "the database cannot be read, trying again every 500 ms"),
            }
        }
        self.view.send_if_modified(|view| {
            view.rest = Rest::None;
            std::mem::replace(&mut view.database_up, false)
        });
    }
}
