//! Requests to the app: one kind of client for all of them.

use bytes::Bytes;
use http_body_util::Full;
use hyper::Uri;
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, Error, connect::HttpConnector},
    rt::TokioExecutor,
};

use crate::client::{TargetError, Trust, causes, distrust};

/// Keeps its connections for the next request; clones share them.
pub type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client that believes these certificates.
pub fn client(trust: &Trust) -> HttpClient {
    let mut http = HttpConnector::new();
    // It would refuse https, which is the business of the connector around it.
    http.enforce_http(false);
    http.set_nodelay(true);
    Client::builder(TokioExecutor::new()).build(HttpsConnector::from((http, trust.config())))
}

/// A path at the app whose address is like `https://board.example`.
///
/// # Errors
/// [`TargetError::Address`].
pub fn address(url: &str, path: &str) -> Result<Uri, TargetError> {
    let wrong = || TargetError::Address(url.to_owned());
    let uri: Uri = format!("{}{path}", url.trim_end_matches('/')).parse().map_err(|_| wrong())?;
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    if matches!(uri.scheme_str(), Some("http" | "https")) && has_host { Ok(uri) } else { Err(wrong()) }
}

/// Why there was no answer, for people.
pub fn reason(error: &Error) -> String {
    distrust(error).or_else(|| causes(error).last().map(ToString::to_string)).unwrap_or_default()
}
