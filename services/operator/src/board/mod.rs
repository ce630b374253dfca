//! The custom resource `Board`.
//!
//! Doc comments of its fields become descriptions in the CRD: they are written for users.

mod spec;
mod status;
#[cfg(test)]
mod tests;

pub use spec::{
    App, Board, BoardSpec, Dashboard, Database, External, Ingress, Postgres, PullPolicy, PullSecret, Quantities,
    Quantity, Resources, Storage, StorageSize, Telemetry,
};
pub use status::BoardStatus;
