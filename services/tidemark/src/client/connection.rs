//! One WebSocket: from the first packet to the last.

use std::time::Duration;

use bytes::Bytes;
use fastwebsockets::{Frame, OpCode, Payload, Role, WebSocket, WebSocketError, handshake::generate_key};
use http_body_util::Empty;
use hyper::{
    Request, StatusCode,
    client::conn::http1::handshake,
    header::{CONNECTION, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE},
    upgrade::Upgraded,
};
use hyper_util::rt::TokioIo;
use protocol::{
    PROTOCOL,
    client::{Conn, Event},
    close,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    MAX_FRAME, OPEN,
    dial::{DialError, dial},
    target::Address,
};

/// How long the other side has to answer our close frame.
const CLOSE: Duration = Duration::from_millis(500);

/// A socket after its handshake.
pub type Socket = WebSocket<TokioIo<Upgraded>>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("failed to speak HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("failed to make a request: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("the server answered {0} instead of upgrading")]
    Status(StatusCode),
    #[error("the server does not speak {PROTOCOL}")]
    Protocol,
    #[error("no answer in time")]
    Slow,
}

/// Opens the connection and passes on what arrives, until it ends or `close` is cancelled. Its last event is `Closed`, unless we closed it.
pub(super) async fn run(conn: Conn, address: Address, events: mpsc::Sender<Event>, close: CancellationToken) {
    let opening = async { timeout(OPEN, open(&address, Some(PROTOCOL))).await.unwrap_or(Err(Error::Slow)) };
    let opened = tokio::select! {
        opened = opening => opened,
        () = close.cancelled() => return,
    };
    let mut socket = match opened {
        Ok(socket) => socket,
        Err(error) => {
            tracing::debug!(conn, "connection not opened: {error}");
            let _ = events.send(Event::Closed { conn, code: close::ABNORMAL, reason: error.to_string() }).await;
            return;
        }
    };
    tokio::select! {
        closed = read(conn, &mut socket, &events) => {
            let _ = events.send(closed).await;
        }
        // `read_frame` may be cut in the middle of a frame by this: nothing is read as a frame after it.
        () = close.cancelled() => {
            let _ = timeout(CLOSE, socket.write_frame(Frame::close(close::DONE, b""))).await;
        }
    }
}

/// Reads until the end. Pings are answered on the way.
async fn read(conn: Conn, socket: &mut Socket, events: &mpsc::Sender<Event>) -> Event {
    loop {
        match socket.read_frame().await {
            Ok(frame) if frame.opcode == OpCode::Text => {
                let event = Event::Frame { conn, frame: protocol::Frame::parse(&frame.payload) };
                if events.send(event).await.is_err() {
                    return closed(conn, &Payload::Borrowed(&[]));
                }
            }
            Ok(frame) if frame.opcode == OpCode::Close => return closed(conn, &frame.payload),
            Ok(_) => {}
            Err(error) => {
                let reason = match error {
                    WebSocketError::ConnectionClosed | WebSocketError::UnexpectedEOF => String::new(),
                    error => error.to_string(),
                };
                return Event::Closed { conn, code: close::ABNORMAL, reason };
            }
        }
    }
}

fn closed(conn: Conn, payload: &[u8]) -> Event {
    let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned();
    Event::Closed { conn, code: close_code(payload), reason }
}

/// The code in the payload of a close frame.
pub fn close_code(payload: &[u8]) -> u16 {
    payload.first_chunk().map_or(close::ABNORMAL, |code| u16::from_be_bytes(*code))
}

/// Opens a connection with this sub-protocol, on which the other side has to agree, or with none.
pub async fn open(address: &Address, protocol: Option<&str>) -> Result<Socket, Error> {
    let stream = dial(address).await?;
    let mut request = Request::get(&address.path)
        .header(HOST, &address.authority)
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, generate_key());
    if let Some(protocol) = protocol {
        request = request.header(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    let request = request.body(Empty::<Bytes>::new())?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    // The connection has to be driven until it is upgraded, and no longer.
    let mut connection = Box::pin(connection.with_upgrades());
    let exchange = async {
        let mut response = sender.send_request(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::Status(response.status()));
        }
        let chosen = response.headers().get(SEC_WEBSOCKET_PROTOCOL);
        if protocol.is_some_and(|protocol| chosen.is_none_or(|chosen| chosen != protocol)) {
            return Err(Error::Protocol);
        }
        Ok(hyper::upgrade::on(&mut response).await?)
    };
    tokio::pin!(exchange);
    let upgraded = tokio::select! {
        upgraded = &mut exchange => upgraded?,
        driven = &mut connection => {
            driven?;
            exchange.await?
        }
    };
    let mut socket = WebSocket::after_handshake(TokioIo::new(upgraded), Role::Client);
    socket.set_max_message_size(MAX_FRAME);
    socket.set_auto_close(true);
    socket.set_auto_pong(true);
    Ok(socket)
}
