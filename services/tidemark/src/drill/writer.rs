//! Saves texts at a steady rate, each under an id of its own until it is stored, and remembers what came of it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use super::{crowd::Clock, record::Save};
use crate::save::{Attempt, Outcome, Retry, Saved, Saver};

/// A save is given up after about 50 s: longer than a database takes to come back.
const RETRY: Retry = Retry {
    attempts: 60,
    patience: Duration::from_secs(5),
    wait: Duration::from_millis(50),
    longest_wait: Duration::from_secs(2),
};

/// How often a wait looks.
const LOOK: Duration = Duration::from_millis(10);

/// Who saves.
#[derive(Debug)]
pub struct Writer {
    /// Stands in each text, so that they can be told from others.
    run: Uuid,
    /// In the order in which they ended.
    saves: Arc<Mutex<Vec<Save>>>,
    tracker: TaskTracker,
    token: CancellationToken,
}

impl Writer {
    /// Starts to save so many texts per second.
    pub fn start(saver: Saver, per_second: u32, clock: Clock) -> Self {
        let (run, saves, numbers) = (Uuid::new_v4(), Arc::default(), Arc::<AtomicU64>::default());
        let (tracker, token) = (TaskTracker::new(), CancellationToken::new());
        let writer = Self { run, saves, tracker, token };
        let (saves, tracker) = (Arc::clone(&writer.saves), writer.tracker.clone());
        writer.tracker.spawn(writer.token.clone().run_until_cancelled_owned(async move {
            let mut ticks = interval(Duration::from_secs(1) / per_second);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let (saver, saves) = (saver.clone(), Arc::clone(&saves));
                let number = numbers.fetch_add(1, Ordering::Relaxed);
                // A save that waits for its retry must not hold up the next one.
                tracker.spawn(async move {
                    let saved = saver.save(Uuid::new_v4(), &text(run, number), RETRY).await;
                    let mut saves = lock(&saves);
                    // Under the lock: the list is in the order of its times.
                    let ended = Instant::now();
                    saves.push(record(number, saved, ended, clock));
                });
            }
        }));
        writer
    }

    /// What came of the saves until now.
    pub fn saves(&self) -> Vec<Save> {
        lock(&self.saves).clone()
    }

    /// How many were acknowledged until now.
    pub fn stored(&self) -> u64 {
        lock(&self.saves).iter().filter(|save| save.stored).count() as u64
    }

    /// Waits until one more is acknowledged that ends after this moment. False if none is by the deadline.
    pub async fn next(&self, after: u64, deadline: Instant) -> bool {
        loop {
            if lock(&self.saves).last().is_some_and(|save| save.stored && save.ended > after) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The number in a text of this run.
    pub fn number(&self, text: &str) -> Option<u64> {
        text.strip_prefix(&prefix(self.run))?.parse().ok()
    }

    /// Starts no further save, and waits for those under way.
    pub async fn finish(&self) {
        self.token.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

fn prefix(run: Uuid) -> String {
    format!("drill {} no. ", run.simple())
}

fn text(run: Uuid, number: u64) -> String {
    format!("{}{number}", prefix(run))
}

fn record(number: u64, saved: Saved, ended: Instant, clock: Clock) -> Save {
    let Saved { last, failures } = saved;
    let sent = ended.checked_sub(last.took).map_or(0, |sent| clock.at(sent));
    let stored = last.outcome == Outcome::Stored;
    let failures = failures.into_iter().chain((!stored).then_some(last));
    let failures = failures.map(|Attempt { outcome, took }| (reason(&outcome), took.as_millis() as u64));
    Save { number, sent, ended: clock.at(ended), stored, failures: failures.collect() }
}

/// Few words, so that equal failures are counted together.
fn reason(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Unavailable(status) => status.to_string(),
        Outcome::Unreachable(_) => "no answer".to_owned(),
        Outcome::Rejected { code, .. } => code.clone(),
        Outcome::Conflict => "conflict".to_owned(),
        Outcome::Stored => "stored".to_owned(),
    }
}

fn lock(saves: &Mutex<Vec<Save>>) -> MutexGuard<'_, Vec<Save>> {
    // Every change is one push: a panic elsewhere leaves the list whole.
    saves.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_carries_its_number_and_its_run() {
        let writer =
            |run| Writer { run, saves: Arc::default(), tracker: TaskTracker::new(), token: CancellationToken::new() };
        let run = Uuid::new_v4();
        assert_eq!(writer(run).number(&text(run, 17)), Some(17));
        assert_eq!(writer(Uuid::new_v4()).number(&text(run, 17)), None, "of another run");
        assert_eq!(writer(run).number("hello"), None);
    }

    #[tokio::test]
    async fn what_is_recorded_is_when_it_was_sent_and_what_failed() {
        let clock = Clock::start();
        let attempt = |outcome, ms| Attempt { outcome, took: Duration::from_millis(ms) };
        let ended = Instant::now() + Duration::from_millis(500);
        let failures = vec![attempt(Outcome::Unavailable(503), 40), attempt(Outcome::Unreachable("x".into()), 5_000)];
        let saved = Saved { last: attempt(Outcome::Stored, 100), failures };
        let save = record(3, saved, ended, clock);
        assert!(save.stored && save.ended - save.sent == 100 && save.ended >= 500);
        assert_eq!(save.failures, [("503".to_owned(), 40), ("no answer".to_owned(), 5_000)]);
        let given_up = Saved { last: attempt(Outcome::Unavailable(502), 7), failures: Vec::new() };
        let save = record(4, given_up, ended, clock);
        assert_eq!((save.stored, save.failures), (false, vec![("502".to_owned(), 7)]));
    }
}
