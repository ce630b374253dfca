//! One server's worker: asks for its latest sample each second, and posts what is new.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rand::RngExt;
use tokio::{
    sync::mpsc::Sender,
    time::{Instant, sleep},
};

use super::{channel::Post, generator::Generator};

/// Within which part of a second of the wall clock a worker asks, ms. Samples are made when a second begins, and a thousand of them are stored and
/// read again within a quarter of it. With the channel's quarter and a session's 50 ms the latest question still brings its sample to the browser
/// within the second: what is shown there is never older than 1.85 s.
const WINDOW: Range<u64> = 250..550;

/// First and longest wait after a failure. With the 800 ms that an answer may take, a generator that is back is noticed within two seconds.
const BACKOFF: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(1)];

/// Runs until it is cancelled, or nobody takes posts any more.
pub(super) async fn run(server: String, generator: Arc<Generator>, posts: Sender<Post>) {
    // The first question comes at once, the others at a phase of the worker's own: a thousand workers must not ask in the same moment.
    let phase = Duration::from_millis(rand::rng().random_range(WINDOW));
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
        sleep(match failures {
            0 => until(phase, SystemTime::now()),
            failures => backoff(failures, rand::rng().random()),
        })
        .await;
    }
}

/// How long it is until a second is next so old. The clock is read every time, so one that is set, or drifts, is followed.
fn until(phase: Duration, now: SystemTime) -> Duration {
    let past = Duration::from_nanos(now.duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos().into());
    if past < phase { phase - past } else { Duration::from_secs(1) + phase - past }
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
        let phase = Duration::from_millis(300);
        for (now_ms, wait_ms) in [(5_000, 300), (5_299, 1), (5_300, 1_000), (5_310, 990), (9_999, 301)] {
            let now = UNIX_EPOCH + Duration::from_millis(now_ms);
            assert_eq!(until(phase, now), Duration::from_millis(wait_ms), "{now_ms}");
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
