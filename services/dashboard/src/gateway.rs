//! `GET /ws`: who may connect, and to what. A browser cannot read a failed handshake, so most refusals are an upgrade and a close frame.
//! [`crate::events`] asks the same for `GET /events`.

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
use protocol::{Cursor, Feeds, FeedsError, PROTOCOL, Transport, close};
use runtime::{Tasks, error_answer as error};
use tokio::{net::TcpStream, sync::watch, time::Instant};

use crate::{
    admission::{Gate, Later, Place, Reason},
    db_updater::{DbUpdater, Visit, VisitError},
    events,
    hub::Refusal,
    metrics::{Handshake, OpenConnection},
    origin::AllowedOrigins,
    session::{
        Context,
        websocket::{self, Socket},
    },
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
    /// How many clients are connected.
    pub open: watch::Sender<usize>,
}

/// The query of a handshake, percent-decoded. Whatever else stands in it is ignored.
#[derive(Debug, serde::Deserialize)]
pub struct Params {
    feeds: Option<String>,
    pub(crate) since: Option<String>,
    visit: Option<String>,
    n: Option<String>,
}

impl Params {
    /// What the client wants.
    ///
    /// # Errors
    /// [`FeedsError`], fit to be shown to the user.
    pub fn feeds(&self) -> Result<Feeds, FeedsError> {
        Feeds::parse(self.feeds.as_deref().unwrap_or_default())
    }

    /// Where the client stands. What cannot be read is no cursor.
    pub fn cursor(&self) -> Option<Cursor> {
        self.since.as_deref()?.parse().ok()
    }

    /// Which visit the client is.
    ///
    /// # Errors
    /// [`VisitError`] if it is malformed.
    pub fn visit(&self) -> Result<Option<Visit>, VisitError> {
        Visit::parse(self.visit.as_deref(), self.n.as_deref())
    }
}

/// What to do with a client that can be told.
pub(crate) enum Admission {
    Serve(Place, Arc<Feeds>, Option<Cursor>, Option<Visit>),
    Close(Handshake, u16, String),
}

/// The routes for users.
pub fn router(gateway: Arc<Gateway>) -> Router {
    let not_found = async || {
        error(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path; the dashboard serves /ws and /events")
    };
    Router::new()
        .route("/ws", get(connect))
        .route("/events", get(events::connect))
        .fallback(not_found)
        .with_state(gateway)
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
    let visit = match gateway.visit(&query) {
        Ok(visit) => visit,
        Err(malformed) => return bad_visit(malformed),
    };
    let seat = match Seat::take(&gateway, Transport::WebSocket) {
        Ok(seat) => seat,
        Err(answer) => return *answer,
    };
    let admission = gateway.admit(query, &headers, visit);
    let task = Arc::clone(&gateway);
    gateway.tasks.tracker.spawn(async move { task.serve(seat, upgraded, admission).await });
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

/// Only a program that makes its own query gets this wrong, and a program can read the answer.
pub(crate) fn bad_visit(malformed: VisitError) -> Response {
    error(StatusCode::BAD_REQUEST, "bad_visit", &malformed.to_string())
}

impl Gateway {
    /// Whose connection it is, if the query can be read.
    pub(crate) fn visit(&self, query: &Result<Query<Params>, QueryRejection>) -> Result<Option<Visit>, VisitError> {
        let Ok(Query(params)) = query else { return Ok(None) };
        params.visit().inspect_err(|_| self.context.metrics.handshake(Handshake::Query))
    }

    pub(crate) fn admit(
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
        let feeds = match params.feeds() {
            Ok(feeds) => feeds,
            Err(error) => return bad_query(error.to_string()),
        };
        match self.context.hub.admit(&feeds) {
            Ok(()) => {
                let cursor = params.cursor();
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

    async fn serve(&self, seat: Seat, upgraded: UpgradeFut, admission: Admission) {
        match (socket(upgraded).await, admission) {
            (Some(socket), Admission::Serve(place, feeds, cursor, visit)) => {
                let _seat = seat.accepted(place, visit);
                websocket::run(&self.context, socket, feeds, cursor).await;
            }
            (Some(socket), Admission::Close(outcome, code, reason)) => {
                self.context.metrics.handshake(outcome);
                websocket::refuse(&self.context, socket, code, &reason).await;
            }
            (None, _) => self.context.metrics.handshake(Handshake::Failed),
        }
    }
}

/// One client more, until it is dropped.
pub(crate) struct Seat {
    gateway: Arc<Gateway>,
    visit: Option<Visit>,
    place: Option<Place>,
    _counted: OpenConnection,
}

impl Seat {
    /// None if there are as many as the process can hold: then it has to be said without a connection.
    pub(crate) fn take(gateway: &Arc<Gateway>, transport: Transport) -> Result<Self, Box<Response>> {
        let most = gateway.gate.sockets();
        let count = |open: &mut usize| {
            let room = *open < most;
            *open += usize::from(room);
            room
        };
        if !gateway.open.send_if_modified(count) {
            gateway.context.metrics.handshake(Handshake::Flood);
            let answer = error(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "too many connections, try again later");
            return Err(Box::new(answer));
        }
        let counted = gateway.context.metrics.open(transport);
        Ok(Self { gateway: Arc::clone(gateway), visit: None, place: None, _counted: counted })
    }

    /// It is served, and visits.
    pub(crate) fn accepted(mut self, place: Place, visit: Option<Visit>) -> Self {
        self.gateway.context.metrics.handshake(Handshake::Accepted);
        self.place = Some(place);
        self.visit = visit.inspect(|visit| self.gateway.visitors.connect(*visit));
        self
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.visit.inspect(|visit| self.gateway.visitors.disconnect(*visit));
        self.gateway.open.send_modify(|open| *open -= 1);
    }
}

/// Takes the bare connection out of the HTTP server: its buffers go, and a session costs little more than its socket.
async fn socket(upgraded: UpgradeFut) -> Option<Socket> {
    let upgraded = upgraded.await.ok()?.into_inner().into_inner();
    let parts = downcast::<TokioIo<TcpStream>>(upgraded).ok()?;
    // A copy, of nothing as a rule: the original would keep the server's whole read buffer alive.
    Some(Socket { stream: parts.io.into_inner(), ahead: Bytes::copy_from_slice(&parts.read_buf) })
}
