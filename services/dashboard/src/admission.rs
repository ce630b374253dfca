//! Admission: how many handshakes a replica takes, and when those that it does not take may come again. Pure: time and chance are arguments.
//!
//! A bucket of tokens, kept as the moment at which it is full again: a handshake that is taken puts it off by the time in which one token grows. Half
//! of the bucket is for clients that resume. They had values on their screens a moment ago, and those that come for the first time must not keep them
//! out; what a replica can take beyond them is for everybody.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::warn;

use crate::session::CLOSING;

/// Added to every wait: who comes back sooner than this meets the same crowd.
const SHORTEST: Duration = Duration::from_millis(100);
/// Longest wait before its jitter: as long as a client waits by itself between two tries. A crowd that does not come back must not keep others away.
const LONGEST: Duration = Duration::from_secs(10);
/// Shortest wait when there is no place. Nobody knows when a client leaves; after a second another replica may have room.
const NO_PLACE: Duration = Duration::from_secs(1);

/// Files that are open beside the sockets of users: the database's connections, those to the generator, scrapes; a dozen, and as many again to spare.
const OTHER_FILES: usize = 64;

/// What one replica takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Handshakes a second, in the long run. At least 1.
    pub rate: u32,
    /// Handshakes at once, after a rest. At least 1.
    pub burst: u32,
    /// Connections that are served.
    pub connections: usize,
}

impl Default for Limits {
    /// Even an unoptimised build takes 2,000 handshakes a second on a core, so at this rate there is room for the values of those who are there. The
    /// cap is what fits into the 512 MiB of a Board's dashboard when nobody reads: 20,000 connections, each with 4 KiB in the service, as much in the
    /// kernel, and 16 KiB that wait to be sent.
    fn default() -> Self {
        Self { rate: 2_000, burst: 5_000, connections: 20_000 }
    }
}

impl Limits {
    /// Sockets that may be open, whatever they are for; above it only a plain HTTP answer is given. To say no in a way that a browser can read takes a
    /// socket, for [`CLOSING`] at the longest: beside the connections there is room for as many of them as handshakes can be taken in that time.
    fn sockets(&self) -> usize {
        let closing = f64::from(self.burst) + f64::from(self.rate) * CLOSING.as_secs_f64();
        self.connections.saturating_add(closing as usize)
    }

    /// The time in which one token grows, rounded up: a bucket never gives more than its rate.
    fn token(&self) -> Duration {
        Duration::from_nanos(1_000_000_000_u64.div_ceil(self.rate.max(1).into()))
    }
}

/// Why a client is not served now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Too many handshakes a second.
    Rate,
    /// Too many connections.
    Full,
}

/// A client that has to come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Later {
    /// Why.
    pub reason: Reason,
    /// In how long, ms.
    pub retry_ms: u64,
}

/// Decides who is served.
#[derive(Debug)]
pub struct Gate {
    limits: Limits,
    sockets: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When the bucket is full, if nobody else comes.
    full_at: Instant,
    /// When the last ones come again that were sent away: those that are new, those that resume. Each was given a turn of its own, one token after
    /// the one before.
    turns: [Instant; 2],
    served: usize,
}

/// A place among the connections that are served, until it is dropped.
#[derive(Debug)]
pub struct Place(Arc<Gate>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.lock().served -= 1;
    }
}

impl Gate {
    /// A full bucket, and nobody served. `files`: how many files the process may have open.
    pub fn new(mut limits: Limits, files: usize, now: Instant) -> Self {
        let (wanted, sockets) = (limits.sockets(), files.saturating_sub(OTHER_FILES).min(limits.sockets()));
        if sockets < wanted {
            warn!(files, sockets, wanted, "the limit of open files is too low for MAX_CONNECTIONS and HANDSHAKE_BURST");
        }
        limits.connections = limits.connections.min(sockets);
        Self { limits, sockets, state: Mutex::new(State { full_at: now, turns: [now; 2], served: 0 }) }
    }

    /// How many sockets may be open, whatever they are for.
    pub fn sockets(&self) -> usize {
        self.sockets
    }

    /// Decides about a client that has come at `now`. `resumes`: it brings a cursor. `chance` is in 0..1 and keeps apart those that are sent away together.
    ///
    /// # Errors
    /// [`Later`].
    pub fn admit(self: &Arc<Self>, resumes: bool, now: Instant, chance: f64) -> Result<Place, Later> {
        let (token, burst) = (self.limits.token(), self.limits.burst.max(1));
        let open_to_it = token * if resumes { burst } else { burst - burst / 2 };
        let mut state = self.lock();
        let taken = state.full_at.saturating_duration_since(now) + token;
        let (reason, wait) = if state.served >= self.limits.connections {
            (Reason::Full, NO_PLACE)
        } else if taken > open_to_it {
            (Reason::Rate, taken - open_to_it)
        } else {
            state.full_at = now + taken;
            state.served += 1;
            drop(state);
            return Ok(Place(Arc::clone(self)));
        };
        let last = &mut state.turns[usize::from(resumes)];
        *last = (now + wait).max(*last + token).min(now + LONGEST);
        let wait = (*last - now + SHORTEST).mul_f64(1.0 + chance / 2.0);
        Err(Later { reason, retry_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain numbers, each whole whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    use super::*;

    const PLENTY: usize = 1_000_000;

    fn gate(rate: u32, burst: u32, connections: usize, now: Instant) -> Arc<Gate> {
        Arc::new(Gate::new(Limits { rate, burst, connections }, usize::MAX, now))
    }

    /// How many of `count` are admitted at one moment; they stay.
    fn admitted(gate: &Arc<Gate>, resumes: bool, count: usize, now: Instant) -> usize {
        let places = (0..count).filter_map(|_| gate.admit(resumes, now, 0.0).ok());
        places.map(std::mem::forget).count()
    }

    #[test]
    fn in_no_stretch_of_time_are_more_admitted_than_the_rate_and_one_burst() {
        let (seed, start) = (rand::random(), Instant::now());
        let mut chance = SmallRng::seed_from_u64(seed);
        for _ in 0..200 {
            let (rate, burst) = (chance.random_range(1..3_000), chance.random_range(1..500));
            let (gate, mut now, mut at) = (gate(rate, burst, PLENTY, start), start, Vec::new());
            for _ in 0..2_000 {
                // Storms and pauses of every length.
                now += Duration::from_secs_f64(chance.random::<f64>().powi(12) * 2.0);
                if let Ok(place) = gate.admit(chance.random(), now, chance.random()) {
                    std::mem::forget(place);
                    at.push(now);
                }
            }
            for (i, from) in at.iter().enumerate().step_by(7) {
                for (j, to) in at.iter().enumerate().skip(i) {
                    let most = f64::from(rate) * (*to - *from).as_secs_f64() + f64::from(burst);
                    let count = j - i + 1;
                    assert!(count as f64 <= most + 1e-6, "{count} > {most}, {rate}/s, burst {burst}, seed {seed}");
                }
            }
        }
    }

    #[test]
    fn everybody_is_admitted_who_keeps_to_the_rate() {
        let start = Instant::now();
        let gate = gate(2_000, 1, PLENTY, start);
        for n in 0..10_000 {
            assert_eq!(admitted(&gate, false, 1, start + Duration::from_micros(500) * n), 1, "{n}");
        }
    }

    #[test]
    fn a_crowd_of_new_clients_leaves_half_of_the_burst_to_those_that_resume() {
        let now = Instant::now();
        let gate = gate(2_000, 5_000, PLENTY, now);
        assert_eq!(admitted(&gate, false, 100_000, now), 2_500);
        assert_eq!(admitted(&gate, true, 100_000, now), 2_500);
    }

    #[test]
    fn those_that_resume_get_all_that_grows_however_many_new_ones_come() {
        let start = Instant::now();
        let gate = gate(2_000, 5_000, PLENTY, start);
        let (mut new, mut resumed) = (0, 0);
        // A second in which 2,000 resume and 200,000 are new: a hundred new ones before each.
        for millisecond in 0..1_000 {
            let now = start + Duration::from_millis(millisecond);
            new += admitted(&gate, false, 200, now);
            resumed += admitted(&gate, true, 2, now);
        }
        assert_eq!(resumed, 2_000, "nobody who resumes waits");
        assert!((2_500..2_510).contains(&new), "{new}: what was open to them at the start");
    }

    #[test]
    fn those_who_are_sent_away_come_back_one_after_the_other_and_are_admitted() {
        let start = Instant::now();
        for resumes in [false, true] {
            let gate = gate(2_000, 5_000, PLENTY, start);
            assert_eq!(admitted(&gate, true, 5_000, start), 5_000);
            let mut chance = SmallRng::seed_from_u64(7);
            let mut waits: Vec<u64> = (0..6_000)
                .map(|_| gate.admit(resumes, start, chance.random()).unwrap_err())
                .inspect(|later| assert_eq!(later.reason, Reason::Rate))
                .map(|later| later.retry_ms)
                .collect();
            waits.sort_unstable();
            let in_one_ms = waits.chunk_by(|a, b| a == b).map(<[u64]>::len).max().unwrap();
            assert!(in_one_ms < 20, "{in_one_ms} come back in the same millisecond");
            let mut refused = 0;
            for ms in &waits {
                refused += 1 - admitted(&gate, resumes, 1, start + Duration::from_millis(*ms));
            }
            assert!(refused < 60, "{refused} of 6000 had to come a third time");
            // What is open to it grows at 2,000 a second, and begins to grow when half of the bucket is full again.
            let needed = if resumes { 3_000 } else { 3_000 + 1_250 };
            assert!((needed..needed * 3 / 2 + 200).contains(waits.last().unwrap()), "{:?}", waits.last());
        }
    }

    #[test]
    fn above_the_cap_clients_are_told_to_come_later_until_a_place_is_free() {
        let now = Instant::now();
        let gate = gate(2_000, 5_000, 2, now);
        let places = [gate.admit(false, now, 0.0).unwrap(), gate.admit(true, now, 0.0).unwrap()];
        for resumes in [false, true] {
            let later = |chance| gate.admit(resumes, now, chance).unwrap_err();
            assert_eq!(later(0.0), Later { reason: Reason::Full, retry_ms: 1_100 });
            assert!((1_640..1_660).contains(&later(0.999).retry_ms));
        }
        drop(places);
        assert_eq!(admitted(&gate, false, 5, now), 2);
    }

    #[test]
    fn no_crowd_makes_anybody_wait_longer_than_fifteen_seconds() {
        let now = Instant::now();
        let gate = gate(1, 1, PLENTY, now);
        assert_eq!(admitted(&gate, false, 1, now), 1);
        let longest = (0..10_000).map(|_| gate.admit(false, now, 0.999).unwrap_err().retry_ms).max();
        assert_eq!(longest, Some(15_144));
    }

    #[test]
    fn beside_the_connections_there_is_room_for_saying_no() {
        let gate = |files| Gate::new(Limits::default(), files, Instant::now());
        let sizes = |gate: Gate| (gate.limits.connections, gate.sockets);
        assert_eq!(sizes(gate(1 << 20)), (20_000, 27_000));
        assert_eq!(sizes(gate(25_000)), (20_000, 24_936), "less room for saying no");
        assert_eq!(sizes(gate(1_024)), (960, 960), "no more than there are files");
    }
}
