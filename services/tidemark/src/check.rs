//! `tidemark check`: whether a text that is saved is counted on a dashboard. `helm test` runs it in the cluster.

use std::{path::PathBuf, time::Duration};

use protocol::{FeedsError, client::Status, is_feed_name};
use runtime::{Signals, Tasks};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};
use uuid::Uuid;

use crate::{
    client::{Client, Next, Step, Target, TargetError, Trust, TrustError},
    save::{Outcome, Saver},
    say,
};

/// How long one attempt to save may take; after that another replica may answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// The wait between two attempts to save.
const PAUSE: Duration = Duration::from_millis(250);

/// How long closing may take at the end.
const STOP: Duration = Duration::from_secs(1);

/// Flags of `tidemark check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address where a text is saved: http or https. The text stays there.
    #[arg(long, value_name = "URL")]
    app: String,
    /// Address of the dashboard (default: that of the app).
    #[arg(long, value_name = "URL")]
    dashboard: Option<String>,
    /// The feed whose count must move.
    #[arg(long, default_value = "texts", value_parser = feed_name)]
    feed: String,
    /// PEM file with certificate authorities to trust besides the system's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// How long all of it may take, in seconds.
    #[arg(long, default_value = "15s", value_parser = seconds)]
    timeout: Duration,
}

/// What is missing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The file with certificate authorities.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Closed with 1008.
    #[error("the dashboard refused: {0}")]
    Refused(String),
    /// No value.
    #[error("no count of {feed} from {url} within {within:?}{}", because(.reason))]
    Silent {
        /// Of what.
        feed: String,
        /// Whom we asked.
        url: String,
        /// How long it had.
        within: Duration,
        /// Why no connection could be opened.
        reason: Option<String>,
    },
    /// No 201.
    #[error("the text was not stored at {url}: {outcome}")]
    NotStored {
        /// Where.
        url: String,
        /// How the last attempt ended.
        outcome: Outcome,
    },
    /// Stored, but not seen.
    #[error(
        "{feed} stayed at {count} for {after:.1?} after a text was stored: the dashboard does not show what the app stores"
    )]
    Still {
        /// Of what.
        feed: String,
        /// The last one seen.
        count: u64,
        /// Since the text was stored.
        after: Duration,
    },
    /// A signal.
    #[error("stopped before the end")]
    Interrupted,
}

/// What the client knows of the feed.
#[derive(Debug, Clone, Default)]
struct Sight {
    replica: String,
    count: Option<u64>,
    failure: Option<String>,
}

/// Prints three lines: what the dashboard shows, that a text was stored, and what it shows then.
///
/// # Errors
/// [`Error`]; each says what is missing.
pub async fn run(args: Args, signals: &Signals) -> Result<(), Error> {
    let Args { app, dashboard, feed, ca, timeout } = args;
    let deadline = Instant::now() + timeout;
    let trust = Trust::load(ca.as_deref())?;
    let saver = Saver::new(&app, &trust)?;
    let dashboard = dashboard.unwrap_or_else(|| app.clone());
    let target = Target::parse(&dashboard, &feed)?.with_trust(trust);

    let tasks = Tasks::default();
    let mut client = Client::new(target, tasks.tracker.clone());
    let (sender, mut sight) = watch::channel(Sight::default());
    let mut ended = Error::Interrupted;
    let looking = client.run(&signals.stop, |step| {
        sender.send_modify(|sight| sight.update(step, &feed));
        if step.machine.status() != Status::Refused {
            return Next::Continue;
        }
        ended = Error::Refused(step.machine.reason().unwrap_or_default().to_owned());
        Next::Stop
    });
    let checking = async {
        let Some(before) = counted(&mut sight, deadline, |_| true).await else {
            let reason = sight.borrow().failure.clone();
            return Err(Error::Silent { feed: feed.clone(), url: dashboard, within: timeout, reason });
        };
        say::line(format_args!("{} shows {feed} {}", before.0, before.1));
        store(&saver, deadline).await.map_err(|outcome| Error::NotStored { url: app.clone(), outcome })?;
        say::line(format_args!("a text was stored at {app}"));
        let stored = Instant::now();
        let Some(after) = counted(&mut sight, deadline, |count| count > before.1).await else {
            return Err(Error::Still { feed: feed.clone(), count: before.1, after: stored.elapsed() });
        };
        let ms = stored.elapsed().as_millis();
        say::line(format_args!("{} shows {feed} {}, {ms} ms after that", after.0, after.1));
        Ok(())
    };
    let outcome = tokio::select! {
        checked = checking => Some(checked),
        () = looking => None,
    };
    drop(client);
    tasks.stop(STOP).await;
    outcome.unwrap_or(Err(ended))
}

impl Sight {
    fn update(&mut self, step: Step<'_>, feed: &str) {
        let Step { machine, failure, .. } = step;
        self.replica = machine.replica().unwrap_or_default().to_owned();
        // The one item of a scalar feed has the empty key.
        self.count = machine.values.items.get(&format!("{feed}:")).and_then(|known| known.value.get("count")?.as_u64());
        self.failure = failure.map(str::to_owned).or_else(|| self.failure.take());
    }
}

/// Waits for a count that is wanted. Gives the replica that told it, and the count.
async fn counted(
    sight: &mut watch::Receiver<Sight>,
    deadline: Instant,
    wanted: impl Fn(u64) -> bool,
) -> Option<(String, u64)> {
    let found = sight.wait_for(|sight| sight.count.is_some_and(&wanted));
    let sight = timeout_at(deadline, found).await.ok()?.ok()?;
    Some((sight.replica.clone(), sight.count?))
}

/// Stores one text, however many attempts that needs before the deadline.
async fn store(saver: &Saver, deadline: Instant) -> Result<(), Outcome> {
    let id = Uuid::new_v4();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match saver.attempt(id, "a check", PATIENCE.min(left)).await {
            Outcome::Stored => return Ok(()),
            outcome if !outcome.is_passing() || left < PAUSE => return Err(outcome),
            _ => sleep(PAUSE).await,
        }
    }
}

fn feed_name(text: &str) -> Result<String, FeedsError> {
    if is_feed_name(text) { Ok(text.to_owned()) } else { Err(FeedsError::Name) }
}

/// `15s` or `15`.
fn seconds(text: &str) -> Result<Duration, &'static str> {
    let number = text.strip_suffix('s').unwrap_or(text).parse().ok();
    let duration = number.and_then(|number| Duration::try_from_secs_f64(number).ok()).filter(|it| !it.is_zero());
    duration.ok_or("seconds, as in 15s")
}

/// A reason at the end of a sentence.
fn because(reason: &Option<String>) -> String {
    reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_in_seconds() {
        assert_eq!(seconds("15s"), Ok(Duration::from_secs(15)));
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for text in ["", "s", "0", "-1s", "1m", "NaN", "1e30s"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
