//! No client ever shows an older value after a newer one, and all end equal: random interleavings of writes, readings, moves, losses, restarts
//! and failovers, through the real hub, the real frames and the real machine of the client. Sockets and the database are a model.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod client;
mod connection;
mod database;
#[path = "../common/memory.rs"]
mod memory;
mod replica;
mod step;
mod world;

use proptest::{collection::vec, prelude::*, test_runner::FileFailurePersistence};
use step::{Step, faithful, forgetful};
use world::World;

/// Long enough for some failovers, and for everybody to move some times.
const STEPS: usize = 200;

fn run(seed: u64, steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(seed).await;
        for step in steps {
            world.step(*step).await;
        }
        world.end().await;
    });
}

/// 256 cases of each test, or PROPTEST_CASES. What is found is made small and kept beside this file.
fn config() -> ProptestConfig {
    let kept = FileFailurePersistence::WithSource("regressions");
    ProptestConfig { failure_persistence: Some(Box::new(kept)), max_shrink_iters: 10_000, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_client_goes_back_and_all_end_equal(seed: u64, steps in vec(faithful(), 1..STEPS)) {
        run(seed, &steps);
    }

    #[test]
    fn all_end_equal_even_if_the_database_loses_commits(seed: u64, steps in vec(forgetful(), 1..STEPS)) {
        run(seed, &steps);
    }
}
