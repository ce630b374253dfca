//! What requests of users have in common, whichever service answers them: a bound of time, an answer after a panic, counters, and one shape of errors.

use std::{
    any::Any,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};
use serde_json::json;
use tokio::time::timeout;
use tower_http::catch_panic::CatchPanicLayer;

/// No answer takes longer: a proxy in front, or a person, would give up soon after.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// After an outage callers may come back at once: their repeats cost little, and pages wait longer by themselves.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// What is counted about requests.
#[derive(Debug, Clone)]
pub struct HttpMetrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    elsewhere: &'static str,
}

impl HttpMetrics {
    /// Makes the metrics and adds them to the registry. `elsewhere` is what requests are counted as that match no route.
    ///
    /// # Errors
    /// If the registry holds one of the names already.
    pub fn register(registry: &Registry, elsewhere: &'static str) -> Result<Self, prometheus::Error> {
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
        Ok(Self { requests, seconds, elsewhere })
    }
}

/// The routes with what all answers have in common: each comes within [`REQUEST_TIMEOUT`], a handler that panics is answered for, and all are counted.
pub fn guarded(routes: Router, metrics: HttpMetrics) -> Router {
    // The last one added is the first to see a request.
    routes.layer(from_fn(bounded)).layer(CatchPanicLayer::custom(panicked)).layer(from_fn_with_state(metrics, count))
}

/// An answer that is not what the caller wished: `{"error":{"code","message"}}`. With 503 it says when to come again.
pub fn error_answer(status: StatusCode, code: &str, message: &str) -> Response {
    let mut response = (status, Json(json!({ "error": { "code": code, "message": message } }))).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    response
}

/// How many items a caller wants: a whole number from 1 to `most`, in digits only.
#[must_use]
pub fn parse_limit(text: &str, most: u32) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|limit| digits && (1..=most).contains(limit))
}

async fn bounded(request: Request, next: Next) -> Response {
    let late = |_| error_answer(StatusCode::SERVICE_UNAVAILABLE, "timed_out", "the request took too long, try again");
    timeout(REQUEST_TIMEOUT, next.run(request)).await.unwrap_or_else(late)
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let message = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = message.unwrap_or("no message"), "a request handler panicked");
    error_answer(StatusCode::INTERNAL_SERVER_ERROR, "internal", "something went wrong here")
}

/// Counts one request.
async fn count(State(metrics): State<HttpMetrics>, request: Request, next: Next) -> Response {
    let HttpMetrics { requests, seconds, elsewhere } = metrics;
    let began = Instant::now();
    // Paths and methods come from outside: only those that are known become labels.
    let route = request.extensions().get::<MatchedPath>().map_or(elsewhere, MatchedPath::as_str).to_owned();
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

#[cfg(test)]
mod tests {
    use axum::{body::Body, routing::get};
    use tower::ServiceExt;

    use super::*;

    async fn answer(routes: Router) -> Response {
        let metrics = HttpMetrics::register(&Registry::new(), "elsewhere").unwrap();
        guarded(routes, metrics).oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn a_panic_is_answered_and_the_service_goes_on() {
        let broken = Router::new().route("/", get(async || -> &'static str { panic!("broken on purpose") }));
        for _ in 0..2 {
            let response = answer(broken.clone()).await;
            assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_hangs_is_answered_in_time() {
        let response = answer(Router::new().route("/", get(std::future::pending::<()>))).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }

    #[test]
    fn a_limit_is_a_whole_number_from_1_to_the_most() {
        for (text, limit) in [("1", Some(1)), ("500", Some(500)), ("007", Some(7))] {
            assert_eq!(parse_limit(text, 500), limit, "{text}");
        }
        for text in ["", "0", "-1", "+5", "501", "1.5", "ten", "99999999999999999999", " 5"] {
            assert_eq!(parse_limit(text, 500), None, "{text}");
        }
    }
}
