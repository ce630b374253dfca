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

/// What SIGTERM and SIGINT ask for.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    /// The first signal: end in an orderly way.
    pub stop: CancellationToken,
    /// The second signal: end now.
    pub hurry: CancellationToken,
}

/// Takes over SIGTERM and SIGINT. The handlers are in place when this returns; the one task behind them lives as long as the process.
///
/// # Errors
/// When the process may not install signal handlers.
pub fn signals() -> std::io::Result<Signals> {
    let (mut terminate, mut interrupt) = (unix_signal(SignalKind::terminate())?, unix_signal(SignalKind::interrupt())?);
    let signals = Signals::default();
    let tokens = [signals.stop.clone(), signals.hurry.clone()];
    tokio::spawn(async move {
        for token in tokens {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            tracing::info!(signal = name, "signal received");
            token.cancel();
        }
    });
    Ok(signals)
}
