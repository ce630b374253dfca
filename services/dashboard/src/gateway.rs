//! `GET /ws`: who may connect, and to what. A browser cannot read a failed handshake, so most refusals are an upgrade and a close frame.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use fastwebsockets::upgrade::{IncomingUpgrade, UpgradeFut};
use hyper_util::{rt::TokioIo, server::conn::auto::upgrade::downcast};
use protocol::{Cursor, Feeds, PROTOCOL, close};
use runtime::{Tasks, error_answer as error};
use tokio::{net::TcpStream, sync::watch, time::Instant};

use crate::{
    admission::{Gate, Later, Place, Reason},
    db_updater::{DbUpdater, Visit},
    hub::Refusal,
    metrics::Handshake,
    origin::AllowedOrigins,
    session::{self, Context, Socket},
};

/// How long a client waits before it asks a replica again that has not read the database yet, ms: about as long as a first reading takes.
const RETRY_MS: u64 = 500;

/// What the gateway needs.
pub struct Gateway {
    /// Which pages may connect.
    pub origins: AllowedOrigins,
    /// What sessions share.
    pub context: Arc<Context>,
    /// Where sessions are spawned.
    pub tasks: Tasks,
    /// Who is told of visits that come and go.
    pub visitors: DbUpdater,
    /// Who is served, and who has to come again.
    pub gate: Arc<Gate>,
    /// How many sockets are open.
    pub open: watch::Sender<usize>,
}

/// Counts one open socket for as long as it lives.
struct Open(watch::Sender<usize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

#[derive(Debug, serde::Deserialize)]
struct Params {
    feeds: Option<String>,
    since: Option<String>,
    visit: Option<String>,
    n: Option<String>,
}

/// What to do with a client whose upgrade is accepted.
enum Admission {
    Serve(Place, Arc<Feeds>, Option<Cursor>, Option<Visit>),
    Close(Handshake, u16, String),
}

/// The routes for users.
pub fn router(gateway: Arc<Gateway>) -> Router {
    let not_found =
        async || error(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path; the dashboard serves /ws");
    Router::new().route("/ws", get(connect)).fallback(not_found).with_state(gateway)
}

async fn connect(
    State(gateway): State<Arc<Gateway>>,
    query: Result<Query<Params>, QueryRejection>,
    headers: HeaderMap,
    upgrade: Result<IncomingUpgrade, StatusCode>,
) -> Response {
    let metrics = &gateway.context.metrics;
    let Ok(Ok((mut response, upgraded))) = upgrade.map(IncomingUpgrade::upgrade) else {
        metrics.handshake(Handshake::Failed);
        return error(StatusCode::BAD_REQUEST, "no_websocket", "connect to this path with a WebSocket, version 13");
    };
    match choose_protocol(&headers) {
        Ok(Some(chosen)) => drop(response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, chosen)),
        Ok(None) => {}
        Err(()) => {
            metrics.handshake(Handshake::Failed);
            return error(StatusCode::BAD_REQUEST, "unknown_protocol", "the only sub-protocol is tidemark.v1");
        }
    }
    // Only a program that makes its own query gets this wrong, and a program can read the answer.
    let visit = match query.as_ref().map(|Query(params)| Visit::parse(params.visit.as_deref(), params.n.as_deref())) {
        Ok(Err(malformed)) => {
            metrics.handshake(Handshake::Query);
            return error(StatusCode::BAD_REQUEST, "bad_visit", &malformed.to_string());
        }
        Ok(Ok(visit)) => visit,
        Err(_) => None,
    };
    let Some(open) = gateway.open() else {
        metrics.handshake(Handshake::Flood);
        return error(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "too many connections, try again later");
    };
    let admission = gateway.admit(query, &headers, visit);
    let task = Arc::clone(&gateway);
    gateway.tasks.tracker.spawn(async move { task.serve(open, upgraded, admission).await });
    response.into_response()
}

/// Our sub-protocol if the client offers it, none if it offers none, an error if it offers only others.
fn choose_protocol(headers: &HeaderMap) -> Result<Option<HeaderValue>, ()> {
    let mut offered = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .peekable();
    if offered.peek().is_none() {
        return Ok(None);
    }
    let ours = offered.any(|name| name.trim_ascii() == PROTOCOL.as_bytes());
    if ours { Ok(Some(HeaderValue::from_static(PROTOCOL))) } else { Err(()) }
}

impl Gateway {
    /// One more socket, if there may be one more.
    fn open(&self) -> Option<Open> {
        let most = self.gate.sockets();
        let count = |open: &mut usize| {
            let room = *open < most;
            *open += usize::from(room);
            room
        };
        self.open.send_if_modified(count).then(|| Open(self.open.clone()))
    }

    fn admit(
        &self,
        query: Result<Query<Params>, QueryRejection>,
        headers: &HeaderMap,
        visit: Option<Visit>,
    ) -> Admission {
        let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("?"));
        if !self.origins.allow(text(header::ORIGIN), text(header::HOST)) {
            return Admission::Close(
                Handshake::Origin,
                close::POLICY,
                "origin: not allowed, see ALLOWED_ORIGINS".to_owned(),
            );
        }
        let bad_query = |reason: String| Admission::Close(Handshake::Query, close::POLICY, reason);
        let Ok(Query(params)) = query else { return bad_query("query: cannot be read".to_owned()) };
        let feeds = match Feeds::parse(params.feeds.as_deref().unwrap_or_default()) {
            Ok(feeds) => feeds,
            Err(error) => return bad_query(error.to_string()),
        };
        match self.context.hub.admit(&feeds) {
            Ok(()) => {
                let cursor: Option<Cursor> = params.since.and_then(|since| since.parse().ok());
                match self.gate.admit(cursor.is_some(), Instant::now(), rand::random()) {
                    Ok(place) => Admission::Serve(place, Arc::new(feeds), cursor, visit),
                    Err(Later { reason, retry_ms }) => {
                        let outcome = match reason {
                            Reason::Rate => Handshake::Rate,
                            Reason::Full => Handshake::Full,
                        };
                        Admission::Close(outcome, close::TRY_LATER, close::retry_reason(retry_ms))
                    }
                }
            }
            Err(Refusal::UnknownFeed(feed)) => bad_query(format!("feeds: there is no feed {feed}")),
            Err(Refusal::NotReady) => {
                Admission::Close(Handshake::NotReady, close::TRY_LATER, close::retry_reason(RETRY_MS))
            }
        }
    }

    async fn serve(&self, _open: Open, upgraded: UpgradeFut, admission: Admission) {
        let _counted = self.context.metrics.open();
        match (socket(upgraded).await, admission) {
            (Some(socket), Admission::Serve(_place, feeds, cursor, visit)) => {
                self.context.metrics.handshake(Handshake::Accepted);
                visit.inspect(|visit| self.visitors.connect(*visit));
                session::run(&self.context, socket, feeds, cursor).await;
                visit.inspect(|visit| self.visitors.disconnect(*visit));
            }
            (Some(socket), Admission::Close(outcome, code, reason)) => {
                self.context.metrics.handshake(outcome);
                session::refuse(&self.context, socket, code, &reason).await;
            }
            (None, _) => self.context.metrics.handshake(Handshake::Failed),
        }
    }
}

/// Takes the bare connection out of the HTTP server: its buffers go, and a session costs little more than its socket.
async fn socket(upgraded: UpgradeFut) -> Option<Socket> {
    let upgraded = upgraded.await.ok()?.into_inner().into_inner();
    let parts = downcast::<TokioIo<TcpStream>>(upgraded).ok()?;
    // A copy, of nothing as a rule: the original would keep the server's whole read buffer alive.
    Some(Socket { stream: parts.io.into_inner(), ahead: Bytes::copy_from_slice(&parts.read_buf) })
}
