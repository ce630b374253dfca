//! The custom resource `Board`.
//!
//! Doc comments of its fields become descriptions in the CRD: they are written for users.

mod database;
mod feeds;
mod services;
mod spec;
mod status;
#[cfg(test)]
mod tests;

pub use database::{Database, External, Postgres, Storage, StorageSize};
pub use feeds::Feed;
pub use services::{App, Dashboard, MetricGenerator, Quantities, Quantity, Resources, Tidemark};
pub use spec::{Board, BoardSpec, Ingress, PullPolicy, PullSecret, Telemetry};
pub use status::BoardStatus;
