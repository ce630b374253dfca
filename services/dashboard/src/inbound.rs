//! What a client sends: pings, pongs and a close at the most. A client of `tidemark.v1` asks for nothing after the handshake, so everything
//! else breaks the rules, and the connection is closed with the reason.

use std::io;

use bytes::Bytes;
use fastwebsockets::{Frame, OpCode, Role, WebSocketError};
use protocol::close;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::mpsc,
};

use crate::wire;

/// Largest payload of a control frame (RFC 6455 section 5.5), bytes. fastwebsockets refuses what is as long as its limit, hence one more.
const LIMIT: usize = 125 + 1;
/// Longest header of a client's frame, bytes: 2, up to 8 for the length, 4 for the mask.
const MAX_HEAD: usize = 14;

/// Why a client's half of the connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The client closed, or went away.
    Gone,
    /// The client acknowledged nothing for so long that the kernel gave up.
    Silent,
    /// The client broke the rules: close with this code and reason.
    Broken(u16, &'static str),
}

/// Reads until the client's half ends. Pongs that have to be sent go to `pongs`; a client that pings faster than it reads is slowed down by it.
///
/// Not cancel-safe (fastwebsockets loses a partly read frame): poll one future to its end.
pub async fn read(stream: impl AsyncRead + Unpin, pongs: mpsc::Sender<Bytes>) -> Ended {
    // The second argument would be the write half; sessions write by themselves.
    let (mut frames, _) = fastwebsockets::after_handshake_split(stream, tokio::io::sink(), Role::Server);
    frames.set_auto_close(false);
    frames.set_auto_pong(false);
    frames.set_max_message_size(LIMIT);
    // With automatic answers off there is nothing that fastwebsockets would have to send.
    let mut no_answer = |_| async { Ok::<_, WebSocketError>(()) };
    loop {
        match frames.read_frame(&mut no_answer).await {
            Ok(mut frame) => match classify(&mut frame) {
                Ok(OpCode::Ping) => {
                    if pongs.send(wire::pong(&frame.payload)).await.is_err() {
                        return Ended::Gone;
                    }
                }
                Ok(OpCode::Close) => return Ended::Gone,
                Ok(_) => {}
                Err((code, reason)) => return Ended::Broken(code, reason),
            },
            Err(error) => return of_error(&error),
        }
    }
}

/// The kind of a control frame, or what is wrong with it.
fn classify(frame: &mut Frame<'_>) -> Result<OpCode, (u16, &'static str)> {
    // fastwebsockets keeps the mask to itself but writes it into a header.
    let mut head = [0; MAX_HEAD];
    frame.fmt_head(&mut head);
    if head[1] & 0x80 == 0 {
        return Err((close::PROTOCOL_ERROR, "a client's frames must be masked"));
    }
    match frame.opcode {
        OpCode::Text | OpCode::Binary | OpCode::Continuation => Err((close::POLICY, "a client sends no data frames")),
        control => Ok(control),
    }
}

fn of_error(error: &WebSocketError) -> Ended {
    use WebSocketError as E;
    match error {
        E::FrameTooLarge => Ended::Broken(close::POLICY, "the frame is too large"),
        E::InvalidUTF8 => Ended::Broken(close::POLICY, "a client sends no data frames"),
        E::ReservedBitsNotZero => Ended::Broken(close::PROTOCOL_ERROR, "reserved bits must be zero"),
        E::ControlFrameFragmented => Ended::Broken(close::PROTOCOL_ERROR, "control frames must not be fragmented"),
        E::PingFrameTooLarge => Ended::Broken(close::PROTOCOL_ERROR, "a control frame holds at most 125 bytes"),
        E::InvalidFragment | E::InvalidContinuationFrame | E::InvalidValue => {
            Ended::Broken(close::PROTOCOL_ERROR, "not a frame of RFC 6455")
        }
        E::IoError(error) if error.kind() == io::ErrorKind::TimedOut => Ended::Silent,
        _ => Ended::Gone,
    }
}

/// Reads and forgets what still comes, at most `limit` bytes: a socket that is closed with unread bytes resets, and the peer would lose the reason.
pub async fn drain(mut stream: impl AsyncRead + Unpin, limit: usize) {
    let (mut rest, mut buffer) = (limit, [0; 1024]);
    while rest > 0 {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(n) => rest = rest.saturating_sub(n),
        }
    }
}
