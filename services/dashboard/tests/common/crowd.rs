//! Clients by the thousand: each is little more than its socket.

use std::{net::SocketAddr, time::Duration};

use protocol::close;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

/// Asks for as many open files as a test needs.
pub fn files(needed: usize) {
    let files = runtime::raise_file_limit();
    assert!(
        files >= needed,
        "NOT RUN: this test needs {needed} open files, and the hard limit is {files} (ulimit -Hn)"
    );
}

/// What came of a handshake.
#[derive(Debug)]
pub enum Arrival {
    /// `hello` and the first frame; the connection stays open with the stream.
    On { stream: TcpStream, hello: Value, first: Value },
    /// Closed with 1013: to come again in so long.
    Later(Duration),
    /// No answer of a WebSocket server.
    Rejected(String),
}

/// One handshake, without a repeat.
pub async fn arrive(addr: SocketAddr, query: &str) -> Arrival {
    match TcpStream::connect(addr).await {
        Ok(stream) => shake_hands(stream, query).await,
        Err(error) => Arrival::Rejected(error.to_string()),
    }
}

/// The same on a connection that is open.
pub async fn shake_hands(mut stream: TcpStream, query: &str) -> Arrival {
    let lost = |error: std::io::Error| Arrival::Rejected(error.to_string());
    let request = format!(
        "GET /ws?{query} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    if let Err(error) = stream.write_all(request.as_bytes()).await {
        return lost(error);
    }
    let mut read = Vec::with_capacity(2048);
    loop {
        if let Some(arrival) = understand(&read) {
            return match arrival {
                Ok([hello, first]) => Arrival::On { stream, hello, first },
                Err(other) => other,
            };
        }
        match stream.read_buf(&mut read).await {
            Ok(0) => return Arrival::Rejected(String::from_utf8_lossy(&read).into_owned()),
            Ok(_) => {}
            Err(error) => return lost(error),
        }
    }
}

/// Comes again as it is told until it is served, as the page does. Gives the socket, both frames, and the number of handshakes.
pub async fn join(addr: SocketAddr, query: &str) -> (TcpStream, Value, Value, usize) {
    for tries in 1.. {
        match arrive(addr, query).await {
            Arrival::On { stream, hello, first } => return (stream, hello, first, tries),
            Arrival::Later(wait) => sleep(wait).await,
            // A connection that could not be opened: the first wait of the page's own backoff.
            Arrival::Rejected(_) => sleep(Duration::from_millis(rand::random_range(0..250))).await,
        }
    }
    unreachable!("it tries for ever")
}

/// The two frames of a greeting, or another end; `None`: not all of it is there yet.
fn understand(read: &[u8]) -> Option<Result<[Value; 2], Arrival>> {
    let end = read.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    if !read.starts_with(b"HTTP/1.1 101") {
        return Some(Err(Arrival::Rejected(String::from_utf8_lossy(read).into_owned())));
    }
    let (opcode, hello, rest) = frame(&read[end..])?;
    if opcode == 8 {
        assert_eq!(u16::from_be_bytes([hello[0], hello[1]]), close::TRY_LATER);
        let wait = close::parse_retry(std::str::from_utf8(&hello[2..]).unwrap()).unwrap();
        return Some(Err(Arrival::Later(Duration::from_millis(wait))));
    }
    let (_, first, _) = frame(rest)?;
    Some(Ok([hello, first].map(|json| serde_json::from_slice(json).unwrap())))
}

/// Opcode, payload and what follows, of a frame without a mask that is shorter than 64 KiB.
fn frame(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (length, head) = match *bytes.get(1)? {
        126 => (usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])), 4),
        short => (usize::from(short), 2),
    };
    let payload = bytes.get(head..head + length)?;
    Some((bytes[0] & 0x0F, payload, &bytes[head + length..]))
}
