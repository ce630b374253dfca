//! Stores texts in batches: at once when idle, and while a commit is in flight whatever arrives is the next batch.

use std::time::Duration;

use sqlx::PgConnection;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, Span, info, info_span, warn};
use uuid::Uuid;

use crate::{
    DatabaseError, DatabaseUrl, Text, WriterMetrics,
    batch::{self, Stored},
    connection::{self, ConnectError},
};

/// Rows in one statement. More gain nothing: at 1,000 the cost of the commit is a hundredth of the whole.
const MAX_BATCH: usize = 1_000;

/// Texts that wait. At 10,000 characters each this is at most some hundred megabytes, and a second's work.
const QUEUE: usize = 10_000;

/// For a batch, its connection included. Callers have 5 s in all, and one batch may be ahead of theirs.
const BATCH_TIMEOUT: Duration = Duration::from_secs(3);

/// How long [`TextWriter::save`] waits, so that its caller can still answer within 5 s.
const SAVE_TIMEOUT: Duration = Duration::from_secs(4);

/// What a writer needs to know.
#[derive(Debug, Clone)]
pub struct WriterConfig {
    /// Where to write.
    pub database: DatabaseUrl,
    /// The name that the server's administrator sees, for example `app-1`.
    pub application_name: String,
}

/// Why a text is not known to be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SaveError {
    /// The id belongs to another text. Nothing was stored.
    #[error("the id belongs to another text")]
    Conflict,
    /// The database refuses this text. Nothing was stored.
    #[error("the database refused the text (SQLSTATE {code})")]
    Rejected {
        /// The error's name in Postgres, five characters.
        code: String,
    },
    /// Too many texts wait. Nothing was stored.
    #[error("too many texts wait to be stored")]
    Busy,
    /// The database could not be reached or did not answer. The text may be stored; saving it again under the same id is safe.
    #[error("failed to store the text: {cause}")]
    Unavailable {
        /// What stood in the way. The writer has logged the details.
        cause: Cause,
    },
}

/// What stood in the way of storing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// There is no connection.
    #[error("the database cannot be reached")]
    Connection,
    /// The database did not answer in time.
    #[error("the database did not answer in time")]
    Timeout,
    /// The statement failed.
    #[error("the database failed")]
    Statement,
    /// The writer has ended.
    #[error("the writer has ended")]
    Ended,
}

/// The target of the spans that are parts of a trace. Who collects them, the service decides.
const TRACE: &str = "tidemark::trace";

/// Requests of one batch that its span links to, beside the one whose trace it is in. The standard keeps 128 links; nobody reads that many.
const MAX_LINKS: usize = 16;

struct Request {
    id: Uuid,
    text: String,
    /// W3C trace context of whoever asked.
    traceparent: Option<String>,
    /// The span in which it was asked for.
    span: Span,
    answer: oneshot::Sender<Result<Text, SaveError>>,
}

/// A handle on the writer's task; clones share it.
#[derive(Clone)]
pub struct TextWriter {
    requests: mpsc::Sender<Request>,
    metrics: WriterMetrics,
}

impl TextWriter {
    /// Starts the task in `tracker`. It needs no database to start. When the token is cancelled it stores what waits, then ends.
    pub fn start(
        config: WriterConfig,
        metrics: WriterMetrics,
        tracker: &TaskTracker,
        token: CancellationToken,
    ) -> Self {
        let WriterConfig { database, application_name } = config;
        let (requests, received) = mpsc::channel(QUEUE);
        let owner = Owner {
            database,
            name: format!("{application_name} write"),
            connection: None,
            up: true,
            metrics: metrics.clone(),
        };
        tracker.spawn(owner.run(received, token));
        Self { requests, metrics }
    }

    /// Stores a text under an id. The same id with the same text again gives the row of the first time. A `traceparent` (W3C trace context) stays
    /// with the change of the feed, so that whoever passes it on can continue the trace; of several texts in one batch that of the last one.
    ///
    /// # Errors
    /// [`SaveError`], after four seconds at the latest.
    pub async fn save(&self, id: Uuid, text: String, traceparent: Option<String>) -> Result<Text, SaveError> {
        let result = self.queue(id, text, traceparent).await;
        self.metrics.saved(&result);
        result
    }

    async fn queue(&self, id: Uuid, text: String, traceparent: Option<String>) -> Result<Text, SaveError> {
        const ENDED: SaveError = SaveError::Unavailable { cause: Cause::Ended };
        let (answer, answered) = oneshot::channel();
        // Without a trace, the span is not asked for either.
        let span = traceparent.as_ref().map_or_else(Span::none, |_| Span::current());
        self.requests.try_send(Request { id, text, traceparent, span, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SaveError::Busy,
            mpsc::error::TrySendError::Closed(_) => ENDED,
        })?;
        match timeout(SAVE_TIMEOUT, answered).await {
            Ok(answer) => answer.unwrap_or(Err(ENDED)),
            Err(_) => Err(SaveError::Unavailable { cause: Cause::Timeout }),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum BatchError {
    #[error(transparent)]
    Connect(ConnectError),
    #[error("failed to store a batch within {BATCH_TIMEOUT:?}")]
    TimedOut,
    #[error("failed to store a batch")]
    Statement(#[source] DatabaseError),
}

struct Owner {
    database: DatabaseUrl,
    name: String,
    connection: Option<PgConnection>,
    /// Whether the last batch was stored, so that an outage is logged once.
    up: bool,
    metrics: WriterMetrics,
}

impl Owner {
    async fn run(mut self, mut received: mpsc::Receiver<Request>, token: CancellationToken) {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        loop {
            // Takes what is there, up to the limit, and waits only if there is nothing.
            let count = tokio::select! {
                count = received.recv_many(&mut batch, MAX_BATCH) => count,
                () = token.cancelled(), if !received.is_closed() => {
                    received.close();
                    continue;
                }
            };
            if count == 0 {
                break;
            }
            // Whoever has given up will come again or not at all.
            batch.retain(|request| !request.answer.is_closed());
            if !batch.is_empty() {
                self.store(&mut batch).await;
            }
        }
        connection::close(self.connection.take()).await;
    }

    async fn store(&mut self, batch: &mut Vec<Request>) {
        self.metrics.batch_rows.observe(batch.len() as f64);
        let texts: Vec<(Uuid, &str)> = batch.iter().map(|request| (request.id, request.text.as_str())).collect();
        let (traceparent, span) = trace(batch);
        let storing = timeout(BATCH_TIMEOUT, self.try_store(&texts, traceparent)).instrument(span);
        let result = storing.await.unwrap_or(Err(BatchError::TimedOut));
        match result {
            Ok(answers) => {
                if !self.up {
                    info!("texts can be stored again");
                }
                self.up = true;
                for (request, stored) in batch.drain(..).zip(answers) {
                    let _ = request.answer.send(answer(stored));
                }
            }
            Err(error) => {
                if self.up {
                    warn!(error = &error as &dyn std::error::Error, "texts cannot be stored");
                }
                self.up = false;
                let cause = match error {
                    BatchError::Connect(_) => Cause::Connection,
                    BatchError::TimedOut => Cause::Timeout,
                    BatchError::Statement(_) => Cause::Statement,
                };
                for request in batch.drain(..) {
                    let _ = request.answer.send(Err(SaveError::Unavailable { cause }));
                }
            }
        }
    }

    /// A connection that was open before may have died unnoticed, or be the victim of a deadlock: one more try on a new one.
    async fn try_store(&mut self, texts: &[(Uuid, &str)], traceparent: &str) -> Result<Vec<Stored>, BatchError> {
        if let Some(mut connection) = self.connection.take()
            && let Ok(answers) = batch::store(&mut connection, texts, traceparent).await
        {
            self.connection = Some(connection);
            return Ok(answers);
        }
        let mut connection = connection::connect(&self.database, &self.name).await.map_err(BatchError::Connect)?;
        let answers = batch::store(&mut connection, texts, traceparent)
            .await
            .map_err(|error| BatchError::Statement(error.into()))?;
        self.connection = Some(connection);
        Ok(answers)
    }
}

/// In whose trace a batch is, and its span there. One statement serves many requests, but a span has one parent: the last request that has a trace;
/// the span links to the others.
fn trace(batch: &[Request]) -> (&str, Span) {
    let mut traced = batch.iter().rev().filter_map(|request| Some((request.traceparent.as_deref()?, &request.span)));
    let Some((traceparent, parent)) = traced.next() else { return ("", Span::none()) };
    let span = info_span!(
        target: TRACE,
        parent: parent,
        "commit",
        "otel.kind" = "client",
        "db.system.name" = "postgresql",
        rows = i64::try_from(batch.len()).unwrap_or(i64::MAX)
    );
    for (_, other) in traced.take(MAX_LINKS) {
        span.follows_from(other);
    }
    (traceparent, span)
}

fn answer(stored: Stored) -> Result<Text, SaveError> {
    match stored {
        Stored::Saved(text) => Ok(text),
        Stored::Conflict => Err(SaveError::Conflict),
        Stored::Rejected(code) => Err(SaveError::Rejected { code }),
        Stored::Gone => Err(SaveError::Unavailable { cause: Cause::Statement }),
    }
}
