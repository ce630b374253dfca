//! What was seen, and what follows from it. Pure: times are milliseconds on one clock, that of the test.

use std::collections::BTreeMap;

/// A stretch of time, ms: from inclusive, to exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its start.
    pub from: u64,
    /// Its end.
    pub to: u64,
}

/// What one client saw.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// (when, count): each value that it took.
    pub counts: Vec<(u64, u64)>,
    /// (when, whether it has a connection that can deliver): each change.
    pub live: Vec<(u64, bool)>,
    /// (when, whether the old connection lived until the new one answered): each change of the replica.
    pub handovers: Vec<(u64, bool)>,
}

/// What came of the saves.
#[derive(Debug, Clone, Default)]
pub struct Saves {
    /// When each was acknowledged, ascending.
    pub acknowledged: Vec<u64>,
    /// (when, attempts that failed before): saves that needed more than one.
    pub retried: Vec<(u64, u32)>,
    /// When each was given up.
    pub failed: Vec<u64>,
}

/// The verdict over one stretch of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Saves that were acknowledged.
    pub saves: usize,
    /// Saves that needed more than one attempt.
    pub retried: usize,
    /// Saves that were given up.
    pub failed: usize,
    /// Clients that had no connection for a moment.
    pub interrupted: usize,
    /// The longest time in which a client had none, ms.
    pub gap: u64,
    /// Median and longest time from an acknowledgement until a client had seen it, ms, over all saves and clients.
    pub late_p50: u64,
    /// The longest.
    pub late_max: u64,
    /// Values that were smaller than the one before.
    pub backwards: usize,
    /// Values that came twice.
    pub doubled: usize,
    /// Changes of the replica, old connection kept until the new one answered.
    pub moves: usize,
    /// Changes of the replica after a loss.
    pub reconnects: usize,
}

impl Span {
    fn holds(self, at: u64) -> bool {
        (self.from..self.to).contains(&at)
    }
}

impl Seen {
    /// The stretches within the span in which the client had no connection.
    fn gaps(&self, span: Span) -> impl Iterator<Item = u64> {
        let ends = self.live.iter().skip(1).map(|(at, _)| *at).chain([u64::MAX]);
        self.live.iter().zip(ends).filter_map(move |((from, live), to)| {
            let (from, to) = ((*from).max(span.from), to.min(span.to));
            (!live && from < to).then(|| to - from)
        })
    }
}

/// Judges a span. `base` is the count before the first save; nobody else saves. What is not seen by `now` counts as late until then.
pub fn judge(clients: &[Seen], saves: &Saves, base: u64, span: Span, now: u64) -> Verdict {
    let within = |times: &[u64]| times.iter().filter(|at| span.holds(**at)).count();
    let mut verdict = Verdict {
        saves: within(&saves.acknowledged),
        failed: within(&saves.failed),
        retried: saves.retried.iter().filter(|(at, _)| span.holds(*at)).count(),
        ..Verdict::default()
    };
    // When the n-th save was acknowledged, at least n texts more than at the start were stored, in whatever order they were.
    let due: Vec<(u64, u64)> =
        (1..).zip(&saves.acknowledged).map(|(n, at)| (base + n, *at)).filter(|(_, at)| span.holds(*at)).collect();
    let mut lateness: BTreeMap<u64, usize> = BTreeMap::new();
    for client in clients {
        let gap = client.gaps(span).max().unwrap_or(0);
        verdict.interrupted += usize::from(gap > 0);
        verdict.gap = verdict.gap.max(gap);
        for pair in client.counts.windows(2) {
            let [(_, before), (at, count)] = pair else { continue };
            verdict.backwards += usize::from(span.holds(*at) && count < before);
            verdict.doubled += usize::from(span.holds(*at) && count == before);
        }
        for (_, planned) in client.handovers.iter().filter(|(at, _)| span.holds(*at)) {
            *(if *planned { &mut verdict.moves } else { &mut verdict.reconnects }) += 1;
        }
        // Both lists ascend, so one walk through the client's values answers for all saves.
        let mut from = 0;
        for (count, at) in &due {
            while client.counts.get(from).is_some_and(|(_, seen)| seen < count) {
                from += 1;
            }
            let knew = client.counts.get(from).map_or(now, |(knew, _)| *knew);
            *lateness.entry(knew.saturating_sub(*at)).or_default() += 1;
        }
    }
    verdict.late_max = lateness.keys().next_back().copied().unwrap_or(0);
    let middle = lateness.values().sum::<usize>().div_ceil(2);
    let mut seen = 0;
    verdict.late_p50 = lateness
        .iter()
        .find_map(|(late, times)| {
            seen += times;
            (seen >= middle).then_some(*late)
        })
        .unwrap_or(0);
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Span = Span { from: 100, to: 1_000 };

    fn saves(acknowledged: &[u64]) -> Saves {
        Saves { acknowledged: acknowledged.to_vec(), ..Saves::default() }
    }

    fn seen(counts: &[(u64, u64)], live: &[(u64, bool)]) -> Seen {
        Seen { counts: counts.to_vec(), live: live.to_vec(), handovers: Vec::new() }
    }

    #[test]
    fn a_client_that_sees_every_save_at_once_is_never_late() {
        let client = seen(&[(0, 7), (200, 8), (300, 9)], &[(0, true)]);
        let verdict = judge(&[client], &saves(&[201, 301]), 7, SPAN, 2_000);
        assert_eq!(verdict, Verdict { saves: 2, ..Verdict::default() });
    }

    #[test]
    fn a_value_that_skips_others_answers_for_them() {
        let client = seen(&[(0, 7), (450, 10)], &[(0, true)]);
        let verdict = judge(&[client], &saves(&[200, 300, 400]), 7, SPAN, 2_000);
        assert_eq!((verdict.late_p50, verdict.late_max), (150, 250));
    }

    #[test]
    fn what_is_never_seen_is_late_until_now() {
        let verdict = judge(&[seen(&[(0, 7)], &[(0, true)])], &saves(&[200]), 7, SPAN, 2_000);
        assert_eq!(verdict.late_max, 1_800);
    }

    #[test]
    fn a_gap_counts_where_the_span_holds_it() {
        let client = seen(&[(0, 7)], &[(0, true), (50, false), (150, true), (400, false), (420, true), (990, false)]);
        let verdict = judge(&[client, seen(&[], &[(0, true)])], &saves(&[]), 7, SPAN, 2_000);
        assert_eq!((verdict.interrupted, verdict.gap), (1, 50));
    }

    #[test]
    fn values_that_fall_or_repeat_are_counted() {
        let client = seen(&[(0, 7), (200, 9), (300, 8), (400, 8), (1_500, 1)], &[(0, true)]);
        let verdict = judge(&[client], &saves(&[]), 7, SPAN, 2_000);
        assert_eq!((verdict.backwards, verdict.doubled), (1, 1));
    }

    #[test]
    fn saves_and_handovers_of_other_times_do_not_count() {
        let client = Seen { handovers: vec![(50, true), (150, true), (160, false), (1_000, true)], ..Seen::default() };
        let saves =
            Saves { acknowledged: vec![50, 500, 1_000], retried: vec![(99, 1), (500, 2)], failed: vec![999, 1_001] };
        let verdict = judge(&[client], &saves, 0, SPAN, 500);
        assert_eq!((verdict.moves, verdict.reconnects), (1, 1));
        assert_eq!((verdict.saves, verdict.retried, verdict.failed), (1, 1, 1));
    }
}
