//! Requests to the app: one kind of client for all of them.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{self, Poll},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Uri;
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{
        Client, Error,
        connect::{
            HttpConnector,
            dns::{GaiResolver, Name},
        },
    },
    rt::TokioExecutor,
};
use tower::Service;

use crate::client::{TargetError, Trust, causes, distrust};

/// Keeps its connections for the next request; clones share them.
pub type HttpClient = Client<HttpsConnector<HttpConnector<Names>>, Full<Bytes>>;

/// What names stand for: what the system says, or always the same machine.
#[derive(Debug, Clone)]
pub struct Names {
    machine: Option<IpAddr>,
    system: GaiResolver,
}

impl Service<Name> for Names {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        self.system.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        if let Some(machine) = self.machine {
            // The port is that of the address that is asked for.
            return Box::pin(async move { Ok(vec![SocketAddr::new(machine, 0)].into_iter()) });
        }
        let found = self.system.call(name);
        Box::pin(async move { Ok(found.await?.collect::<Vec<_>>().into_iter()) })
    }
}

/// A client that believes these certificates, and connects to this machine, whatever the name in an address stands for, if one is given.
pub fn client(trust: &Trust, machine: Option<IpAddr>) -> HttpClient {
    let mut http = HttpConnector::new_with_resolver(Names { machine, system: GaiResolver::new() });
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
