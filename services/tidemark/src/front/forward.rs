//! One request: the replica whose turn it is, and the next one if that one does not answer.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse, Response},
};
use axum_reverse_proxy::{ProxyError, ProxyPolicy, TunnelCancellation, proxy_request_on_stream};
use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use protocol::client::ANSWER_MS;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{Door, EVENTS, Front};

/// Bodies are kept so that the next replica can be given them too. The app takes 64 KiB and says so itself; this only bounds the memory.
const MAX_BODY: usize = 1024 * 1024;

/// How long a replica has to answer when there is another one to try.
const ANSWER: Duration = Duration::from_secs(1);

/// The same where whoever asks does not wait long, and a second replica is to have its turn after a first one that hangs: a client of a dashboard
/// waits 1 s for `hello`, a dashboard 0.8 s for the metric generator.
const ANSWER_SOON: Duration = Duration::from_millis(350);
const _: () = assert!(2 * ANSWER_SOON.as_millis() < 800 && 2 * ANSWER_SOON.as_millis() < ANSWER_MS as u128);

/// How long the last replica has: the app ends every request after 5 s with an answer of its own, which says more than ours.
const ANSWER_LAST: Duration = Duration::from_secs(6);

/// Why a replica gave no answer that can be passed on.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Nobody listens: the request was not sent.
    #[error("failed to connect")]
    Connect(#[source] std::io::Error),
    /// It may have been received.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// It takes no new clients.
    #[error("no new connections")]
    Refused,
}

/// Forwards a request to one replica after the other until one answers.
pub(super) async fn forward(State((front, door)): State<(Arc<Front>, Door)>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let body = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return answer(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "the body is larger than 1 MiB");
        }
        Err(_) => return answer(StatusCode::BAD_REQUEST, "body_incomplete", "the body could not be read"),
    };
    parts.extensions.insert(TunnelCancellation(front.token.clone()));
    let is_stream = parts.uri.path() == EVENTS;
    // What lasts: such a stream, or a WebSocket.
    let lasting = is_stream || parts.headers.contains_key(header::UPGRADE);
    let repeatable = is_repeatable(&parts, &body);

    let replicas = front.pool(door, parts.uri.path()).in_turn();
    let mut rest = replicas.len();
    for address in replicas {
        rest -= 1;
        let patience = match rest {
            0 => ANSWER_LAST,
            _ if !repeatable => ANSWER_LAST,
            _ if lasting || door == Door::Services => ANSWER_SOON,
            _ => ANSWER,
        };
        let attempt = attempt(address, parts.clone(), body.clone(), &front.policy);
        let failure = match timeout(patience, attempt).await {
            Ok(Ok(response)) if lasting && response.status() == StatusCode::SERVICE_UNAVAILABLE => Failure::Refused,
            Ok(Ok(response)) if is_stream => return response.map(|body| until(body, front.token.clone())),
            Ok(Ok(response)) => return response,
            Ok(Err(failure)) => failure,
            Err(_) => Failure::NoAnswer(format!("none within {patience:?}")),
        };
        tracing::info!(replica.address = %address, path = parts.uri.path(), "replica gave no answer: {failure}");
        if !repeatable && !matches!(failure, Failure::Connect(_)) {
            break;
        }
    }
    let mut response = answer(StatusCode::SERVICE_UNAVAILABLE, "no_replica", "no replica answers, try again");
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// The end of the front is the end of its streams, as of its tunnels: it must not wait for what has no end.
fn until(body: Body, token: CancellationToken) -> Body {
    Body::from_stream(body.into_data_stream().take_until(token.cancelled_owned()))
}

/// Whether it does no harm if two replicas get it: reading, and saving under an id that the client made.
fn is_repeatable(parts: &Parts, body: &Bytes) -> bool {
    parts.method == Method::GET
        || parts.method == Method::HEAD
        || serde_json::from_slice::<Value>(body).is_ok_and(|body| body.get("id").is_some())
}

async fn attempt(address: SocketAddr, parts: Parts, body: Bytes, policy: &ProxyPolicy) -> Result<Response, Failure> {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let uri: Uri = format!("http://{address}{path}")
        .parse()
        .map_err(|_| Failure::NoAnswer("the path cannot be passed on".to_owned()))?;
    let stream = TcpStream::connect(address).await.map_err(Failure::Connect)?;
    stream.set_nodelay(true).map_err(Failure::Connect)?;
    let request = Request::from_parts(parts, Body::from(body));
    let Ok(response) = proxy_request_on_stream(uri, request, stream, policy).await;
    match response.extensions().get::<ProxyError>() {
        Some(error) => Err(Failure::NoAnswer(error.message().to_owned())),
        None => Ok(response),
    }
}

fn answer(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(json!({ "error": { "code": code, "message": message } }))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_does_no_harm_twice_is_repeated() {
        let repeatable = |method: Method, body: &str| {
            let (parts, ()) = Request::builder().method(method).uri("/save").body(()).unwrap().into_parts();
            is_repeatable(&parts, &Bytes::copy_from_slice(body.as_bytes()))
        };
        assert!(repeatable(Method::GET, ""));
        assert!(repeatable(Method::POST, r#"{"id":"6f0e","text":"a"}"#));
        assert!(!repeatable(Method::POST, r#"{"text":"a"}"#), "stored twice, it would be two texts");
        assert!(!repeatable(Method::POST, "not JSON"));
    }
}
