//! Every route, and what all answers have in common.

use std::{any::Any, path::Path, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderName, HeaderValue, header, header::InvalidHeaderValue},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use store::{TextWriter, Texts};
use tokio::time::timeout;
use tower_http::{catch_panic::CatchPanicLayer, compression::CompressionLayer};

use crate::{
    error::Error,
    list::list,
    metrics::{self, HttpMetrics},
    page,
    save::{MAX_BODY, save},
    trace::trace,
};

/// No answer takes longer: a proxy in front, or a person, would give up soon after.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Only what comes from this very origin, and no inline code: a text that a user saved can never become a script.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const REPLICA: HeaderName = HeaderName::from_static("x-tidemark-replica");

/// What the handlers share.
#[derive(Clone)]
pub struct App {
    /// Stores texts.
    pub writer: TextWriter,
    /// Lists texts.
    pub texts: Texts,
}

/// All routes of one replica.
///
/// # Errors
/// If the replica's name is not fit for a header.
pub fn router(app: App, page_dir: &Path, replica: &str, metrics: HttpMetrics) -> Result<Router, InvalidHeaderValue> {
    let replica = HeaderValue::from_str(replica)?;
    Ok(Router::new()
        // The board's form. A client repeats it with the same id until it is answered.
        .route("/save", post(save))
        // The board's list.
        .route("/all", get(list))
        .route_layer(from_fn(trace))
        .method_not_allowed_fallback(async || Error::MethodNotAllowed)
        .with_state(app)
        // Browsers, for everything else.
        .fallback_service(page_service(page_dir))
        // From here on the last one added is the first to see a request.
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn(bounded))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(metrics, metrics::count))
        .layer(from_fn_with_state(replica, common_headers))
        .layer(CompressionLayer::new()))
}

fn page_service(directory: &Path) -> Router {
    Router::new().fallback(page::page).with_state(page::files(directory))
}

async fn bounded(request: Request, next: Next) -> Response {
    timeout(REQUEST_TIMEOUT, next.run(request)).await.unwrap_or_else(|_| Error::TimedOut.into_response())
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let message = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = message.unwrap_or("no message"), "a request handler panicked");
    Error::Internal.into_response()
}

async fn common_headers(State(replica): State<HeaderValue>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(REPLICA, replica);
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // The list changes with every save; files say for themselves how long they keep.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::StatusCode};
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_answered_and_the_service_goes_on() {
        let broken = Router::new()
            .route("/broken", get(async || -> &'static str { panic!("broken on purpose") }))
            .layer(CatchPanicLayer::custom(panicked));
        for _ in 0..2 {
            let request = Request::get("/broken").body(Body::empty()).unwrap();
            let response = broken.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_hangs_is_answered_in_time() {
        let hanging = Router::new().route("/", get(std::future::pending::<()>)).layer(from_fn(bounded));
        let response = hanging.oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }
}
