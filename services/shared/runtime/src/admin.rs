//! The admin server: health and metrics, on a port that users never reach.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus::{Encoder, Gauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::Readiness;

/// What the admin server shows.
#[derive(Debug, Clone, Default)]
pub struct Admin {
    /// Every metric of the process.
    pub registry: Registry,
    /// Whether traffic may come.
    pub readiness: Readiness,
}

impl Admin {
    /// `/healthz` (the loop turns), `/readyz` (200 or 503, and why), `/metrics` (Prometheus text format).
    pub fn router(self) -> Router {
        // Fails only where it was done before, for another router of the same process.
        let _ = describe(&self.registry);
        Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self)
    }
}

/// What every process says about itself.
fn describe(registry: &Registry) -> Result<(), prometheus::Error> {
    let info = Opts::new("tidemark_build_info", "Always 1; the version is the label.");
    let info = IntGaugeVec::new(info, &["version"])?;
    info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    registry.register(Box::new(info))?;
    let started =
        Gauge::new("tidemark_start_time_seconds", "When this process began to serve, in seconds since 1970.")?;
    started.set(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    registry.register(Box::new(started))
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let (ready, report) = admin.readiness.report();
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, report).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&admin.registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
