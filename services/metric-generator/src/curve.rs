//! Made-up load of a server: a pure function of seed, server and second. Whoever asks, whenever, gets the same.
//!
//! * Processors: a daily wave with its peak in the server's own afternoon, noise, and bursts of some minutes.
//! * Memory: follows the processors of the last minutes.
//! * Disk: fills slowly and falls when it is cleaned, about once a day.

use std::f64::consts::TAU;

use store::Usage;

const MINUTE: i64 = 60;
const DAY: i64 = 86_400;

/// Each window of this length may have one burst.
const BURST_WINDOW: i64 = 20 * MINUTE;

/// How long a burst takes to grow and to fade.
const BURST_EDGE: f64 = 30.0;

/// One server's load.
#[derive(Debug, Clone)]
pub struct Curve {
    /// Of this server with this seed; every random choice comes from it.
    key: u64,
    /// Percent of its processors at night.
    base: f64,
    /// What the day adds.
    wave: f64,
    /// The second of the day with the highest wave.
    peak: i64,
    /// Percent of its memory without load.
    resident: f64,
    /// From one cleaning of the disk to the next, in seconds.
    cycle: i64,
    /// What keeps servers from doing everything at the same time, in seconds.
    phase: i64,
}

/// What a random choice is for; each has its own.
#[derive(Clone, Copy)]
enum Choice {
    Base,
    Wave,
    Peak,
    Resident,
    Cycle,
    Phase,
    Slow,
    Fast,
    Settled,
    Burst,
    BurstStart,
    BurstLength,
    BurstHeight,
    DiskLow,
    DiskHigh,
}

impl Curve {
    /// The curve of server `number` with this seed.
    #[must_use]
    pub fn new(seed: u64, number: u16) -> Self {
        let key = mix(mix(seed) ^ u64::from(number));
        let between = |choice, low: f64, high: f64| low + (high - low) * chance(key, choice, 0);
        Self {
            key,
            base: between(Choice::Base, 6.0, 18.0),
            wave: between(Choice::Wave, 12.0, 30.0),
            // Between 12 and 18 o'clock UTC.
            peak: (between(Choice::Peak, 0.5, 0.75) * DAY as f64) as i64,
            resident: between(Choice::Resident, 25.0, 40.0),
            cycle: (between(Choice::Cycle, 0.75, 1.5) * DAY as f64) as i64,
            phase: (between(Choice::Phase, 0.0, 1.0) * DAY as f64) as i64,
        }
    }

    /// What the server uses in a second, counted from 1970.
    #[must_use]
    pub fn at(&self, second: i64) -> Usage {
        let cpu = self.load(second) + 4.0 * self.noise(Choice::Fast, second, 7);
        // What was loaded stays in memory for a while.
        let recent = (0..5).map(|minutes| self.load(second - minutes * MINUTE)).sum::<f64>() / 5.0;
        let memory = self.resident + 0.45 * recent + 2.0 * self.noise(Choice::Settled, second, 90);
        Usage { cpu: percent(cpu), memory: percent(memory), disk: percent(self.disk(second)) }
    }

    /// Percent of the processors without the flicker of single seconds.
    fn load(&self, second: i64) -> f64 {
        let day = (second - self.peak).rem_euclid(DAY) as f64 / DAY as f64;
        let wave = self.wave * (0.5 + 0.5 * (TAU * day).cos());
        self.base + wave + 5.0 * self.noise(Choice::Slow, second, 5 * MINUTE) + self.burst(second)
    }

    /// What a burst adds: nothing most of the time.
    fn burst(&self, second: i64) -> f64 {
        let second = second + self.phase;
        let (window, within) = (second.div_euclid(BURST_WINDOW), second.rem_euclid(BURST_WINDOW) as f64);
        if chance(self.key, Choice::Burst, window) > 0.25 {
            return 0.0;
        }
        let length = (2.0 + 6.0 * chance(self.key, Choice::BurstLength, window)) * MINUTE as f64;
        let start = chance(self.key, Choice::BurstStart, window) * (BURST_WINDOW as f64 - length);
        let height = 25.0 + 35.0 * chance(self.key, Choice::BurstHeight, window);
        let edge = (within - start).min(start + length - within) / BURST_EDGE;
        height * smooth(edge.clamp(0.0, 1.0))
    }

    /// Percent of the disk: never falls within a cycle.
    fn disk(&self, second: i64) -> f64 {
        let second = second + self.phase;
        let (cycle, within) = (second.div_euclid(self.cycle), second.rem_euclid(self.cycle));
        let low = 30.0 + 15.0 * chance(self.key, Choice::DiskLow, cycle);
        let high = 70.0 + 22.0 * chance(self.key, Choice::DiskHigh, cycle);
        let part = within as f64 / self.cycle as f64;
        // Quicker at times, but never backwards: its slope is 1 + 0.8 cos, which is positive.
        let filled = part + 0.8 * (TAU * 6.0 * part).sin() / (TAU * 6.0);
        low + (high - low) * filled
    }

    /// From -1 to 1, smooth: a random value every `period` seconds, and a soft way from one to the next.
    fn noise(&self, choice: Choice, second: i64, period: i64) -> f64 {
        let second = second + self.phase;
        let (step, part) = (second.div_euclid(period), second.rem_euclid(period) as f64 / period as f64);
        let (from, to) = (chance(self.key, choice, step), chance(self.key, choice, step + 1));
        2.0 * (from + (to - from) * smooth(part)) - 1.0
    }
}

/// A soft way from 0 to 1.
fn smooth(part: f64) -> f64 {
    part * part * (3.0 - 2.0 * part)
}

/// From 0 to 100 with two digits after the point, as somebody would read it.
pub(crate) fn percent(value: f64) -> f32 {
    ((value.clamp(0.0, 100.0) * 100.0).round() / 100.0) as f32
}

/// From 0 to 1, the same for the same arguments.
fn chance(key: u64, choice: Choice, place: i64) -> f64 {
    let bits = mix(key ^ mix((choice as u64) << 56 ^ place as u64));
    // The 53 bits that such a number holds.
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// SplitMix64 (Steele, Lea, Flood 2014): every bit of the result depends on every bit of the argument.
fn mix(value: u64) -> u64 {
    let mut value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// 2026-11-21 00:00 UTC.
    const START: i64 = 1_795_219_200;

    fn day(server: u16) -> Vec<Usage> {
        let curve = Curve::new(1, server);
        (START..START + DAY).map(|second| curve.at(second)).collect()
    }

    fn mean(values: &[f64]) -> f64 {
        values.iter().sum::<f64>() / values.len() as f64
    }

    fn correlation(one: &[f64], other: &[f64]) -> f64 {
        let (mean_one, mean_other) = (mean(one), mean(other));
        let product: Vec<f64> = one.iter().zip(other).map(|(a, b)| (a - mean_one) * (b - mean_other)).collect();
        let spread = |values: &[f64], middle: f64| {
            mean(&values.iter().map(|value| (value - middle).powi(2)).collect::<Vec<_>>()).sqrt()
        };
        mean(&product) / (spread(one, mean_one) * spread(other, mean_other))
    }

    #[test]
    fn the_same_seed_server_and_second_make_the_same_sample() {
        for (seed, server, second) in [(1, 1, START), (7, 1_000, START + 12_345), (u64::MAX, 3, 0)] {
            assert_eq!(Curve::new(seed, server).at(second), Curve::new(seed, server).at(second));
        }
        // Pinned: replicas of two versions must agree while one replaces the other.
        assert_eq!(Curve::new(1, 1).at(START), Usage { cpu: 22.61, memory: 35.55, disk: 61.69 });
    }

    #[test]
    fn another_seed_or_server_or_time_makes_another_sample() {
        let sample = Curve::new(1, 1).at(START);
        for other in [Curve::new(2, 1).at(START), Curve::new(1, 2).at(START), Curve::new(1, 1).at(START + 60)] {
            assert!(other.cpu != sample.cpu && other.memory != sample.memory, "{other:?}");
        }
    }

    #[test]
    fn everything_is_a_percentage_and_moves_smoothly() {
        for server in [1, 2, 1_000] {
            let samples = day(server);
            for pair in samples.windows(2) {
                let [before, now] = pair else { unreachable!() };
                for value in [now.cpu, now.memory, now.disk] {
                    assert!((0.0..=100.0).contains(&value), "{now:?}");
                }
                assert!((now.cpu - before.cpu).abs() < 6.0, "{before:?} {now:?}");
                assert!((now.memory - before.memory).abs() < 1.5, "{before:?} {now:?}");
            }
            let flat = samples.windows(60).filter(|minute| minute.iter().all(|sample| sample.cpu == minute[0].cpu));
            assert_eq!(flat.count(), 0, "server {server} shows life in every minute");
        }
    }

    #[test]
    fn the_afternoon_is_busier_than_the_night() {
        for server in 1..=20 {
            let samples = day(server);
            let hours = |from: usize, to: usize| {
                mean(&samples[from * 3_600..to * 3_600].iter().map(|sample| sample.cpu.into()).collect::<Vec<_>>())
            };
            assert!(hours(12, 18) > hours(0, 6), "server {server}");
        }
    }

    #[test]
    fn bursts_come_some_times_a_day_and_last_some_minutes() {
        for server in 1..=20 {
            let curve = Curve::new(1, server);
            let bursting: Vec<bool> = (START..START + DAY).map(|second| curve.burst(second) > 1.0).collect();
            let bursts: Vec<usize> = bursting.chunk_by(|a, b| a == b).filter(|run| run[0]).map(<[bool]>::len).collect();
            assert!((5..=40).contains(&bursts.len()), "server {server}: {bursts:?}");
            // Those at the edges of the day may be cut.
            let whole = &bursts[1..bursts.len() - 1];
            assert!(whole.iter().all(|seconds| (90..=1_000).contains(seconds)), "server {server}: {bursts:?}");
        }
    }

    #[test]
    fn memory_follows_the_processors() {
        for server in 1..=20 {
            let samples = day(server);
            let column =
                |value: fn(&Usage) -> f32| samples.iter().map(|sample| value(sample).into()).collect::<Vec<_>>();
            let together = correlation(&column(|sample| sample.cpu), &column(|sample| sample.memory));
            assert!(together > 0.7, "server {server}: {together}");
        }
    }

    #[test]
    fn a_disk_falls_only_when_it_is_cleaned() {
        for server in 1..=20 {
            let curve = Curve::new(1, server);
            let week: Vec<f32> = (START..START + 7 * DAY).step_by(10).map(|second| curve.at(second).disk).collect();
            let falls: Vec<f32> = week.windows(2).map(|pair| pair[0] - pair[1]).filter(|fall| *fall > 0.0).collect();
            assert!((4..=10).contains(&falls.len()), "server {server}: {falls:?}");
            assert!(falls.iter().all(|fall| *fall > 20.0), "server {server}: {falls:?}");
        }
    }

    #[test]
    fn a_second_of_a_thousand_servers_costs_little() {
        let curves: Vec<Curve> = (1..=1_000).map(|server| Curve::new(1, server)).collect();
        let began = Instant::now();
        let sum: f32 = (0..10).flat_map(|second| curves.iter().map(move |curve| curve.at(START + second).cpu)).sum();
        let each_second = began.elapsed() / 10;
        assert!(sum > 0.0);
        // It takes 2 ms without optimisation: a hundredth of the second would do, and the machine may be busy.
        assert!(each_second.as_millis() < 50, "{each_second:?}");
    }
}
