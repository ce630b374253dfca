//! The system on a real cluster, seen from outside: what must hold, in [`checks`]. What faults do to clients is measured by the drill (`tests/e2e/drill`).

pub mod args;
pub mod checks;
pub mod http3;
pub mod kubectl;
pub mod report;
