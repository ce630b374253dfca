//! The system on a real cluster, seen from outside: clients, saves and faults in [`stage`], the verdict in [`record`], what must hold in [`checks`].

pub mod args;
pub mod checks;
pub mod crowd;
pub mod http3;
pub mod kubectl;
pub mod record;
pub mod report;
pub mod stage;
pub mod writer;
