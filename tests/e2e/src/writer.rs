//! Saves texts through the ingress at a steady rate, each under an id of its own until it is stored, and remembers what came of it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tidemark::save::{Outcome, Retry, Saved, Saver};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::record::Saves;

/// A save is given up after about 50 s: longer than a database takes to come back.
const RETRY: Retry = Retry {
    attempts: 60,
    patience: Duration::from_secs(5),
    wait: Duration::from_millis(50),
    longest_wait: Duration::from_secs(2),
};

/// Who saves. Nobody else does meanwhile.
#[derive(Debug)]
pub struct Writer {
    done: Arc<Mutex<Done>>,
    tracker: TaskTracker,
    token: CancellationToken,
}

#[derive(Debug, Default)]
struct Done {
    saves: Saves,
    ids: Vec<Uuid>,
}

impl Writer {
    /// Starts to save so many texts per second; times are since `began`, the start of the crowd's clock.
    pub fn start(saver: Saver, rate: u32, began: Instant) -> Self {
        let (done, tracker, token) = (Arc::default(), TaskTracker::new(), CancellationToken::new());
        let writer = Self { done, tracker, token };
        let (done, tracker) = (Arc::clone(&writer.done), writer.tracker.clone());
        writer.tracker.spawn(writer.token.clone().run_until_cancelled_owned(async move {
            let mut ticks = interval(Duration::from_secs(1) / rate);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let (saver, done) = (saver.clone(), Arc::clone(&done));
                // A save that waits for its retry must not hold up the next one.
                tracker.spawn(async move {
                    let id = Uuid::new_v4();
                    let saved = saver.save(id, &format!("from the drill, {id}"), RETRY).await;
                    lock(&done).take(began.elapsed().as_millis() as u64, id, saved);
                });
            }
        }));
        writer
    }

    /// What came of the saves until now.
    pub fn saves(&self) -> Saves {
        lock(&self.done).saves.clone()
    }

    /// The ids of the texts that were acknowledged.
    pub fn ids(&self) -> Vec<Uuid> {
        lock(&self.done).ids.clone()
    }

    /// Starts no further save, and waits for those under way.
    pub async fn finish(&self) {
        self.token.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

impl Done {
    fn take(&mut self, at: u64, id: Uuid, Saved { outcome, failures }: Saved) {
        if !failures.is_empty() {
            self.saves.retried.push((at, failures.len() as u32));
        }
        if outcome == Outcome::Stored {
            self.saves.acknowledged.push(at);
            self.ids.push(id);
        } else {
            self.saves.failed.push(at);
        }
    }
}

fn lock(done: &Mutex<Done>) -> MutexGuard<'_, Done> {
    done.lock().unwrap_or_else(PoisonError::into_inner)
}
