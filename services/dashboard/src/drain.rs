//! The way out: when this replica ends, every client is asked to move at its own turn, so that the others take them one after the other.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// After the last turn, clients have so long to leave before they are closed.
pub const LEAVE: Duration = Duration::from_secs(2);

/// One drain: from when on, and over how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    started: Instant,
    window: Duration,
}

impl Drain {
    /// Spreads the moves over `window`, from now on.
    pub fn start(window: Duration) -> Self {
        Self { started: Instant::now(), window }
    }

    /// A moment for one client. Turns are drawn evenly over the window: in random order, at the same rate throughout, and nobody keeps a list.
    fn turn(&self) -> Instant {
        self.started + self.window.mul_f64(rand::random())
    }

    /// When leftovers are closed.
    pub fn ends(&self) -> Instant {
        self.started + self.window + LEAVE
    }

    /// How long a client that is asked now may stay, ms.
    fn grace_ms(&self, now: Instant) -> u64 {
        u64::try_from(self.ends().saturating_duration_since(now).as_millis()).unwrap_or(u64::MAX)
    }
}

/// Waits until this client has to move, and gives how long it may stay, ms. Never completes without a drain.
pub async fn turn(mut drain: watch::Receiver<Option<Drain>>) -> u64 {
    let Some(drain) = drain.wait_for(Option::is_some).await.ok().and_then(|drain| *drain) else {
        return std::future::pending().await;
    };
    sleep_until(drain.turn()).await;
    drain.grace_ms(Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_fill_the_window_evenly_and_grace_lasts_until_the_end() {
        let drain = Drain::start(Duration::from_secs(10));
        let turns: Vec<f64> = (0..10_000).map(|_| (drain.turn() - drain.started).as_secs_f64()).collect();
        for second in 0..10 {
            let in_second = turns.iter().filter(|turn| **turn as i32 == second).count();
            assert!((700..1_300).contains(&in_second), "{in_second} of 10000 in second {second}");
        }
        assert_eq!(drain.grace_ms(drain.started), 12_000);
        assert_eq!(drain.grace_ms(drain.ends() + Duration::from_secs(1)), 0);
    }
}
