//! What every service needs to run: configuration, telemetry, admin server (health, Prometheus), shutdown.

mod admin;
mod config;
mod readiness;
mod server;
mod shutdown;
mod telemetry;

pub use admin::Admin;
pub use config::{Secret, ServiceArgs, invalid};
pub use readiness::{Condition, Readiness};
pub use server::{BindError, Listeners, serve};
pub use shutdown::{Signals, Tasks, signals};
pub use telemetry::init as init_telemetry;
