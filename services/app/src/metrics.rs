//! Requests, counted by route pattern.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request, State},
    http::Method,
    middleware::Next,
    response::Response,
};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

/// What is counted about requests.
#[derive(Debug, Clone)]
pub struct HttpMetrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
}

impl HttpMetrics {
    /// Makes the metrics and adds them to the registry.
    ///
    /// # Errors
    /// If the registry holds one of the names already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new("tidemark_http_requests_total", "Requests answered, by route, method and status."),
            &["route", "method", "status"],
        )?;
        let seconds = HistogramVec::new(
            // A save on an idle system takes 2 ms; no request takes longer than 5 s.
            HistogramOpts::new("tidemark_http_request_duration_seconds", "Time until the answer's head, by route.")
                .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0]),
            &["route"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self { requests, seconds })
    }
}

/// Counts one request.
pub async fn count(State(metrics): State<HttpMetrics>, request: Request, next: Next) -> Response {
    let HttpMetrics { requests, seconds } = metrics;
    let began = Instant::now();
    // Paths and methods come from outside: only those that are known become labels.
    let route = request.extensions().get::<MatchedPath>().map_or("page", MatchedPath::as_str).to_owned();
    let method = match *request.method() {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        _ => "other",
    };
    let response = next.run(request).await;
    requests.with_label_values(&[route.as_str(), method, response.status().as_str()]).inc();
    seconds.with_label_values(&[route.as_str()]).observe(began.elapsed().as_secs_f64());
    response
}
