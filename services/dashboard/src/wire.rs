//! Frames as the bytes that go to a client: encoded once for each transport, written as they are (a server's frames are not masked, RFC 6455 section 5.1).

use bytes::Bytes;
use fastwebsockets::{Frame as WsFrame, Payload};
use protocol::{Frame, Transport, events};

/// A frame as its transport carries it.
pub fn frame(frame: &Frame, transport: Transport) -> Bytes {
    match transport {
        Transport::WebSocket => text(frame),
        Transport::Sse => events::encode(frame).into(),
    }
}

/// A text frame with this JSON.
fn text(frame: &Frame) -> Bytes {
    // Serialising plain data to memory cannot fail; an empty object would be ignored by every client.
    let json = serde_json::to_vec(frame).unwrap_or_else(|_| b"{}".to_vec());
    encode(WsFrame::text(Payload::Borrowed(&json)))
}

/// A close frame. The reason is cut to what a control frame holds (125 bytes with the code).
pub fn close(code: u16, reason: &str) -> Bytes {
    encode(WsFrame::close(code, &reason.as_bytes()[..reason.floor_char_boundary(123)]))
}

/// The answer to a ping.
pub fn pong(payload: &[u8]) -> Bytes {
    encode(WsFrame::pong(Payload::Borrowed(payload)))
}

fn encode(mut frame: WsFrame<'_>) -> Bytes {
    let mut buffer = Vec::new();
    Bytes::copy_from_slice(frame.write(&mut buffer))
}
