//! `GET /events`: the same as `/ws` for those whom no WebSocket reaches. A browser's `EventSource` reads no status and no body but a stream's, so a
//! refusal is a stream of one event.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use protocol::{Transport, events};

use crate::{
    gateway::{Admission, Gateway, Params, Seat, bad_visit},
    session::sse,
};

/// No cache may keep it, and nothing on the way may hold it back to pack it.
const CACHE: HeaderValue = HeaderValue::from_static("no-cache, no-store, no-transform");

pub(crate) async fn connect(
    State(gateway): State<Arc<Gateway>>,
    query: Result<Query<Params>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let query = query.map(|Query(params)| Query(since_last_event(params, &headers)));
    let visit = match gateway.visit(&query) {
        Ok(visit) => visit,
        Err(malformed) => return bad_visit(malformed),
    };
    let seat = match Seat::take(&gateway, Transport::Sse) {
        Ok(seat) => seat,
        Err(answer) => return *answer,
    };
    let body = match gateway.admit(query, &headers, visit) {
        Admission::Serve(place, feeds, cursor, visit) => sse::body(move |events| async move {
            let _seat = seat.accepted(place, visit);
            sse::follow(&gateway.context, events, feeds, cursor).await
        }),
        Admission::Close(outcome, code, reason) => {
            gateway.context.metrics.handshake(outcome);
            gateway.context.metrics.closed(code);
            Body::from(events::encode_close(code, &reason))
        }
    };
    respond(&headers, body)
}

/// Where the stream broke off is known better by who read it than by who began it.
fn since_last_event(mut params: Params, headers: &HeaderMap) -> Params {
    if let Some(last) = headers.get("last-event-id") {
        params.since = last.to_str().ok().map(str::to_owned);
    }
    params
}

fn respond(headers: &HeaderMap, body: Body) -> Response {
    let mut response = body.into_response();
    let answer = response.headers_mut();
    answer.insert(header::CONTENT_TYPE, HeaderValue::from_static(events::MEDIA_TYPE));
    answer.insert(header::CACHE_CONTROL, CACHE);
    // nginx, and what has learned from it, passes on at once what says so.
    answer.insert("x-accel-buffering", HeaderValue::from_static("no"));
    answer.insert(header::VARY, HeaderValue::from_static("origin"));
    // Also for a page that is refused: without it the page could not read why. A refusal holds nothing else.
    if let Some(origin) = headers.get(header::ORIGIN) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    }
    response
}
