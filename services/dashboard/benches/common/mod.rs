//! A client as small as can be.

use std::{net::SocketAddr, time::Duration};

use fastwebsockets::{Role, WebSocketError, WebSocketRead};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// What a server sends.
pub type Frames = WebSocketRead<TcpStream>;

/// Connects, and tries again until a `hello` comes: before the first reading a replica closes with "try later".
pub async fn connect(addr: SocketAddr, feeds: &str) -> Frames {
    loop {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let request = format!(
            "GET /ws?feeds={feeds} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let (mut frames, _) = fastwebsockets::after_handshake_split(stream, tokio::io::sink(), Role::Client);
        frames.set_auto_close(false);
        if frame(&mut frames).await.is_some_and(|frame| frame.contains("\"hello\"")) {
            return frames;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The next frame; `None` when the connection has ended.
pub async fn frame(frames: &mut Frames) -> Option<String> {
    let mut none = |_| async { Ok::<_, WebSocketError>(()) };
    let frame = frames.read_frame(&mut none).await.ok()?;
    Some(String::from_utf8_lossy(&frame.payload).into_owned())
}
