//! Requests as parts of traces.

use axum::{
    extract::{MatchedPath, Request},
    middleware::Next,
    response::Response,
};
use tracing::Instrument;

/// Answers a request in a span of its own, which continues the trace of the caller. Without a collector there is no span.
pub async fn trace(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let caller = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
    let span = runtime::request_span(request.method().as_str(), route, caller);
    if span.is_disabled() {
        return next.run(request).await;
    }
    let response = next.run(request).instrument(span.clone()).await;
    runtime::answered(&span, response.status().as_u16());
    response
}
