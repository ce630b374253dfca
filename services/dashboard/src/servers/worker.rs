//! One server's worker: asks for its latest sample each second, and posts what is new.

use std::{sync::Arc, time::Duration};

use rand::RngExt;
use tokio::{
    sync::mpsc::Sender,
    time::{Instant, sleep_until},
};

use super::{channel::Post, generator::Generator};

/// First and longest wait after a failure. With the 800 ms that an answer may take, a generator that is back is noticed within two seconds.
const BACKOFF: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(1)];

/// Runs until it is cancelled, or nobody takes posts any more.
pub(super) async fn run(server: String, interval: Duration, generator: Arc<Generator>, posts: Sender<Post>) {
    // The first question comes at once, the others at a phase of the worker's own: a thousand workers must not ask in the same moment.
    let phase = Instant::now() + rand::rng().random_range(Duration::ZERO..interval);
    let (mut known, mut failures, mut settled) = (None, 0, false);
    loop {
        let answer = generator.latest(&server).await;
        failures = if answer.is_ok() { 0 } else { failures + 1 };
        let sample = answer.ok().flatten().filter(|sample| known.is_none_or(|known| sample.version > known));
        known = sample.as_ref().map(|sample| sample.version).or(known);
        // The first answer or failure is told in any case: the feed is complete when every server has had its turn.
        if (sample.is_some() || !settled)
            && posts.send(Post::Asked { server: server.clone(), sample, at: Instant::now() }).await.is_err()
        {
            return;
        }
        settled = true;
        sleep_until(match failures {
            0 => next(phase, interval, Instant::now()),
            failures => Instant::now() + backoff(failures, rand::rng().random()),
        })
        .await;
    }
}

/// The next moment of this phase. One that was missed is not made up for: only the latest sample counts.
fn next(phase: Instant, interval: Duration, now: Instant) -> Instant {
    let missed = now.saturating_duration_since(phase).as_nanos() / interval.as_nanos();
    if now < phase { phase } else { phase + interval * u32::try_from(missed + 1).unwrap_or(u32::MAX) }
}

/// How long to wait after so many failures in a row; `random` is from 0 to 1.
pub(super) fn backoff(failures: u32, random: f64) -> Duration {
    let [first, longest] = BACKOFF;
    let full = (first * 2_u32.pow(failures.saturating_sub(1).min(8))).min(longest);
    full.mul_f64(0.5 + random / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phase_is_kept_however_long_an_answer_took() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let phase = start + Duration::from_millis(300);
        for (now_ms, next_ms) in [(0, 300), (299, 300), (300, 1_300), (1_299, 1_300), (4_000, 4_300)] {
            let now = start + Duration::from_millis(now_ms);
            assert_eq!(next(phase, second, now), start + Duration::from_millis(next_ms), "{now_ms}");
        }
    }

    #[test]
    fn the_wait_doubles_up_to_a_second_and_half_of_it_is_by_chance() {
        let ms = |failures, random| backoff(failures, random).as_millis();
        assert_eq!(
            [ms(1, 1.0), ms(2, 1.0), ms(3, 1.0), ms(4, 1.0), ms(u32::MAX, 1.0)],
            [250, 500, 1_000, 1_000, 1_000]
        );
        assert_eq!([ms(1, 0.0), ms(9, 0.0)], [125, 500]);
    }
}
