//! Every route, and what all answers have in common.

use std::path::Path;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderName, HeaderValue, header, header::InvalidHeaderValue},
    middleware::{Next, from_fn, from_fn_with_state},
    response::Response,
    routing::{get, post},
};
use runtime::HttpMetrics;
use store::{TextWriter, Texts};
use tower_http::compression::CompressionLayer;

use crate::{
    error::Error,
    list::list,
    page,
    save::{MAX_BODY, save},
    trace::trace,
};

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
    let routes = Router::new()
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
        .layer(DefaultBodyLimit::max(MAX_BODY));
    Ok(runtime::guarded(routes, metrics)
        .layer(from_fn_with_state(replica, common_headers))
        .layer(CompressionLayer::new()))
}

fn page_service(directory: &Path) -> Router {
    Router::new().fallback(page::page).with_state(page::files(directory))
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
