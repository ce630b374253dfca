//! What was seen and done. Times are milliseconds on the drill's own clock, which starts once.

/// A stretch of time, ms: from inclusive, to exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its start.
    pub from: u64,
    /// Its end.
    pub to: u64,
}

impl Span {
    /// Whether a moment is in it.
    pub fn holds(self, at: u64) -> bool {
        (self.from..self.to).contains(&at)
    }

    /// How much of another stretch is in it, ms.
    pub fn overlap(self, from: u64, to: u64) -> u64 {
        to.min(self.to).saturating_sub(from.max(self.from))
    }
}

/// A value that a client took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value {
    /// When.
    pub at: u64,
    /// Its version.
    pub version: u64,
    /// The number of texts that it tells.
    pub count: u64,
}

/// What one client saw.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Each value that it took.
    pub values: Vec<Value>,
    /// (when, whether it has a connection that can deliver): each change.
    pub live: Vec<(u64, bool)>,
    /// (when, whether the old connection lived until the new one answered): each change of the replica.
    pub handovers: Vec<(u64, bool)>,
    /// When it began to shake hands.
    pub opens: Vec<u64>,
    /// (when, close code): connections that ended without the client's wish.
    pub closes: Vec<(u64, u16)>,
    /// (when, how old the oldest value was right before it was renewed, ms): those of half a second and more.
    pub ages: Vec<(u64, u64)>,
}

impl Seen {
    /// Notes whether a connection can deliver, if that is news. What is noticed late may have begun earlier, but not before the last change.
    pub fn set_live(&mut self, at: u64, live: bool) {
        match self.live.last() {
            Some((_, before)) if *before == live => {}
            last => {
                let at = at.max(last.map_or(0, |(last, _)| *last));
                self.live.push((at, live));
            }
        }
    }

    /// Whether a connection can deliver now.
    pub fn is_live(&self) -> bool {
        self.live.last().is_some_and(|(_, live)| *live)
    }

    /// The newest count that it knows.
    pub fn count(&self) -> Option<u64> {
        self.values.last().map(|value| value.count)
    }

    /// The longest time within the span in which it had no connection that could deliver, ms.
    pub fn longest_gap(&self, span: Span) -> u64 {
        let ends = self.live.iter().skip(1).map(|(at, _)| *at).chain([u64::MAX]);
        let gaps = self.live.iter().zip(ends).filter(|((_, live), _)| !live);
        gaps.map(|((from, _), to)| span.overlap(*from, to)).max().unwrap_or(0)
    }
}

/// What came of one save.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Save {
    /// The number that its text carries.
    pub number: u64,
    /// When its last attempt was sent.
    pub sent: u64,
    /// When it was acknowledged or given up.
    pub ended: u64,
    /// Whether it was acknowledged.
    pub stored: bool,
    /// The attempts that failed: in words, and how long each took, ms.
    pub failures: Vec<(String, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_is_that_within_the_span() {
        let changes = [(0, true), (50, false), (150, true), (400, false), (420, true), (990, false)];
        let seen = Seen { live: changes.to_vec(), ..Seen::default() };
        assert_eq!(seen.longest_gap(Span { from: 100, to: 1_000 }), 50);
        assert_eq!(seen.longest_gap(Span { from: 0, to: 100 }), 50);
        assert_eq!(seen.longest_gap(Span { from: 150, to: 400 }), 0);
        assert_eq!(seen.longest_gap(Span { from: 900, to: 5_000 }), 4_010, "it has not ended");
    }

    #[test]
    fn only_news_of_the_connection_is_noted() {
        let mut seen = Seen::default();
        for (at, live) in [(1, true), (2, true), (3, false), (4, false)] {
            seen.set_live(at, live);
        }
        assert_eq!((seen.live.as_slice(), seen.is_live()), ([(1, true), (3, false)].as_slice(), false));
    }
}
