//! The doorbell: a LISTEN connection that is proven to work, watched, and built anew when it does not.

use std::{sync::Arc, time::Duration};

use rand::RngExt;
use sqlx::{
    Acquire, AssertSqlSafe, Connection, PgExecutor, Row,
    postgres::{PgListener, PgPoolOptions},
};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::{
    DatabaseError, DatabaseUrl, ReaderMetrics,
    connection::{self, CONNECT_TIMEOUT, ConnectError},
    transaction,
};

/// The channel that writers notify; the payload is the feed's name.
const CHANNEL: &str = "tidemark";

/// Silence on the LISTEN connection after which it is probed. With [`PROBE_TIMEOUT`] a connection that is dead without a sign
/// is noticed within 7 s, which leaves 3 s to build another.
const PROBE_AFTER: Duration = Duration::from_secs(4);
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// A notification takes milliseconds, so one that takes a second never comes.
const SELF_TEST_TIMEOUT: Duration = Duration::from_secs(1);

/// Comparisons of two sessions that look for a pooler. PgBouncer hands out the server connection that was used last, so that
/// the first one finds it; one that hands them out in turn needs more.
const POOLER_CHECKS: usize = 3;

/// Nobody reconfigures a pooler more often than this.
const SELF_TEST_RETRY: Duration = Duration::from_secs(30);

/// Waits before another attempt are random up to a bound that doubles from the first to the last of these.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// The state of the doorbell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doorbell {
    /// The first connection is being made.
    Connecting,
    /// Bells arrive; that was tested.
    Listening,
    /// LISTEN is accepted but nothing arrives: a pooler in between eats notifications. Reads replace it, every 200 ms.
    Swallowed,
    /// The connection is lost and another is being made.
    Lost,
}

impl Doorbell {
    pub(crate) const ALL: [Self; 4] = [Self::Connecting, Self::Listening, Self::Swallowed, Self::Lost];

    /// The name in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Listening => "listening",
            Self::Swallowed => "swallowed",
            Self::Lost => "lost",
        }
    }
}

/// What the reader asks of the connection that listens.
#[derive(Debug)]
pub(crate) enum Command {
    /// Ask the next writer to ring; the answer is whether it will. Without an answer it will not.
    Request(oneshot::Sender<bool>),
    /// The reader reads again: writers need not ring.
    Cancel,
}

/// Commands that wait for the connection. The reader waits for the answer to each request.
pub(crate) const COMMANDS: usize = 4;

/// The task's side of the doorbell.
pub(crate) struct Ear {
    /// Where bells are rung: through a pooler, perhaps.
    pub database: DatabaseUrl,
    /// Where bells are heard.
    pub listen: DatabaseUrl,
    pub application_name: String,
    pub state: watch::Sender<Doorbell>,
    /// Rung for each bell. Bells are all alike, so those that nobody has heard yet merge.
    pub bell: Arc<Notify>,
    /// Rung by the reader when a bell must have been lost.
    pub rebuild: Arc<Notify>,
    pub commands: mpsc::Receiver<Command>,
    pub metrics: ReaderMetrics,
}

#[derive(Debug, thiserror::Error)]
enum ListenError {
    #[error("failed to listen")]
    Listen(#[source] DatabaseError),
    #[error("failed to listen within {CONNECT_TIMEOUT:?}")]
    ListenTimedOut,
    #[error("failed to ring the bell of the self-test")]
    Connect(#[source] ConnectError),
    #[error("failed to ring the bell of the self-test")]
    Ring(#[source] DatabaseError),
    #[error("failed to ring the bell of the self-test within {SELF_TEST_TIMEOUT:?}")]
    RingTimedOut,
    #[error("the server closed the connection")]
    Closed,
    #[error("failed to receive")]
    Receive(#[source] DatabaseError),
    #[error("the connection did not answer a probe within {PROBE_TIMEOUT:?}")]
    ProbeTimedOut,
    #[error("a change was found that no bell had announced")]
    MissedBell,
    #[error("failed to request a notification")]
    Request(#[source] DatabaseError),
}

impl Ear {
    /// Listens until the token is cancelled.
    pub(crate) async fn run(self, token: CancellationToken) {
        token.run_until_cancelled(self.run_forever()).await;
    }

    async fn run_forever(mut self) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let error = match self.open().await {
                Ok(Some(listener)) => {
                    backoff = BACKOFF_MIN;
                    self.enter(Doorbell::Listening);
                    self.listen(listener).await
                }
                Ok(None) => {
                    self.enter(Doorbell::Swallowed);
                    tokio::time::sleep(SELF_TEST_RETRY).await;
                    continue;
                }
                Err(error) => error,
            };
            let was = *self.state.borrow();
            if was == Doorbell::Listening {
                self.metrics.rebuilds.inc();
            }
            if was == Doorbell::Listening || was == Doorbell::Connecting {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "the doorbell is lost, reading every 200 ms until it is back"
                );
            } else {
                debug!(error = &error as &dyn std::error::Error, "the doorbell is still lost");
            }
            self.enter(Doorbell::Lost);
            let wait = rand::rng().random_range(Duration::ZERO..backoff);
            tokio::time::sleep(wait).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    fn enter(&self, state: Doorbell) {
        let before = self.state.send_replace(state);
        self.metrics.doorbell(state);
        if before == state {
            return;
        }
        match state {
            Doorbell::Listening => info!("the doorbell works"),
            Doorbell::Swallowed => warn!(
                "notifications do not arrive because of a pooler in transaction mode; \
                 reading every 200 ms instead. Set LISTEN_DATABASE_URL to an address that reaches the server directly"
            ),
            Doorbell::Connecting | Doorbell::Lost => {}
        }
    }

    /// Opens a connection that listens, and tests it. `None`: it would hear nothing.
    async fn open(&self) -> Result<Option<PgListener>, ListenError> {
        let test_channel = format!("{CHANNEL}_test_{}", Uuid::new_v4().simple());
        let connect = async {
            let options = connection::options(&self.listen, &format!("{} listen", self.application_name));
            let pool = PgPoolOptions::new().max_connections(1).max_lifetime(None).idle_timeout(None);
            let pool = pool.acquire_timeout(CONNECT_TIMEOUT).connect_with(options).await?;
            let mut listener = PgListener::connect_with(&pool).await?;
            // The driver would reconnect by itself and hide that bells were lost.
            listener.eager_reconnect(false);
            Ok(listener)
        };
        let listener = timeout(CONNECT_TIMEOUT, connect).await.map_err(|_| ListenError::ListenTimedOut)?;
        let mut listener = listener.map_err(listen_error)?;
        let pooled = timeout(CONNECT_TIMEOUT, self.is_pooled(&mut listener)).await;
        if pooled.map_err(|_| ListenError::ListenTimedOut)?? {
            return Ok(None);
        }
        let listen = timeout(CONNECT_TIMEOUT, listener.listen_all([CHANNEL, test_channel.as_str()])).await;
        listen.map_err(|_| ListenError::ListenTimedOut)?.map_err(listen_error)?;

        let rung =
            timeout(SELF_TEST_TIMEOUT, self.ring(&test_channel)).await.map_err(|_| ListenError::RingTimedOut)??;
        if !rung {
            return Ok(None);
        }
        match timeout(SELF_TEST_TIMEOUT, self.hear(&mut listener, &test_channel)).await {
            Ok(heard) => heard?,
            Err(_) => return Ok(None),
        }
        // Nobody will ring there again. If the connection has just died, the next wait finds out.
        let _ = timeout(SELF_TEST_TIMEOUT, listener.unlisten(&test_channel)).await;
        Ok(Some(listener))
    }

    /// Whether the address leads through a pooler in transaction mode: one session has several server connections, or another
    /// session has the same one. LISTEN must not be sent there, because it would stay on a server connection, and the client
    /// that gets the connection next receives notifications that it does not expect.
    async fn is_pooled(&self, listener: &mut PgListener) -> Result<bool, ListenError> {
        let name = format!("{} self-test", self.application_name);
        let mut other = connection::connect(&self.listen, &name).await.map_err(ListenError::Connect)?;
        let mut pooled = false;
        for _ in 0..POOLER_CHECKS {
            let own = backend(&mut *listener).await?;
            // The other session keeps its server connection while this one asks again.
            let mut transaction = transaction::begin(&mut other).await.map_err(listen_error)?;
            pooled = backend(&mut *transaction).await? == own || backend(&mut *listener).await? != own;
            transaction.rollback().await.map_err(listen_error)?;
            if pooled {
                break;
            }
        }
        connection::close(Some(other)).await;
        Ok(pooled)
    }

    /// False: the notification came to the sender, which does not listen. A pooler lent it the connection that does.
    async fn ring(&self, channel: &str) -> Result<bool, ListenError> {
        let name = format!("{} self-test", self.application_name);
        let mut connection = connection::connect(&self.database, &name).await.map_err(ListenError::Connect)?;
        // Simple, so that it reaches one connection of a pooler; the channel is of our own making.
        let notify = sqlx::raw_sql(AssertSqlSafe(format!("SELECT pg_notify('{channel}', '')")));
        let rung = notify.execute(&mut connection).await;
        connection::close(Some(connection)).await;
        match rung {
            Ok(_) => Ok(true),
            Err(sqlx::Error::Protocol(_)) => Ok(false),
            Err(error) => Err(ListenError::Ring(error.into())),
        }
    }

    async fn hear(&self, listener: &mut PgListener, channel: &str) -> Result<(), ListenError> {
        loop {
            let notification = listener
                .try_recv()
                .await
                .map_err(|error| ListenError::Receive(error.into()))?
                .ok_or(ListenError::Closed)?;
            if notification.channel() == channel {
                return Ok(());
            }
            self.rung();
        }
    }

    /// Passes bells on until the connection fails, and does what the reader asks.
    ///
    /// The driver says goodbye to a connection that is dropped in a task of its own. On a half-open one that task waits until
    /// TCP gives up; it holds one socket, and there is at most one for each rebuild.
    async fn listen(&mut self, mut listener: PgListener) -> ListenError {
        // What was asked of the last connection ended with it.
        while self.commands.try_recv().is_ok() {}
        let mut requested = false;
        loop {
            let received = tokio::select! {
                () = self.rebuild.notified() => return ListenError::MissedBell,
                Some(command) = self.commands.recv() => {
                    if let Err(error) = obey(&mut listener, command, &mut requested).await {
                        return error;
                    }
                    continue;
                }
                received = timeout(PROBE_AFTER, listener.try_recv()) => received,
            };
            match received {
                Ok(Ok(Some(_))) => {
                    // The reader reads already while the request is taken back.
                    self.rung();
                    if let Err(error) = obey(&mut listener, Command::Cancel, &mut requested).await {
                        return error;
                    }
                }
                Ok(Ok(None)) => return ListenError::Closed,
                Ok(Err(error)) => return ListenError::Receive(error.into()),
                Err(_silence) => {
                    // A Sync of the protocol and its answer: no query, no transaction.
                    let probe = async { listener.acquire().await?.ping().await };
                    match timeout(PROBE_TIMEOUT, probe).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => return ListenError::Receive(error.into()),
                        Err(_) => return ListenError::ProbeTimedOut,
                    }
                }
            }
        }
    }

    fn rung(&self) {
        self.metrics.bells.inc();
        self.bell.notify_one();
    }
}

/// The server process that this session has now.
async fn backend(session: impl PgExecutor<'_>) -> Result<i32, ListenError> {
    let pid = sqlx::raw_sql("SELECT pg_backend_pid()").fetch_one(session).await.and_then(|row| row.try_get(0));
    pid.map_err(listen_error)
}

fn listen_error(error: sqlx::Error) -> ListenError {
    ListenError::Listen(error.into())
}

/// Does what the reader asks. `requested`: whether the next writer was asked to ring.
async fn obey(listener: &mut PgListener, command: Command, requested: &mut bool) -> Result<(), ListenError> {
    let work = async {
        match command {
            Command::Request(answer) => {
                if !*requested {
                    let row = sqlx::raw_sql("SELECT tidemark.request_notification()").fetch_one(listener).await?;
                    *requested = row.try_get(0)?;
                }
                // A reader that has given up reads on, and asks again.
                let _ = answer.send(*requested);
            }
            Command::Cancel if *requested => {
                sqlx::raw_sql("SELECT tidemark.cancel_notification()").execute(listener).await?;
                *requested = false;
            }
            Command::Cancel => {}
        }
        Ok(())
    };
    timeout(PROBE_TIMEOUT, work)
        .await
        .map_err(|_| ListenError::ProbeTimedOut)?
        .map_err(|error: sqlx::Error| ListenError::Request(error.into()))
}
