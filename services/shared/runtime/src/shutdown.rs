//! How a process ends: one token tells every task to stop, one tracker knows whether they have.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal as unix_signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The tasks of one process: spawn them on `tracker`, end them on `token`.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    /// Cancelled once, when the process ends.
    pub token: CancellationToken,
    /// Every spawned task.
    pub tracker: TaskTracker,
}

impl Tasks {
    /// Cancels the token and waits until every task has ended. False if some had not after `deadline`: they end with the process.
    pub async fn stop(&self, deadline: Duration) -> bool {
        self.token.cancel();
        self.tracker.close();
        let ended = tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok();
        if !ended {
            tracing::warn!(
                tasks = self.tracker.len(),
                deadline_ms = deadline.as_millis(),
                "tasks still ran at the deadline"
            );
        }
        ended
    }
}

/// Waits for SIGTERM or SIGINT and says which came. The handlers are in place when this returns; the wait is the inner future.
///
/// # Errors
/// When the process may not install signal handlers.
pub fn signal() -> std::io::Result<impl Future<Output = &'static str> + Send + 'static> {
    let (mut terminate, mut interrupt) = (unix_signal(SignalKind::terminate())?, unix_signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}
