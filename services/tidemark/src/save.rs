//! Texts are stored over HTTP: one attempt, or several under one id.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, StatusCode, Uri, header::CONTENT_TYPE};
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::{
    client::{TargetError, Trust},
    http::{self, HttpClient},
};

/// How much of an answer is read, bytes: the longest text and what is around it, in the longest way that JSON can write it.
const MAX_ANSWER: usize = 256 * 1024;

/// How often a text is tried, and how long that may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in all, the first one too.
    pub attempts: u32,
    /// How long an attempt may take.
    pub patience: Duration,
    /// The wait before the second attempt at most; it doubles with each, and a random part of it is waited.
    pub wait: Duration,
    /// No wait is longer.
    pub longest_wait: Duration,
}

impl Default for Retry {
    /// About 12 s of waiting, more than a database or an ingress needs to come back.
    fn default() -> Self {
        let [patience, wait, longest_wait] = [5_000, 100, 2_000].map(Duration::from_millis);
        Self { attempts: 16, patience, wait, longest_wait }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Outcome {
    /// It is there, perhaps since an earlier attempt.
    #[error("stored")]
    Stored,
    /// Its id belongs to another text.
    #[error("its id belongs to another text")]
    Conflict,
    /// The app does not want it.
    #[error("refused: {message} ({code})")]
    Rejected {
        /// For programs.
        code: String,
        /// For people.
        message: String,
    },
    /// An answer, but not about the text: the app cannot store at the moment, or somebody before it answered.
    #[error("answered with status {0}")]
    Unavailable(u16),
    /// No answer.
    #[error("{0}")]
    Unreachable(String),
}

impl Outcome {
    /// Whether another attempt may end differently. Under the same id it stores at most once.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Unreachable(_))
    }
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// How it ended.
    pub outcome: Outcome,
    /// How long that took.
    pub took: Duration,
}

/// How storing a text went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The last attempt.
    pub last: Attempt,
    /// The attempts before it, in their order.
    pub failures: Vec<Attempt>,
}

/// Stores texts at one address. Clones share its connections, which are kept for the next text.
#[derive(Debug, Clone)]
pub struct Saver {
    client: HttpClient,
    uri: Uri,
}

impl Saver {
    /// For the app at an address like `https://board.example`.
    ///
    /// # Errors
    /// [`TargetError::Address`].
    pub fn new(url: &str, trust: &Trust) -> Result<Self, TargetError> {
        Self::at(None, url, trust)
    }

    /// The same, reached at a machine if one is given.
    ///
    /// # Errors
    /// [`TargetError::Address`].
    pub fn at(machine: Option<IpAddr>, url: &str, trust: &Trust) -> Result<Self, TargetError> {
        let (client, uri) = (http::client(trust, machine), http::address(url, "/save")?);
        Ok(Self { client, uri })
    }

    /// Tries until the text is stored or refused, or `retry` has no attempt left. The id is the caller's, made anew for each text.
    pub async fn save(&self, id: Uuid, text: &str, retry: Retry) -> Saved {
        let (mut failures, mut wait) = (Vec::new(), retry.wait);
        let attempt = async || {
            let began = Instant::now();
            Attempt { outcome: self.attempt(id, text, retry.patience).await, took: began.elapsed() }
        };
        for _ in 1..retry.attempts {
            let last = attempt().await;
            if !last.outcome.is_passing() {
                return Saved { last, failures };
            }
            failures.push(last);
            sleep(wait.min(retry.longest_wait).mul_f64(rand::random())).await;
            wait *= 2;
        }
        Saved { last: attempt().await, failures }
    }

    /// Tries once.
    pub async fn attempt(&self, id: Uuid, text: &str, patience: Duration) -> Outcome {
        let body = serde_json::json!({ "id": id, "text": text }).to_string();
        let request = Request::post(&self.uri).header(CONTENT_TYPE, "application/json").body(Full::from(body));
        let request = match request {
            Ok(request) => request,
            Err(error) => return Outcome::Unreachable(error.to_string()),
        };
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| http::reason(&error))?;
            let status = response.status();
            // Read to its end, so that the connection can be kept. What it says is known without it if that fails.
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            Ok(outcome(status, &body.map(|body| body.to_bytes()).unwrap_or_default()))
        };
        match timeout(patience, exchange).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(reason)) => Outcome::Unreachable(reason),
            Err(_) => Outcome::Unreachable(format!("no answer within {patience:?}")),
        }
    }
}

/// What an answer says. A refusal counts only in the app's own words: another may be that of an ingress that does not know the app yet.
fn outcome(status: StatusCode, body: &[u8]) -> Outcome {
    #[derive(Deserialize)]
    struct Refusal {
        code: String,
        message: String,
    }
    if status.is_success() {
        return Outcome::Stored;
    }
    let refusal = serde_json::from_slice::<HashMap<String, Refusal>>(body).ok().and_then(|mut all| all.remove("error"));
    match refusal {
        Some(_) if status == StatusCode::CONFLICT => Outcome::Conflict,
        Some(Refusal { code, message }) if status.is_client_error() => Outcome::Rejected { code, message },
        _ => Outcome::Unavailable(status.as_u16()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_about_the_text_only_in_the_words_of_the_app() {
        let refusal = br#"{"error":{"code":"text_empty","message":"the text is empty"}}"#;
        let rejected = Outcome::Rejected { code: "text_empty".into(), message: "the text is empty".into() };
        for (status, body, expected) in [
            (201, b"".as_slice(), Outcome::Stored),
            (409, refusal, Outcome::Conflict),
            (422, refusal, rejected),
            (404, b"404 page not found", Outcome::Unavailable(404)),
            (503, refusal, Outcome::Unavailable(503)),
            (301, b"", Outcome::Unavailable(301)),
        ] {
            let passing = matches!(expected, Outcome::Unavailable(_));
            let outcome = outcome(StatusCode::from_u16(status).unwrap(), body);
            assert_eq!((outcome.is_passing(), outcome), (passing, expected));
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for url in ["localhost:3000", "", "http://", "ws://board.example", "https://exa mple"] {
            assert!(matches!(Saver::new(url, &Trust::system()), Err(TargetError::Address(_))), "{url}");
        }
        let saver = Saver::new("https://board.example/board/", &Trust::system()).unwrap();
        assert_eq!(saver.uri, "https://board.example/board/save");
    }
}
