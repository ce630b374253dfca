//! A client of `/events`, by hand.

use std::net::SocketAddr;

use protocol::events::{Close, Decoder, Event};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::{Got, LONG};

/// A stream that is being read.
pub struct Stream {
    pub head: String,
    /// The newest `id:`.
    pub id: String,
    reader: BufReader<TcpStream>,
    decoder: Decoder,
    events: Vec<Event>,
}

impl Stream {
    /// Asks for `/events?query`.
    pub async fn open(addr: SocketAddr, query: &str, headers: &[(&str, &str)]) -> Self {
        Self::begin(TcpStream::connect(addr).await.unwrap(), "1.1", query, headers).await
    }

    /// As an old proxy asks.
    pub async fn open_old(addr: SocketAddr, query: &str) -> Self {
        Self::begin(TcpStream::connect(addr).await.unwrap(), "1.0", query, &[]).await
    }

    /// As [`Stream::open`], with a receive buffer so small that a client that does not read is felt at once.
    pub async fn open_small(addr: SocketAddr, query: &str) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        Self::begin(socket.connect(addr).await.unwrap(), "1.1", query, &[]).await
    }

    async fn begin(mut stream: TcpStream, version: &str, query: &str, headers: &[(&str, &str)]) -> Self {
        let extra: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let request = format!("GET /events?{query} HTTP/{version}\r\nhost: board.example:3000\r\n{extra}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reader = BufReader::with_capacity(256, stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(timeout(LONG, reader.read_line(&mut head)).await.unwrap().unwrap(), 0, "{head}");
        }
        Self { head, id: String::new(), reader, decoder: Decoder::new(1 << 20), events: Vec::new() }
    }

    /// The whole answer, if that is no stream.
    pub async fn rest(mut self) -> String {
        let mut text = self.head;
        timeout(LONG, self.reader.read_to_string(&mut text)).await.unwrap().unwrap();
        text
    }

    /// The next event; the end is one that the sender has declared.
    pub async fn next(&mut self) -> Got {
        timeout(LONG, self.event()).await.expect("an event in time")
    }

    /// `hello` and the first frame.
    pub async fn greeted(&mut self) -> (Value, Value) {
        (self.next().await.json(), self.next().await.json())
    }

    /// Reads until a frame satisfies the condition.
    pub async fn until(&mut self, condition: impl Fn(&Value) -> bool) -> Value {
        let looking = async {
            loop {
                let frame = self.event().await.json();
                if condition(&frame) {
                    return frame;
                }
            }
        };
        timeout(LONG, looking).await.expect("the frame in time")
    }

    /// Reads until this count arrives.
    pub async fn until_count(&mut self, count: i64) -> Value {
        self.until(|frame| frame["items"][0]["value"]["count"] == count).await
    }

    async fn event(&mut self) -> Got {
        while self.events.is_empty() {
            let piece = self.piece().await;
            if piece.is_empty() {
                return Got::End;
            }
            self.events = self.decoder.push(&piece).unwrap();
        }
        let Event { kind, id, data } = self.events.remove(0);
        if kind == "close" {
            let Close { code, reason } = serde_json::from_str(&data).unwrap();
            return Got::Close(code, reason);
        }
        self.id = id;
        let json: Value = serde_json::from_str(&data).unwrap();
        assert_eq!(json["type"], kind, "an event is named as its frame");
        Got::Json(json)
    }

    /// The next chunk; empty at the end.
    async fn piece(&mut self) -> Vec<u8> {
        if !self.head.contains("transfer-encoding: chunked") {
            let mut piece = vec![0; 4096];
            let length = self.reader.read(&mut piece).await.unwrap();
            piece.truncate(length);
            return piece;
        }
        let mut size = String::new();
        self.reader.read_line(&mut size).await.unwrap();
        let mut piece = vec![0; usize::from_str_radix(size.trim(), 16).expect("no chunk: the stream broke off") + 2];
        self.reader.read_exact(&mut piece).await.unwrap();
        piece.truncate(piece.len() - 2);
        piece
    }
}
