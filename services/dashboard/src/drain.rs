//! The way out: when this replica ends, every client is asked to move at its own turn, so that the others take them one after the other.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// After the last turn, clients have so long to leave before they are closed.
pub const LEAVE: Duration = Duration::from_secs(2);

/// How long moving may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// At least so long, however few clients there are.
    pub least: Duration,
    /// At most so long: what whoever ends this replica waits for. Not less than `least`.
    pub most: Duration,
}

impl Window {
    /// Over how long so many clients move to `peers` other replicas that take `rate` of them a second each: never faster than they are taken, as long as
    /// the time is there. A replica that knows of no other counts on one, which is about to start.
    pub fn for_clients(&self, clients: usize, rate: u32, peers: usize) -> Duration {
        let taken = f64::from(rate.max(1)) * peers.max(1) as f64;
        Duration::from_secs_f64(clients as f64 / taken).max(self.least).min(self.most)
    }
}

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
    use std::sync::Arc;

    use tokio::task::JoinSet;

    use super::*;
    use crate::admission::{Gate, Limits};

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn turns_fill_the_window_evenly_and_grace_lasts_until_the_end() {
        let drain = Drain::start(10 * SECOND);
        let turns: Vec<f64> = (0..10_000).map(|_| (drain.turn() - drain.started).as_secs_f64()).collect();
        for second in 0..10 {
            let in_second = turns.iter().filter(|turn| **turn as i32 == second).count();
            assert!((700..1_300).contains(&in_second), "{in_second} of 10000 in second {second}");
        }
        assert_eq!(drain.grace_ms(drain.started), 12_000);
        assert_eq!(drain.grace_ms(drain.ends() + SECOND), 0);
    }

    #[test]
    fn the_window_grows_with_the_clients_and_shrinks_with_the_replicas_that_take_them() {
        let window = Window { least: 10 * SECOND, most: 40 * SECOND };
        assert_eq!(window.for_clients(0, 2_000, 3), 10 * SECOND);
        assert_eq!(window.for_clients(20_000, 2_000, 1), 10 * SECOND);
        assert_eq!(window.for_clients(60_000, 2_000, 1), 30 * SECOND);
        assert_eq!(window.for_clients(60_000, 2_000, 2), 15 * SECOND);
        assert_eq!(window.for_clients(60_000, 2_000, 0), 30 * SECOND, "one is counted on");
        assert_eq!(window.for_clients(600_000, 2_000, 1), 40 * SECOND, "no longer than there is time");
    }

    /// Lets clients move as sessions do, each to another replica at random, and counts who is sent away. A move that fails leaves the old connection.
    async fn sent_away(clients: usize, window: Duration, limits: Limits, peers: usize) -> usize {
        let gates: Vec<_> = (0..peers).map(|_| Arc::new(Gate::new(limits, usize::MAX, Instant::now()))).collect();
        let (_, drain) = watch::channel(Some(Drain::start(window)));
        let mut moves = JoinSet::new();
        for _ in 0..clients {
            let (gate, drain) = (Arc::clone(&gates[rand::random::<u32>() as usize % peers]), drain.clone());
            moves.spawn(async move {
                turn(drain).await;
                gate.admit(true, Instant::now(), 0.0).map(std::mem::forget).is_err()
            });
        }
        moves.join_all().await.into_iter().filter(|refused| *refused).count()
    }

    #[tokio::test(start_paused = true)]
    async fn the_others_admit_everybody_who_moves_and_would_not_in_half_the_time() {
        // Random turns come in clusters: a tenth of the clients is more than any that is to be expected.
        let (limits, peers) = (Limits { rate: 50, burst: 300, connections: 10_000 }, 3);
        let window = Window { least: SECOND, most: 600 * SECOND }.for_clients(9_000, limits.rate, peers);
        assert_eq!(window, 60 * SECOND);
        assert_eq!(sent_away(9_000, window, limits, peers).await, 0);
        let too_fast = sent_away(9_000, window / 2, limits, peers).await;
        assert!(too_fast > 3_000, "{too_fast}: what is beyond half of them and a burst each");
    }
}
