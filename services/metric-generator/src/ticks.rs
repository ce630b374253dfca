//! Which seconds are due. Pure: the wall clock is an argument.

use std::{
    ops::RangeInclusive,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A task that wakes late by up to so many seconds makes up for them. After more the machine was asleep or its clock was set, and nobody measured anything.
const MAKE_UP: i64 = 5;

/// The seconds of one server, in seconds since 1970.
#[derive(Debug, Default)]
pub struct Ticks {
    last: Option<i64>,
}

impl Ticks {
    /// The seconds that are due now, oldest first; none within a second that was due before. A clock that was stepped back is followed: the tables know
    /// which of its seconds they have already.
    pub fn due(&mut self, now: SystemTime) -> RangeInclusive<i64> {
        let second = seconds(now);
        let first = match self.last {
            Some(last) if (last..=last + MAKE_UP).contains(&second) => last + 1,
            _ => second,
        };
        self.last = Some(second);
        first..=second
    }
}

/// How long it is until the next second begins.
#[must_use]
pub fn until_next(now: SystemTime) -> Duration {
    let begun = now.duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    Duration::from_secs(1) - Duration::from_nanos(begun.into())
}

fn seconds(now: SystemTime) -> i64 {
    // A clock before 1970 has not been set: no sample of it would be stored.
    now.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + milliseconds)
    }

    /// The seconds that are due at each of these times, counted from the first.
    fn due(times: &[u64]) -> Vec<Vec<i64>> {
        let mut ticks = Ticks::default();
        times.iter().map(|time| ticks.due(at(*time)).map(|second| second - 1_700_000_000).collect()).collect()
    }

    #[test]
    fn each_second_is_due_once() {
        assert_eq!(due(&[400, 1_001, 1_500, 2_000, 2_999]), [vec![0], vec![1], vec![], vec![2], vec![]]);
    }

    #[test]
    fn a_late_wake_up_makes_up_for_some_seconds() {
        assert_eq!(due(&[0, 3_200, 8_000]), [vec![0], vec![1, 2, 3], vec![4, 5, 6, 7, 8]]);
    }

    #[test]
    fn after_a_long_sleep_only_the_present_is_due() {
        assert_eq!(due(&[0, 6_000, 7_000]), [vec![0], vec![6], vec![7]]);
    }

    #[test]
    fn a_clock_that_is_stepped_back_or_forward_is_followed() {
        assert_eq!(due(&[90_000, 30_000, 30_500, 31_000, 91_000]), [vec![90], vec![30], vec![], vec![31], vec![91]]);
    }

    #[test]
    fn the_next_second_begins_on_the_wall_clock() {
        assert_eq!(until_next(at(250)), Duration::from_millis(750));
        assert_eq!(until_next(at(0)), Duration::from_secs(1));
        assert_eq!(until_next(at(999)), Duration::from_millis(1));
    }
}
