//! What every service needs to run: configuration, telemetry, admin server (health, Prometheus), what all
//! requests have in common, shutdown.

mod admin;
mod collector;
mod config;
mod error_chain;
mod files;
mod http;
mod log_errors;
mod readiness;
mod server;
mod shutdown;
mod telemetry;
mod traces;

pub use admin::Admin;
pub use config::{Secret, ServiceArgs, host_name, invalid};
pub use error_chain::error_chain;
pub use files::raise_file_limit;
pub use http::{HttpMetrics, REQUEST_TIMEOUT, error_answer, guarded, parse_limit};
pub use readiness::{Condition, Readiness};
pub use server::{BindError, Listeners, serve};
pub use shutdown::{Signals, Tasks, signals};
pub use telemetry::{Telemetry, init as init_telemetry};
pub use traces::{Attribute, TRACE, answered, record_span, request_span, traceparent, traces_are_on};
