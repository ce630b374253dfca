//! Texts are read over HTTP: a page at a time, newest first.

use std::{net::IpAddr, time::Duration};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{StatusCode, Uri};
use serde::Deserialize;
use tokio::time::timeout;
use uuid::Uuid;

use crate::{
    client::{TargetError, Trust},
    http::{self, HttpClient},
};

/// Texts on a page: the most that the app gives.
pub const PAGE: usize = 500;

/// A page of the longest texts, in the longest way that JSON can write them, bytes.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// How long a page may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a page cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The address.
    #[error(transparent)]
    Address(#[from] TargetError),
    /// Another status than 200.
    #[error("{0} answered with status {1}")]
    Status(Uri, StatusCode),
    /// No answer.
    #[error("no list from {0}: {1}")]
    Unreachable(Uri, String),
    /// An answer of another kind.
    #[error("{0} answered with something that is no list of texts")]
    Malformed(Uri, #[source] serde_json::Error),
}

/// A text.
#[derive(Debug, Deserialize)]
pub struct Text {
    /// Its id.
    pub id: Uuid,
    /// What it says.
    pub text: String,
}

/// Some texts, newest first.
#[derive(Debug, Deserialize)]
pub struct Page {
    /// The texts.
    pub texts: Vec<Text>,
    /// Where older ones begin.
    pub next: Option<String>,
}

/// Reads texts at one address.
#[derive(Debug, Clone)]
pub struct Lister {
    client: HttpClient,
    url: String,
}

impl Lister {
    /// For the app at an address like `https://board.example`, reached at the machine if one is given.
    pub fn at(machine: Option<IpAddr>, url: &str, trust: &Trust) -> Self {
        Self { client: http::client(trust, machine), url: url.to_owned() }
    }

    /// The newest texts, or those before a place.
    ///
    /// # Errors
    /// [`ListError`].
    pub async fn page(&self, before: Option<&str>) -> Result<Page, ListError> {
        let before = before.map_or_else(String::new, |before| format!("&before={before}"));
        let uri = http::address(&self.url, &format!("/all?limit={PAGE}{before}"))?;
        let unreachable = |reason| ListError::Unreachable(uri.clone(), reason);
        let exchange = async {
            let request = hyper::Request::get(uri.clone()).body(Full::default());
            let request = request.map_err(|error| unreachable(error.to_string()))?;
            let response = self.client.request(request).await.map_err(|error| unreachable(http::reason(&error)))?;
            if response.status() != StatusCode::OK {
                return Err(ListError::Status(uri.clone(), response.status()));
            }
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|error| unreachable(error.to_string()))?.to_bytes();
            serde_json::from_slice(&body).map_err(|error| ListError::Malformed(uri.clone(), error))
        };
        let slow = |_| unreachable(format!("no answer within {PATIENCE:?}"));
        timeout(PATIENCE, exchange).await.map_err(slow)?
    }
}
