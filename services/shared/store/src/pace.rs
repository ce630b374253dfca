//! When to read next. Pure decisions: time is an argument, nothing is awaited.
//!
//! The reader is like a network driver that turns its interrupts off under load. Asleep it waits for a bell, with a slow poll
//! as the net. A bell wakes it; awake it reads often and writers do not ring. When nothing moves any more it requests a notification,
//! which is refused while a writer is at work, reads once more, and sleeps only if nothing has moved by then: every later writer rings.

use std::time::Duration;

use tokio::time::Instant;

use crate::Path;

/// How often a [`crate::Reader`] reads. The defaults are what the services use; tests make them shorter or longer.
#[derive(Debug, Clone)]
pub struct Intervals {
    /// Between two polls of a sleeping reader: how stale a value can be if bells get lost without a sign.
    pub poll: Duration,
    /// Between two reads while there is no working doorbell, or there are writers that never ring. A read costs the server 0.1 ms.
    pub poll_without_doorbell: Duration,
    /// Between two reads while versions move: at most 50 reads a second, whatever the write rate.
    pub awake: Duration,
    /// The interval doubles to this while nothing moves but a notification is refused, because a transaction that has written is open.
    pub awake_max: Duration,
    /// After a failed read. Three tries fit into the 3 s in which a reader must be fresh after the database's return.
    pub retry: Duration,
    /// Asked reads are at least this far apart, so that a storm of callers shares few queries.
    pub asked: Duration,
    /// How long after a read that surprised a sleeping reader its bell may arrive. A bell takes milliseconds.
    pub bell_grace: Duration,
}

impl Default for Intervals {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(2),
            poll_without_doorbell: Duration::from_millis(200),
            awake: Duration::from_millis(20),
            awake_max: Duration::from_millis(200),
            retry: Duration::from_millis(500),
            asked: Duration::from_millis(10),
            bell_grace: Duration::from_secs(1),
        }
    }
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Read all feeds.
    Read(Path),
    /// Request a notification, then read all feeds.
    RequestAndRead,
    /// The doorbell has failed without a sign: build it anew.
    Rebuild,
}

/// What a read showed, compared with the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Something is different.
    pub moved: bool,
    /// A version is greater: somebody has written.
    pub newer: bool,
    /// There are writers that never ring.
    pub unannounced: bool,
}

/// Whether the next writer was asked to ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// Not before this read. An earlier request may stand.
    None,
    /// Just before this read: every writer that the read does not see rings.
    Granted,
    /// A writer is at work: its change comes with its commit, and it may not ring.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Reads fail.
    Failing { at: Instant },
    /// Reads succeed, but there is no working doorbell.
    Deaf { at: Instant },
    /// Values move, or no notification is requested yet.
    Awake { at: Instant, interval: Duration, request: bool },
    /// Every later writer rings, but for those that never do: then there is a read at this time, however long the poll takes.
    Asleep { at: Option<Instant> },
}

/// The state of the decisions.
#[derive(Debug)]
pub(crate) struct Pace {
    intervals: Intervals,
    mode: Mode,
    listening: bool,
    next_poll: Instant,
    last_read: Option<Instant>,
    asked_at: Option<Instant>,
    /// Until when a bell has to arrive, after a change that no bell announced.
    bell_due: Option<Instant>,
}

impl Pace {
    /// Starts with a read at once. `phase` in 0..1 spreads the polls of replicas that start together.
    pub(crate) fn new(intervals: Intervals, now: Instant, phase: f64) -> Self {
        let next_poll = now + intervals.poll.mul_f64(phase);
        let mode = Mode::Deaf { at: now };
        Self { intervals, mode, listening: false, next_poll, last_read: None, asked_at: None, bell_due: None }
    }

    /// What to do next, and when.
    pub(crate) fn next(&self) -> (Instant, Step) {
        let scheduled = match self.mode {
            Mode::Deaf { at } if self.last_read.is_none() => (at, Step::Read(Path::Start)),
            Mode::Failing { at } | Mode::Deaf { at } => (at, Step::Read(Path::Poll)),
            Mode::Awake { at, request: true, .. } => (at, Step::RequestAndRead),
            Mode::Awake { at, request: false, .. } => (at, Step::Read(Path::Bell)),
            Mode::Asleep { at } => (at.map_or(self.next_poll, |at| at.min(self.next_poll)), Step::Read(Path::Poll)),
        };
        let asked = self.asked_at.map(|at| (at, Step::Read(Path::Asked)));
        let rebuild = self.bell_due.map(|at| (at, Step::Rebuild));
        // Of two at the same time the first wins; any read answers those who asked.
        [asked, rebuild]
            .into_iter()
            .flatten()
            .fold(scheduled, |best, other| if other.0 < best.0 { other } else { best })
    }

    /// A bell rang.
    pub(crate) fn bell(&mut self, now: Instant) {
        self.bell_due = None;
        // A bell that finds the reader awake must not make it read more often than it may.
        let earliest = self.last_read.map_or(now, |last| now.max(last + self.intervals.awake));
        match &mut self.mode {
            Mode::Failing { .. } => {}
            Mode::Deaf { at } => *at = earliest.min(*at),
            Mode::Awake { at, interval, .. } => {
                *at = earliest.min(*at);
                *interval = self.intervals.awake;
            }
            Mode::Asleep { .. } => self.mode = self.awake_at(now),
        }
    }

    /// The doorbell began or ceased to work.
    pub(crate) fn doorbell(&mut self, now: Instant, listening: bool) {
        self.listening = listening;
        self.bell_due = None;
        // Either way something may have been missed.
        match self.mode {
            Mode::Failing { .. } => {}
            _ if listening => self.mode = self.awake_at(now),
            _ => self.mode = Mode::Deaf { at: now },
        }
    }

    /// Somebody wants a reading that begins from now on. While reads fail, the next retry has to do.
    pub(crate) fn asked(&mut self, now: Instant) {
        if self.asked_at.is_none() && !matches!(self.mode, Mode::Failing { .. }) {
            self.asked_at = Some(self.last_read.map_or(now, |last| now.max(last + self.intervals.asked)));
        }
    }

    /// A read that began at `began` succeeded.
    pub(crate) fn read(&mut self, began: Instant, seen: Seen, request: Request) {
        self.last_read = Some(began);
        self.asked_at = None;
        while self.next_poll <= began {
            self.next_poll += self.intervals.poll;
        }
        let was_asleep = self.is_asleep();
        self.mode = if !self.listening {
            Mode::Deaf { at: began + self.intervals.poll_without_doorbell }
        } else if seen.moved {
            self.awake_at(began + self.intervals.awake)
        } else if was_asleep || request == Request::Granted {
            Mode::Asleep { at: seen.unannounced.then(|| began + self.intervals.poll_without_doorbell) }
        } else {
            let interval = match self.mode {
                Mode::Awake { interval, .. } => interval,
                _ => self.intervals.awake,
            };
            if request == Request::Refused {
                let doubled = (interval * 2).min(self.intervals.awake_max);
                Mode::Awake { at: began + doubled, interval: doubled, request: false }
            } else {
                Mode::Awake { at: began, interval, request: true }
            }
        };
        if was_asleep && self.listening && seen.newer && !seen.unannounced {
            self.bell_due = Some(began + self.intervals.bell_grace);
        }
    }

    /// Whether it waits for a bell.
    pub(crate) fn is_asleep(&self) -> bool {
        matches!(self.mode, Mode::Asleep { .. })
    }

    /// Whether nothing moves, and yet it must read as often as if there were no doorbell.
    pub(crate) fn is_kept_awake(&self) -> bool {
        matches!(self.mode, Mode::Awake { interval, .. } if interval >= self.intervals.awake_max)
    }

    /// A read failed.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.mode = Mode::Failing { at: now + self.intervals.retry };
        self.asked_at = None;
        self.bell_due = None;
    }

    /// The rebuild that [`Step::Rebuild`] asked for has begun.
    pub(crate) fn rebuilding(&mut self) {
        self.bell_due = None;
    }

    fn awake_at(&self, at: Instant) -> Mode {
        Mode::Awake { at, interval: self.intervals.awake, request: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Seen = Seen { moved: false, newer: false, unannounced: false };
    const WRITTEN: Seen = Seen { moved: true, newer: true, unannounced: false };

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// A reader with a doorbell that went to sleep at `now`; its next poll is due 1 s later.
    fn asleep(now: Instant) -> Pace {
        let mut pace = Pace::new(Intervals::default(), now, 0.5);
        pace.doorbell(now, true);
        pace.read(now, QUIET, Request::Granted);
        pace
    }

    #[test]
    fn reads_at_once_and_without_a_doorbell_every_200_ms() {
        let now = Instant::now();
        let mut pace = Pace::new(Intervals::default(), now, 0.5);
        assert_eq!(pace.next(), (now, Step::Read(Path::Start)));
        pace.read(now, WRITTEN, Request::None);
        assert_eq!(pace.next(), (now + ms(200), Step::Read(Path::Poll)));
    }

    #[test]
    fn asleep_it_polls_once_per_interval_after_a_jittered_first_time() {
        let now = Instant::now();
        let mut pace = asleep(now);
        assert_eq!(pace.next(), (now + ms(1000), Step::Read(Path::Poll)));
        pace.read(now + ms(1001), QUIET, Request::None);
        assert_eq!(pace.next(), (now + ms(3000), Step::Read(Path::Poll)));
    }

    #[test]
    fn a_bell_wakes_it_and_it_sleeps_only_after_a_request_and_another_read() {
        let now = Instant::now();
        let mut pace = asleep(now);
        let rung = now + ms(100);
        pace.bell(rung);
        assert_eq!(pace.next(), (rung, Step::Read(Path::Bell)));
        pace.read(rung, WRITTEN, Request::None);
        assert_eq!(pace.next(), (rung + ms(20), Step::Read(Path::Bell)));
        pace.read(rung + ms(20), QUIET, Request::None);
        assert_eq!(pace.next(), (rung + ms(20), Step::RequestAndRead));
        pace.read(rung + ms(21), QUIET, Request::Granted);
        assert_eq!(pace.next(), (now + ms(1000), Step::Read(Path::Poll)));
    }

    #[test]
    fn a_write_between_request_and_read_keeps_it_awake() {
        let now = Instant::now();
        let mut pace = asleep(now);
        pace.bell(now);
        pace.read(now, QUIET, Request::None);
        pace.read(now + ms(1), WRITTEN, Request::Granted);
        assert_eq!(pace.next(), (now + ms(21), Step::Read(Path::Bell)));
    }

    #[test]
    fn a_refused_request_doubles_the_interval_up_to_200_ms() {
        let now = Instant::now();
        let mut pace = asleep(now);
        pace.bell(now);
        let mut at = now;
        for interval in [40, 80, 160, 200, 200] {
            pace.read(at, QUIET, Request::None);
            assert_eq!(pace.next(), (at, Step::RequestAndRead));
            pace.read(at, QUIET, Request::Refused);
            assert_eq!(pace.next(), (at + ms(interval), Step::Read(Path::Bell)));
            at += ms(interval);
        }
        assert!(pace.is_kept_awake());
        pace.read(at, WRITTEN, Request::None);
        assert_eq!(pace.next(), (at + ms(20), Step::Read(Path::Bell)));
    }

    #[test]
    fn bells_while_awake_do_not_raise_the_rate_of_reads() {
        let now = Instant::now();
        let mut pace = asleep(now);
        pace.bell(now);
        pace.read(now, WRITTEN, Request::None);
        pace.bell(now + ms(1));
        pace.bell(now + ms(2));
        assert_eq!(pace.next(), (now + ms(20), Step::Read(Path::Bell)));
    }

    #[test]
    fn while_there_are_writers_that_never_ring_it_reads_every_200_ms_and_suspects_no_doorbell() {
        let now = Instant::now();
        let mut pace = asleep(now);
        let unannounced = Seen { unannounced: true, ..QUIET };
        pace.read(now + ms(1000), unannounced, Request::None);
        assert_eq!(pace.next(), (now + ms(1200), Step::Read(Path::Poll)));
        pace.read(now + ms(1200), Seen { unannounced: true, ..WRITTEN }, Request::None);
        assert_eq!(pace.next(), (now + ms(1220), Step::Read(Path::Bell)));
        pace.read(now + ms(1220), unannounced, Request::None);
        pace.read(now + ms(1221), unannounced, Request::Granted);
        assert_eq!(pace.next(), (now + ms(1421), Step::Read(Path::Poll)));
        pace.bell(now + ms(1300));
        assert_eq!(pace.next(), (now + ms(1300), Step::Read(Path::Bell)));
    }

    #[test]
    fn a_change_that_no_bell_announces_rebuilds_the_doorbell() {
        let now = Instant::now();
        let mut pace = asleep(now);
        pace.read(now, WRITTEN, Request::None);
        pace.read(now + ms(20), QUIET, Request::Granted);
        assert_eq!(pace.next(), (now + ms(1000), Step::Read(Path::Poll)));
        pace.read(now + ms(1000), QUIET, Request::None);
        assert_eq!(pace.next(), (now + ms(1000), Step::Rebuild));
        pace.rebuilding();
        pace.doorbell(now + ms(1001), false);
        assert_eq!(pace.next(), (now + ms(1001), Step::Read(Path::Poll)));
        pace.doorbell(now + ms(1010), true);
        assert_eq!(pace.next(), (now + ms(1010), Step::Read(Path::Bell)));
    }

    #[test]
    fn a_late_bell_clears_the_suspicion() {
        let now = Instant::now();
        let mut pace = asleep(now);
        pace.read(now, WRITTEN, Request::None);
        pace.bell(now + ms(5));
        pace.read(now + ms(20), QUIET, Request::Granted);
        pace.read(now + ms(1000), QUIET, Request::None);
        assert_eq!(pace.next(), (now + ms(3000), Step::Read(Path::Poll)));
    }

    #[test]
    fn after_a_failure_it_retries_every_500_ms_whatever_else_happens() {
        let now = Instant::now();
        let mut pace = asleep(now);
        pace.failed(now);
        pace.bell(now);
        pace.asked(now);
        pace.doorbell(now, false);
        assert_eq!(pace.next(), (now + ms(500), Step::Read(Path::Poll)));
        pace.failed(now + ms(500));
        assert_eq!(pace.next(), (now + ms(1000), Step::Read(Path::Poll)));
        pace.doorbell(now + ms(600), true);
        pace.read(now + ms(1000), QUIET, Request::None);
        assert_eq!(pace.next(), (now + ms(1000), Step::RequestAndRead));
    }

    #[test]
    fn asked_reads_come_at_once_but_not_in_a_storm() {
        let now = Instant::now();
        let mut pace = asleep(now);
        pace.asked(now + ms(100));
        assert_eq!(pace.next(), (now + ms(100), Step::Read(Path::Asked)));
        pace.read(now + ms(100), QUIET, Request::None);
        pace.asked(now + ms(101));
        pace.asked(now + ms(102));
        assert_eq!(pace.next(), (now + ms(110), Step::Read(Path::Asked)));
    }
}
