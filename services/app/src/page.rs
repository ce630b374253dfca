//! The built page: files, with the headers that fit each.

use std::path::Path;

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use tower::ServiceExt;
use tower_http::services::ServeDir;

use crate::error::Error;

/// The library that other sites load with one script tag.
const EMBEDDED_SCRIPT: &str = "/tide-mark.js";

/// Files below it have a hash of their content in their name, so what a name means never changes.
const HASHED: &str = "/assets/";

/// The files of one directory. A directory itself is its `index.html`.
#[must_use]
pub fn files(directory: &Path) -> ServeDir {
    ServeDir::new(directory).redirect_to_trailing_slash(false)
}

/// Answers with a file.
pub async fn page(State(files): State<ServeDir>, mut request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let readable = matches!(*request.method(), Method::GET | Method::HEAD);
    if !readable {
        // Only to find out whether there is such a file.
        *request.method_mut() = Method::HEAD;
    }
    let Ok(response) = files.oneshot(request).await;
    let mut response = response.map(Body::new);
    match response.status() {
        StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => return Error::NotFound.into_response(),
        StatusCode::INTERNAL_SERVER_ERROR => return Error::Internal.into_response(),
        _ if !readable => {
            return ([(header::ALLOW, HeaderValue::from_static("GET,HEAD"))], Error::MethodNotAllowed).into_response();
        }
        _ => {}
    }
    let headers = response.headers_mut();
    let caching = if path.starts_with(HASHED) { "public, max-age=31536000, immutable" } else { "no-cache" };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    if path == EMBEDDED_SCRIPT {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        headers.insert("cross-origin-resource-policy", HeaderValue::from_static("cross-origin"));
    }
    response
}
