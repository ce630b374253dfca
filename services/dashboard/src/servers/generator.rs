//! The metric generator, asked over HTTP on connections that are kept.

use std::{fmt, str::FromStr, time::Duration};

use axum::http::{StatusCode, Uri, uri::Scheme};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::{sync::Semaphore, time::timeout};

use super::{
    metrics::{Outcome, ServerMetrics},
    sample::{self, Rubbish, Sample},
};

/// A thousand ids of 128 bytes fit.
const LONGEST: usize = 256 * 1024;

/// Most questions at a time: a thousand workers that wake up together must not open a thousand connections. An answer takes about a millisecond.
const AT_A_TIME: usize = 64;

/// `http://host:port` of the generator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneratorUrl(String);

/// Not the address of a generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it must be of the form http://host:port")]
pub struct UrlError;

impl FromStr for GeneratorUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let uri: Uri = text.parse().map_err(|_| UrlError)?;
        let plain = uri.scheme() == Some(&Scheme::HTTP) && uri.path() == "/" && uri.query().is_none();
        let authority = uri.authority().filter(|authority| plain && !authority.as_str().contains('@'));
        authority.map(|authority| Self(format!("http://{authority}"))).ok_or(UrlError)
    }
}

impl fmt::Display for GeneratorUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// Too slow.
    #[error("failed to get an answer within {0:?}")]
    TimedOut(Duration),
    /// No connection, or it broke.
    #[error("failed to reach it")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It cannot answer now, or does not know the server.
    #[error("it answered {0}")]
    Refused(StatusCode),
    /// An answer that nobody can use.
    #[error("failed to read its answer")]
    Rubbish(#[from] Rubbish),
}

impl AskError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::TimedOut(_) => Outcome::TimedOut,
            Self::Unreachable(_) => Outcome::Unreachable,
            Self::Refused(_) => Outcome::Refused,
            Self::Rubbish(_) => Outcome::Rubbish,
        }
    }
}

#[derive(Debug)]
pub(super) struct Generator {
    url: GeneratorUrl,
    patience: Duration,
    http: Client<HttpConnector, Empty<Bytes>>,
    turns: Semaphore,
    metrics: ServerMetrics,
}

impl Generator {
    pub fn new(url: GeneratorUrl, patience: Duration, metrics: ServerMetrics) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(AT_A_TIME)
            .build(connector);
        Self { url, patience, http, turns: Semaphore::new(AT_A_TIME), metrics }
    }

    /// The ids of all servers.
    pub async fn servers(&self) -> Result<Vec<String>, AskError> {
        self.ask("/servers", sample::list).await
    }

    /// The newest sample of a server; `None` if it has none.
    pub async fn latest(&self, server: &str) -> Result<Option<Sample>, AskError> {
        let id = utf8_percent_encode(server, NON_ALPHANUMERIC);
        self.ask(&format!("/metrics?limit=1&serverId={id}"), |body| sample::latest(body, server)).await
    }

    async fn ask<T>(&self, path: &str, read: impl Fn(&[u8]) -> Result<T, Rubbish>) -> Result<T, AskError> {
        // The semaphore is never closed.
        let _turn = self.turns.acquire().await;
        let answer = match timeout(self.patience, self.get(path)).await {
            Ok(body) => body.and_then(|body| Ok(read(&body)?)),
            Err(_) => Err(AskError::TimedOut(self.patience)),
        };
        self.metrics.asked(answer.as_ref().map_or_else(AskError::outcome, |_| Outcome::Answered));
        answer
    }

    async fn get(&self, path: &str) -> Result<Bytes, AskError> {
        let uri: Uri = format!("{}{path}", self.url).parse().map_err(|error| AskError::Unreachable(Box::new(error)))?;
        let response = self.http.get(uri).await.map_err(|error| AskError::Unreachable(Box::new(error)))?;
        if response.status() != StatusCode::OK {
            return Err(AskError::Refused(response.status()));
        }
        let body = Limited::new(response.into_body(), LONGEST).collect().await.map_err(AskError::Unreachable)?;
        Ok(body.to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_scheme_a_host_and_nothing_else() {
        for (text, url) in [("http://a:1", "http://a:1"), ("http://10.0.0.1:8080/", "http://10.0.0.1:8080")] {
            assert_eq!(text.parse::<GeneratorUrl>().unwrap().to_string(), url);
        }
        for text in ["", "a:1", "https://a:1", "http://a/x", "http://a/?q", "http://user:secret@a", "/servers"] {
            assert_eq!(text.parse::<GeneratorUrl>(), Err(UrlError), "{text}");
        }
    }
}
