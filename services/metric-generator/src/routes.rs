//! Every route. Nobody outside reaches them: the dashboards ask, and no ingress leads here.

use axum::{Router, routing::get};
use runtime::HttpMetrics;
use store::{LatestSamples, Samples};

use crate::{
    error::Error,
    list::{metrics, servers},
};

/// What the handlers share.
#[derive(Clone)]
pub struct Stored {
    /// The newest sample of each server.
    pub latest: LatestSamples,
    /// Lists of samples.
    pub samples: Samples,
}

/// All routes of one replica. They are no parts of traces: each dashboard asks for each server every second, and the spans of that would bury the
/// traces of saves.
pub fn router(stored: Stored, http: HttpMetrics) -> Router {
    let routes = Router::new()
        // The dashboards, every 5 s.
        .route("/servers", get(servers))
        // The dashboards' workers, every second; people, for the history.
        .route("/metrics", get(metrics))
        .method_not_allowed_fallback(async || Error::MethodNotAllowed)
        .fallback(async || Error::NotFound)
        .with_state(stored);
    runtime::guarded(routes, http)
}
