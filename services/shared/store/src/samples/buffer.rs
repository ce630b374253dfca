//! Samples that are not stored yet. Pure: time is an argument.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::Sample;

/// What waits, in the order of its arrival.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    waiting: VecDeque<(Instant, Sample)>,
}

/// Samples that are being stored. Until that is done they wait on.
#[derive(Debug, PartialEq)]
pub(super) struct Batch {
    /// How many wait that are older.
    older: usize,
    /// How many of these have waited for longer than usual.
    pub late: u64,
    /// In the order of their arrival.
    pub samples: Vec<Sample>,
}

impl Buffer {
    /// Takes a sample in; whether it waits alone.
    pub fn push(&mut self, now: Instant, sample: Sample) -> bool {
        self.waiting.push_back((now, sample));
        self.waiting.len() == 1
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Since when the oldest waits.
    pub fn since(&self) -> Option<Instant> {
        self.waiting.front().map(|(arrived, _)| *arrived)
    }

    /// Gives up on what has waited for longer than `keep`; how many.
    pub fn expire(&mut self, now: Instant, keep: Duration) -> u64 {
        let expired = self.waiting.partition_point(|(arrived, _)| now.duration_since(*arrived) > keep);
        self.waiting.drain(..expired);
        expired as u64
    }

    /// Up to `most` samples, the newest: after an outage the present is worth more than the past.
    pub fn newest(&self, most: usize, now: Instant, late: Duration) -> Batch {
        let older = self.waiting.len().saturating_sub(most);
        let newest = self.waiting.range(older..);
        Batch {
            older,
            late: newest.clone().filter(|(arrived, _)| now.duration_since(*arrived) > late).count() as u64,
            samples: newest.map(|(_, sample)| sample.clone()).collect(),
        }
    }

    /// Forgets a batch that is stored. Since it was made, samples may have come, but none gone.
    pub fn remove(&mut self, batch: &Batch) {
        self.waiting.drain(batch.older..batch.older + batch.samples.len());
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::Usage;

    const KEEP: Duration = Duration::from_secs(300);
    const LATE: Duration = Duration::from_secs(2);

    fn sample(second: i64) -> Sample {
        let usage = Usage { cpu: 1.0, memory: 2.0, disk: 3.0 };
        Sample { server: "server-1".into(), second: DateTime::from_timestamp(second, 0).unwrap(), usage }
    }

    /// One sample a second, from the first to the last.
    fn filled(start: Instant, seconds: u64) -> Buffer {
        let mut buffer = Buffer::default();
        for second in 0..seconds {
            let alone = buffer.push(start + Duration::from_secs(second), sample(second as i64));
            assert_eq!(alone, second == 0);
        }
        buffer
    }

    fn seconds(batch: &Batch) -> Vec<i64> {
        batch.samples.iter().map(|sample| sample.second.timestamp()).collect()
    }

    #[test]
    fn the_newest_go_first_and_the_others_wait_whatever_comes_meanwhile() {
        let start = Instant::now();
        let (mut buffer, now) = (filled(start, 10), start + Duration::from_secs(10));
        let batch = buffer.newest(4, now, LATE);
        assert_eq!((seconds(&batch), batch.late), (vec![6, 7, 8, 9], 2), "two have waited for longer than 2 s");
        buffer.push(now, sample(10));
        buffer.remove(&batch);
        assert_eq!(buffer.since(), Some(start));
        let rest = buffer.newest(100, now, LATE);
        assert_eq!(seconds(&rest), [0, 1, 2, 3, 4, 5, 10]);
        buffer.remove(&rest);
        assert_eq!((buffer.len(), buffer.since()), (0, None));
        assert_eq!(seconds(&buffer.newest(4, now, LATE)), Vec::<i64>::new());
    }

    #[test]
    fn what_is_not_stored_waits_for_five_minutes_and_not_longer() {
        let start = Instant::now();
        let mut buffer = filled(start, 400);
        let end = start + Duration::from_secs(399);
        drop(buffer.newest(10, end, LATE));
        assert_eq!(buffer.len(), 400, "a batch that failed is still there");
        assert_eq!(buffer.expire(end, KEEP), 99);
        assert_eq!((buffer.len(), buffer.since()), (301, Some(start + Duration::from_secs(99))));
        assert_eq!(buffer.expire(end, KEEP), 0);
    }
}
