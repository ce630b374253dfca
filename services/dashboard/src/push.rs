//! Changes as parts of traces: one span for each change and replica, from the reading that showed it to the last frame that told it.
//!
//! The span continues the trace that the writer left in the database. It is not a span per socket: a replica may have thousands. Without a collector
//! nothing is kept here, and a session pays one comparison for each frame.

use std::{
    ops::RangeInclusive,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use protocol::Feeds;
use runtime::Attribute;
use store::Reading;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::hub::Items;

/// How long frames are counted. A session that has just sent waits 50 ms, and writing to some thousand sockets takes as long again.
const WINDOW: Duration = Duration::from_millis(100);

/// A change on its way to the clients.
#[derive(Debug)]
struct Push {
    feed: String,
    version: u64,
    tick: u64,
    traceparent: String,
    changed: Option<Instant>,
    seen: Instant,
    seen_at: SystemTime,
    frames: u32,
    last: Option<Instant>,
}

/// The changes of the last moment.
#[derive(Debug, Default)]
pub struct Pushes {
    /// In the order in which they were seen.
    open: Mutex<Vec<Push>>,
    /// How many are open, for those who would only find none.
    count: AtomicUsize,
    begun: Notify,
}

impl Pushes {
    /// Begins a span for every feed that is newer than in the reading before, and was changed by somebody who has a trace.
    pub fn begin(&self, before: Option<&Reading>, reading: &Reading, items: &Items) {
        let Some(before) = before.filter(|before| runtime::traces_are_on() && before.history == reading.history) else {
            return;
        };
        let (seen, seen_at) = (Instant::now(), SystemTime::now());
        let newer = reading
            .feeds
            .iter()
            .filter(|feed| before.feeds.iter().any(|known| known.name == feed.name && known.version < feed.version));
        let mut open = self.lock();
        for feed in newer {
            if let (Some(traceparent), Some(tick)) = (feed.traceparent.clone(), items.tick(&feed.name)) {
                let (name, changed) = (feed.name.clone(), reading.changed(feed));
                let (feed, version) = (name, feed.version);
                open.push(Push { feed, version, tick, traceparent, changed, seen, seen_at, frames: 0, last: None });
            }
        }
        self.count.store(open.len(), Ordering::Relaxed);
        self.begun.notify_one();
    }

    /// A session has written a frame that tells these ticks of these feeds.
    pub fn written(&self, feeds: &Feeds, ticks: &RangeInclusive<u64>, at: Instant) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let told = |push: &&mut Push| {
            *ticks.start() < push.tick && push.tick <= *ticks.end() && feeds.contains(&push.feed, "")
        };
        for push in self.lock().iter_mut().filter(told) {
            push.frames += 1;
            push.last = push.last.max(Some(at));
        }
    }

    /// Ends each span when its time is over, and all of them when the token is cancelled.
    pub async fn run(self: std::sync::Arc<Self>, token: CancellationToken) {
        token.run_until_cancelled(self.run_forever()).await;
        self.end(None);
    }

    async fn run_forever(&self) {
        loop {
            let first = self.lock().first().map(|push| push.seen + WINDOW);
            match first {
                Some(due) => {
                    sleep_until(due).await;
                    self.end(Some(due));
                }
                None => self.begun.notified().await,
            }
        }
    }

    /// Ends the spans that are due by then, or all.
    fn end(&self, by: Option<Instant>) {
        let mut open = self.lock();
        let due = open.iter().take_while(|push| by.is_none_or(|by| push.seen + WINDOW <= by)).count();
        let ended: Vec<Push> = open.drain(..due).collect();
        self.count.store(open.len(), Ordering::Relaxed);
        drop(open);
        ended.into_iter().for_each(Push::record);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Push>> {
        // A list of plain values is whole, whoever panicked.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Push {
    fn record(self) {
        let Self { feed, version, tick: _, traceparent, changed, seen, seen_at, frames, last } = self;
        let last = last.unwrap_or(seen);
        let attributes = [
            ("tidemark.feed", Attribute::Text(feed)),
            ("tidemark.version", Attribute::Number(i64::try_from(version).unwrap_or(i64::MAX))),
            ("tidemark.frames", Attribute::Number(frames.into())),
        ];
        let latency = changed.map(|changed| last.saturating_duration_since(changed).as_secs_f64() * 1e3);
        let latency = latency.map(|ms| ("tidemark.latency_ms", Attribute::Quantity(ms)));
        let times = seen_at..seen_at + last.saturating_duration_since(seen);
        runtime::record_span("push", &traceparent, times, attributes.into_iter().chain(latency));
    }
}
