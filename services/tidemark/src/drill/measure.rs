//! From what was seen to numbers: one [`Measurement`] for a stretch of time. Pure.

use std::collections::BTreeMap;

use super::record::{Save, Seen, Span};

/// A save that a client has seen after so long was seen at once, ms: five frames of a session that tells its newest value 20 times a second.
/// What takes longer is a blackout, and counts from its first millisecond.
pub const AT_ONCE_MS: u64 = 250;

/// How often something happened, by how many milliseconds it took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spread(BTreeMap<u64, u64>);

impl Spread {
    /// One more.
    pub fn add(&mut self, ms: u64) {
        *self.0.entry(ms).or_default() += 1;
    }

    /// The value that this share of all does not exceed (nearest rank); `None` of nothing.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let rank = (self.0.values().sum::<u64>() as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        self.0.iter().find_map(|(ms, times)| {
            seen += times;
            (seen >= rank).then_some(*ms)
        })
    }

    /// All of them together.
    pub fn sum(&self) -> u64 {
        self.0.iter().map(|(ms, times)| ms * times).sum()
    }

    /// The greatest.
    pub fn max(&self) -> Option<u64> {
        self.0.keys().next_back().copied()
    }

    fn merge(&mut self, other: &Self) {
        for (ms, times) in &other.0 {
            *self.0.entry(*ms).or_default() += times;
        }
    }
}

/// What came of the saves of a stretch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SavesMeasured {
    /// Acknowledged.
    pub stored: u64,
    /// Of those and of the given up ones: more than one attempt.
    pub retried: u64,
    /// Given up.
    pub failed: u64,
    /// Failed attempts, by what was answered.
    pub failures: BTreeMap<String, u64>,
    /// The slowest failed attempt, ms.
    pub slowest_failure: u64,
    /// From sending the attempt that was acknowledged until a client knew it, over all saves and clients. An upper bound of commit to client.
    pub latency: Spread,
    /// Acknowledged, and not there when the texts were read back.
    pub lost: u64,
    /// There more than once.
    pub doubled: u64,
}

/// What a stretch of time was like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Measurement {
    /// How many clients.
    pub clients: u64,
    /// How long, ms.
    pub ms: u64,
    /// Per client: the longest time in which the newest acknowledged save was unseen, if longer than [`AT_ONCE_MS`], else 0.
    /// Without saves: the longest time without a connection that could deliver.
    pub blackout: Spread,
    /// Per client: the longest time without a connection that could deliver, ms.
    pub gap: Spread,
    /// Per client: changes of the replica, the old connection kept until the new one answered.
    pub moves: Spread,
    /// Per client: changes of the replica after a loss.
    pub reconnects: Spread,
    /// Connections that ended without the client's wish, by close code.
    pub closes: BTreeMap<u16, u64>,
    /// Handshakes that began.
    pub handshakes: u64,
    /// The most of them within one second.
    pub handshakes_peak: u64,
    /// Versions that clients had not at the end, summed over the clients.
    pub missed: u64,
    /// Values that were older than the one before.
    pub backwards: u64,
    /// Values that came twice.
    pub duplicates: u64,
    /// The oldest value on any screen, by the age that the screen told, ms.
    pub age_max: u64,
    /// After what was taken away was there again: until every client knew a text that was stored since, ms.
    pub fresh: Option<u64>,
    /// If anything was saved.
    pub saves: Option<SavesMeasured>,
}

/// Measures a span. `base` is the count before the first of all saves, none if there are none. What is not seen by `now` is unseen until then.
pub fn measure(clients: &[Seen], saves: &[Save], base: Option<u64>, span: Span, now: u64) -> Measurement {
    let mut measured = Measurement { clients: clients.len() as u64, ms: span.to - span.from, ..Measurement::default() };
    // When the n-th save was acknowledged, at least n texts more than at the start were stored, in whatever order they were.
    let stored = saves.iter().filter(|save| save.stored);
    let due: Vec<(u64, &Save)> = base.map_or_else(Vec::new, |base| (base + 1..).zip(stored).collect());
    let mut saved = base.map(|_| of_saves(saves, span));
    for client in clients {
        let gap = client.longest_gap(span);
        measured.gap.add(gap);
        let mut unseen = 0;
        // Both lists ascend, so one walk through the client's values answers for all saves.
        let mut from = 0;
        for (count, save) in &due {
            while client.values.get(from).is_some_and(|value| value.count < *count) {
                from += 1;
            }
            let knew = client.values.get(from).map_or(now, |value| value.at);
            unseen = unseen.max(span.overlap(save.ended, knew));
            if let Some(saved) = saved.as_mut().filter(|_| span.holds(save.ended)) {
                saved.latency.add(knew.saturating_sub(save.sent));
            }
        }
        measured.blackout.add(match base {
            Some(_) if unseen <= AT_ONCE_MS => 0,
            Some(_) => unseen,
            None => gap,
        });
        of_client(client, span, &mut measured);
    }
    measured.handshakes_peak = peak(clients.iter().flat_map(|client| &client.opens).copied(), span);
    measured.saves = saved;
    measured
}

fn of_saves(saves: &[Save], span: Span) -> SavesMeasured {
    let mut measured = SavesMeasured::default();
    for save in saves.iter().filter(|save| span.holds(save.ended)) {
        *(if save.stored { &mut measured.stored } else { &mut measured.failed }) += 1;
        measured.retried += u64::from(!save.failures.is_empty());
        for (reason, ms) in &save.failures {
            *measured.failures.entry(reason.clone()).or_default() += 1;
            measured.slowest_failure = measured.slowest_failure.max(*ms);
        }
    }
    measured
}

fn of_client(client: &Seen, span: Span, measured: &mut Measurement) {
    for pair in client.values.windows(2) {
        let [before, value] = pair else { continue };
        if span.holds(value.at) {
            measured.backwards += u64::from(value.version < before.version);
            measured.duplicates += u64::from(value.version == before.version);
        }
    }
    let handovers = |wanted: bool| client.handovers.iter().filter(move |(at, kept)| span.holds(*at) && *kept == wanted);
    measured.moves.add(handovers(true).count() as u64);
    measured.reconnects.add(handovers(false).count() as u64);
    for (_, code) in client.closes.iter().filter(|(at, _)| span.holds(*at)) {
        *measured.closes.entry(*code).or_default() += 1;
    }
    measured.handshakes += client.opens.iter().filter(|at| span.holds(**at)).count() as u64;
    let oldest = client.ages.iter().filter(|(at, _)| span.holds(*at)).map(|(_, age)| *age).max();
    measured.age_max = measured.age_max.max(oldest.unwrap_or(0));
}

/// The most moments within one second that lie in the span.
fn peak(moments: impl Iterator<Item = u64>, span: Span) -> u64 {
    let mut moments: Vec<u64> = moments.filter(|at| span.holds(*at)).collect();
    moments.sort_unstable();
    let mut first = 0;
    let windows = moments.iter().enumerate().map(|(last, at)| {
        while moments[first] + 1_000 <= *at {
            first += 1;
        }
        last + 1 - first
    });
    windows.max().unwrap_or(0) as u64
}

impl Measurement {
    /// Adds another stretch: times and counts of both, the worse of two peaks.
    pub fn merge(&mut self, other: &Self) {
        self.clients = self.clients.max(other.clients);
        self.ms += other.ms;
        self.blackout.merge(&other.blackout);
        self.gap.merge(&other.gap);
        self.moves.merge(&other.moves);
        self.reconnects.merge(&other.reconnects);
        for (code, times) in &other.closes {
            *self.closes.entry(*code).or_default() += times;
        }
        self.handshakes += other.handshakes;
        self.handshakes_peak = self.handshakes_peak.max(other.handshakes_peak);
        self.missed += other.missed;
        self.backwards += other.backwards;
        self.duplicates += other.duplicates;
        self.age_max = self.age_max.max(other.age_max);
        self.fresh = self.fresh.max(other.fresh);
        match (&mut self.saves, &other.saves) {
            (Some(saves), Some(others)) => saves.merge(others),
            (saves @ None, Some(others)) => *saves = Some(others.clone()),
            (_, None) => {}
        }
    }
}

impl SavesMeasured {
    fn merge(&mut self, other: &Self) {
        self.stored += other.stored;
        self.retried += other.retried;
        self.failed += other.failed;
        for (reason, times) in &other.failures {
            *self.failures.entry(reason.clone()).or_default() += times;
        }
        self.slowest_failure = self.slowest_failure.max(other.slowest_failure);
        self.latency.merge(&other.latency);
        self.lost += other.lost;
        self.doubled += other.doubled;
    }
}

#[cfg(test)]
mod tests {
    use super::{super::record::Value, *};

    const SPAN: Span = Span { from: 100, to: 2_000 };

    fn saves(acknowledged: &[u64]) -> Vec<Save> {
        let save = |(number, ended): (u64, &u64)| Save {
            number,
            sent: ended - 5,
            ended: *ended,
            stored: true,
            failures: Vec::new(),
        };
        (0..).zip(acknowledged).map(save).collect()
    }

    fn seen(counts: &[(u64, u64)]) -> Seen {
        let values = counts.iter().map(|(at, count)| Value { at: *at, version: *count, count: *count }).collect();
        Seen { values, live: vec![(0, true)], ..Seen::default() }
    }

    fn blackout(clients: &[Seen], saves: &[Save]) -> Option<u64> {
        measure(clients, saves, Some(7), SPAN, 5_000).blackout.max()
    }

    #[test]
    fn a_client_that_sees_every_save_soon_has_no_blackout() {
        let client = seen(&[(0, 7), (200, 8), (551, 9)]);
        let measured = measure(&[client], &saves(&[201, 301]), Some(7), SPAN, 5_000);
        assert_eq!(measured.blackout.max(), Some(0));
        let saved = measured.saves.unwrap();
        assert_eq!((saved.stored, saved.latency.quantile(0.5), saved.latency.max()), (2, Some(4), Some(255)));
    }

    #[test]
    fn what_is_seen_later_is_a_blackout_from_its_first_millisecond() {
        assert_eq!(blackout(&[seen(&[(0, 7), (552, 9)])], &saves(&[201, 301])), Some(351));
    }

    #[test]
    fn a_value_that_skips_others_answers_for_them() {
        assert_eq!(blackout(&[seen(&[(0, 7), (700, 10)])], &saves(&[200, 300, 400])), Some(500));
    }

    #[test]
    fn what_is_never_seen_is_a_blackout_until_the_end() {
        assert_eq!(blackout(&[seen(&[(0, 7)])], &saves(&[200])), Some(1_800));
    }

    #[test]
    fn a_save_of_before_counts_from_the_start_of_the_span() {
        assert_eq!(blackout(&[seen(&[(0, 7), (600, 8)])], &saves(&[90])), Some(500));
        let measured = measure(&[seen(&[(0, 7), (600, 8)])], &saves(&[90]), Some(7), SPAN, 5_000);
        assert_eq!(measured.saves.unwrap().stored, 0);
    }

    #[test]
    fn without_saves_a_blackout_is_a_time_without_a_connection() {
        let live = vec![(0, true), (300, false), (320, true)];
        let client = Seen { live, ..Seen::default() };
        let measured = measure(&[client, seen(&[])], &[], None, SPAN, 5_000);
        assert_eq!((measured.blackout.max(), measured.blackout.quantile(0.5)), (Some(20), Some(0)));
        assert_eq!(measured.saves, None);
    }

    #[test]
    fn values_that_fall_or_repeat_are_counted() {
        let client = seen(&[(0, 7), (200, 9), (300, 8), (400, 8), (2_500, 1)]);
        let measured = measure(&[client], &[], Some(7), SPAN, 5_000);
        assert_eq!((measured.backwards, measured.duplicates), (1, 1));
    }

    #[test]
    fn what_happened_at_other_times_does_not_count() {
        let client = Seen {
            handovers: vec![(50, true), (150, true), (160, false), (2_000, true)],
            opens: vec![50, 150, 1_149, 1_150, 2_000],
            closes: vec![(99, 1006), (100, 1012)],
            ages: vec![(50, 9_000), (150, 700), (160, 600)],
            ..Seen::default()
        };
        let failed = Save { number: 9, sent: 1, ended: 500, stored: false, failures: vec![("503".into(), 40); 2] };
        let measured = measure(&[client], &[failed.clone(), Save { ended: 99, ..failed }], Some(7), SPAN, 500);
        assert_eq!((measured.moves.max(), measured.reconnects.max()), (Some(1), Some(1)));
        assert_eq!((measured.handshakes, measured.handshakes_peak), (3, 2), "150 and 1,150 are a second apart");
        assert_eq!((measured.closes, measured.age_max), ([(1012, 1)].into(), 700));
        let saved = measured.saves.unwrap();
        assert_eq!((saved.stored, saved.failed, saved.retried, saved.slowest_failure), (0, 1, 1, 40));
        assert_eq!(saved.failures, [("503".to_owned(), 2)].into());
    }

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let mut spread = Spread::default();
        (1..=100).for_each(|ms| spread.add(ms));
        assert_eq!([0.5, 0.9, 0.99].map(|share| spread.quantile(share)), [Some(50), Some(90), Some(99)]);
        assert_eq!((spread.max(), Spread::default().quantile(0.5)), (Some(100), None));
    }
}
