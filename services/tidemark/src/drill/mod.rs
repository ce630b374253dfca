//! `tidemark drill`: what faults do to the clients of a live system.

pub mod cluster;
