//! A server that follows a script.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::Body,
    extract::{RawQuery, State},
    response::{IntoResponse, Response},
    routing::get,
};
use fastwebsockets::{Frame, OpCode, Payload, upgrade::IncomingUpgrade};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What the server does on one connection.
#[derive(Clone)]
pub enum Act {
    Say(Value),
    /// One `set` after the other, without end.
    Flood,
    Close(u16, &'static str),
    /// Waits for the client's close frame, or the end of its request.
    Listen,
}

#[derive(Clone)]
pub struct Script {
    /// For the first connection, the second, and so on; the last one is for all that follow.
    connections: Arc<Vec<Vec<Act>>>,
    pub next: Arc<AtomicUsize>,
    /// The query of each connection, and the close code that the client sent.
    pub queries: Arc<Mutex<Vec<String>>>,
    pub farewells: Arc<Mutex<Vec<u16>>>,
}

impl Script {
    pub fn new(connections: Vec<Vec<Act>>) -> Self {
        let connections = Arc::new(connections);
        Self { connections, next: Arc::default(), queries: Arc::default(), farewells: Arc::default() }
    }

    pub async fn serve(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().route("/board/ws", get(connect)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        address
    }
}

/// The same script as events, for the route `/events`.
pub async fn stream(State(script): State<Script>, RawQuery(query): RawQuery) -> Response {
    script.queries.lock().unwrap().push(query.unwrap());
    let number = script.next.fetch_add(1, Ordering::Relaxed).min(script.connections.len() - 1);
    let event = |act| async {
        let text = match act {
            Act::Say(value) => format!("event: {}\ndata: {value}\n\n", value["type"].as_str().unwrap()),
            Act::Close(code, reason) => {
                format!("event: close\ndata: {}\n\n", json!({"code": code, "reason": reason}))
            }
            Act::Flood | Act::Listen => std::future::pending().await,
        };
        Ok::<_, Infallible>(text)
    };
    let acts = futures_util::stream::iter(script.connections[number].clone());
    let body = Body::from_stream(acts.then(event));
    ([("content-type", "text/event-stream; charset=utf-8")], body).into_response()
}

pub async fn connect(State(script): State<Script>, RawQuery(query): RawQuery, upgrade: IncomingUpgrade) -> Response {
    script.queries.lock().unwrap().push(query.unwrap());
    let number = script.next.fetch_add(1, Ordering::Relaxed).min(script.connections.len() - 1);
    let (mut response, upgraded) = upgrade.upgrade().unwrap();
    response.headers_mut().insert("sec-websocket-protocol", "tidemark.v1".parse().unwrap());
    let acts = script.connections[number].clone();
    tokio::spawn(async move {
        let mut socket = upgraded.await.unwrap();
        socket.set_auto_close(true);
        for act in acts {
            match act {
                Act::Say(value) => {
                    let text = value.to_string();
                    // Both halves of a conversation: the client answers pings.
                    socket.write_frame(Frame::new(true, OpCode::Ping, None, Payload::Borrowed(b"p"))).await.unwrap();
                    socket.write_frame(Frame::text(Payload::Borrowed(text.as_bytes()))).await.unwrap();
                    let pong = socket.read_frame().await.unwrap();
                    assert_eq!((pong.opcode, &*pong.payload), (OpCode::Pong, b"p".as_slice()));
                }
                Act::Flood => {
                    for version in 1_u64.. {
                        let text = set(version).to_string();
                        if socket.write_frame(Frame::text(Payload::Borrowed(text.as_bytes()))).await.is_err() {
                            return;
                        }
                    }
                }
                Act::Close(code, reason) => socket.write_frame(Frame::close(code, reason.as_bytes())).await.unwrap(),
                Act::Listen => {
                    if let Ok(frame) = socket.read_frame().await {
                        let code = u16::from_be_bytes([frame.payload[0], frame.payload[1]]);
                        script.farewells.lock().unwrap().push(code);
                    }
                }
            }
        }
    });
    response.into_response()
}

pub fn hello(replica: &str) -> Value {
    json!({"type": "hello", "protocol": "tidemark.v1", "replica": replica, "version": "0.1.0", "store": "s", "timeline": 1,
        "beatMs": 5000, "resumed": false})
}

pub fn set(version: u64) -> Value {
    json!({"type": "set", "cursor": format!("c/{version}"), "ageMs": {"texts": 3},
        "items": [{"feed": "texts", "key": "", "version": version, "value": {"count": version * 10}}]})
}
