//! When deltas are added to their bases. Pure decisions: time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// A read that had to add this many deltas took about 1 ms longer than one that had none.
const MANY: u64 = 1_000;

/// Fewer than that wait this long, and up to half as long again: then one of the replicas folds for all.
const INTERVAL: Duration = Duration::from_secs(10);

/// After a fold that another reader prevented, or that failed.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// The state of the decisions.
#[derive(Debug)]
pub(crate) struct Folding {
    interval: Duration,
    /// When the next fold is due; `None`: nothing is pending.
    due: Option<Instant>,
    /// No fold before this moment.
    not_before: Instant,
}

impl Folding {
    /// `phase` in 0..1 spreads the folds of replicas that start together.
    pub(crate) fn new(now: Instant, phase: f64) -> Self {
        Self { interval: INTERVAL.mul_f64(1.0 + phase / 2.0), due: None, not_before: now }
    }

    /// A read had to add so many deltas.
    pub(crate) fn read(&mut self, now: Instant, pending: u64) {
        self.due = match pending {
            0 => None,
            MANY.. => Some(now),
            _ => Some(self.due.unwrap_or(now + self.interval)),
        };
    }

    /// A fold has ended. `more`: there are deltas left that it could have taken.
    pub(crate) fn folded(&mut self, now: Instant, more: bool) {
        self.due = more.then_some(now);
        self.not_before = if more { now } else { now + RETRY_AFTER };
    }

    /// When the next fold is due; `None` if nothing is pending.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.due.map(|due| due.max(self.not_before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_deltas_are_folded_immediately_and_few_after_ten_seconds() {
        let now = Instant::now();
        let mut folding = Folding::new(now, 0.0);
        assert_eq!(folding.next(), None);
        folding.read(now, 3);
        folding.read(now + INTERVAL / 2, 4);
        assert_eq!(folding.next(), Some(now + INTERVAL));
        folding.folded(now + INTERVAL, false);
        assert_eq!(folding.next(), None);
        folding.read(now + INTERVAL * 2, MANY);
        assert_eq!(folding.next(), Some(now + INTERVAL * 2));
    }

    #[test]
    fn what_another_reader_folded_meanwhile_is_not_folded_again() {
        let now = Instant::now();
        let mut folding = Folding::new(now, 0.5);
        folding.read(now, 3);
        folding.read(now + INTERVAL, 0);
        assert_eq!(folding.next(), None);
    }

    #[test]
    fn a_fold_that_took_all_it_may_is_followed_by_another() {
        let now = Instant::now();
        let mut folding = Folding::new(now, 0.0);
        folding.read(now, u64::MAX);
        folding.folded(now, true);
        assert_eq!(folding.next(), Some(now));
        folding.folded(now, false);
        folding.read(now, MANY);
        assert_eq!(folding.next(), Some(now + RETRY_AFTER), "another reader is at it");
    }
}
