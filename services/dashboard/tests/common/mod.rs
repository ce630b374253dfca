//! What the tests of this crate share: a replica on a database of its own, and a client that shows every byte it gets.
#![allow(dead_code, reason = "each test file is a program of its own and uses a part of this")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

pub mod collector;
pub mod crowd;
pub mod follower;
pub mod memory;
pub mod process;
pub mod queries;
pub mod standby;
pub mod stream;

use std::{net::SocketAddr, time::Duration};

use dashboard::{
    Settings, admission::Limits, drain::Window, origin::AllowedOrigins, servers::ServersConfig, sockets::SocketOptions,
};
use fastwebsockets::{OpCode, Role, WebSocketError, WebSocketRead, WebSocketWrite};
use runtime::{Listeners, Signals};
use serde_json::Value;
use sqlx::{PgPool, postgres::PgConnectOptions};
use store::{DatabaseUrl, ReaderConfig, VisitorsConfig};
use test_support::wait_until;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Sink},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinHandle,
    time::{Instant, timeout},
};

/// Long against anything that a healthy system does, also on a machine that compiles at the same time.
pub const LONG: Duration = Duration::from_secs(20);

/// A replica under test.
pub struct Replica {
    pub addr: SocketAddr,
    pub admin: SocketAddr,
    pub signals: Signals,
    pub task: JoinHandle<anyhow::Result<()>>,
}

pub fn settings(database: DatabaseUrl) -> Settings {
    Settings {
        replica: "dashboard-test".into(),
        origins: AllowedOrigins::default(),
        limits: Limits::default(),
        sockets: SocketOptions::default(),
        drain: fixed(Duration::from_millis(200)),
        beat: Duration::from_secs(5),
        stall: Duration::from_secs(30),
        reader: ReaderConfig::new(database.clone(), "dashboard-test"),
        visitors: VisitorsConfig::new(database, "dashboard-test"),
        servers: ServersConfig::new(None),
    }
}

/// A window that does not depend on the number of clients.
pub fn fixed(window: Duration) -> Window {
    Window { least: window, most: window }
}

impl Replica {
    /// A ready replica with these settings.
    pub async fn start(settings: Settings) -> Self {
        let replica = Self::start_unready(settings, TcpListener::bind("127.0.0.1:0").await.unwrap()).await;
        wait_until(LONG, "the replica is ready", async || replica.ready().await.0).await;
        replica
    }

    pub async fn start_unready(settings: Settings, users: TcpListener) -> Self {
        let admin_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, admin) = (users.local_addr().unwrap(), admin_listener.local_addr().unwrap());
        let signals = Signals::default();
        let task = tokio::spawn(dashboard::run(settings, Listeners { users, admin: admin_listener }, signals.clone()));
        Self { addr, admin, signals, task }
    }

    /// What the admin port answers.
    pub async fn admin(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.admin).await.unwrap();
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        (text[9..12].parse().unwrap(), text)
    }

    pub async fn ready(&self) -> (bool, String) {
        let (status, text) = self.admin("/readyz").await;
        (status == 200, text)
    }

    /// The value of one series of `/metrics`, or the sum over all labels of a name without any.
    pub async fn metric(&self, series: &str) -> f64 {
        let (_, text) = self.admin("/metrics").await;
        let is_meant = |rest: &&str| rest.starts_with(' ') || (rest.starts_with('{') && !series.ends_with('}'));
        let lines = text.lines().filter_map(|line| line.strip_prefix(series)).filter(is_meant);
        lines.map(|rest| rest.rsplit(' ').next().unwrap().trim().parse::<f64>().unwrap()).sum()
    }

    pub async fn connect(&self, query: &str) -> Client {
        Client::connect(self.addr, query, &[]).await.unwrap()
    }

    /// Changes the count until the replica gives up a client that takes nothing. `seen` waits until a witness knows a count; it must never have to wait long.
    pub async fn until_stalled(&self, pool: &PgPool, mut seen: impl AsyncFnMut(i64)) {
        let (mut saved, began, mut slowest) = (0_i64, Instant::now(), Duration::ZERO);
        while self.metric("tidemark_stalled_total").await == 0.0 {
            assert!(began.elapsed() < Duration::from_secs(60), "the stuck client was never cut");
            save(pool, 1).await;
            saved += 1;
            let sent = Instant::now();
            seen(saved).await;
            slowest = slowest.max(sent.elapsed());
        }
        // A set may have to wait 50 ms for its turn; the rest is the machine's.
        assert!(slowest < Duration::from_secs(1), "the witness waited {slowest:?}");
    }

    pub async fn stop(self) {
        self.signals.stop.cancel();
        self.signals.hurry.cancel();
        timeout(LONG, self.task).await.unwrap().unwrap().unwrap();
    }
}

/// What arrived.
#[derive(Debug, PartialEq)]
pub enum Got {
    Json(Value),
    Pong(Vec<u8>),
    Close(u16, String),
    End,
}

impl Got {
    pub fn json(self) -> Value {
        match self {
            Self::Json(value) => value,
            other => panic!("expected a frame, got {other:?}"),
        }
    }
}

/// A client that writes bytes as they are and reads frames.
pub struct Client {
    pub write: OwnedWriteHalf,
    pub head: String,
    frames: WebSocketRead<OwnedReadHalf>,
    _unused: WebSocketWrite<Sink>,
}

impl Client {
    /// Connects to `/ws?query`; an answer other than 101 is the error.
    pub async fn connect(addr: SocketAddr, query: &str, headers: &[(&str, &str)]) -> Result<Self, String> {
        Self::handshake(TcpStream::connect(addr).await.map_err(|error| error.to_string())?, query, headers).await
    }

    /// As [`Client::connect`], with a receive buffer so small that a client that does not read is felt at once.
    pub async fn connect_small(addr: SocketAddr, query: &str) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        Self::handshake(socket.connect(addr).await.unwrap(), query, &[]).await.unwrap()
    }

    async fn handshake(mut stream: TcpStream, query: &str, headers: &[(&str, &str)]) -> Result<Self, String> {
        let extra: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let request = format!(
            "GET /ws?{query} HTTP/1.1\r\nhost: board.example:3000\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extra}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(error) => return Err(error.to_string()),
            }
        }
        let head = String::from_utf8(head).unwrap();
        if !head.starts_with("HTTP/1.1 101") {
            return Err(head);
        }
        let (read, write) = stream.into_split();
        let (mut frames, _unused) = fastwebsockets::after_handshake_split(read, tokio::io::sink(), Role::Client);
        frames.set_auto_close(false);
        frames.set_auto_pong(false);
        Ok(Self { write, head, frames, _unused })
    }

    /// The next frame.
    pub async fn next(&mut self) -> Got {
        timeout(LONG, self.frame()).await.expect("a frame in time")
    }

    async fn frame(&mut self) -> Got {
        let mut none = |_| async { Ok::<_, WebSocketError>(()) };
        match self.frames.read_frame(&mut none).await {
            Ok(frame) => match frame.opcode {
                OpCode::Text => Got::Json(serde_json::from_slice(&frame.payload).unwrap()),
                OpCode::Pong => Got::Pong(frame.payload.to_vec()),
                OpCode::Close => {
                    let code = u16::from_be_bytes([frame.payload[0], frame.payload[1]]);
                    Got::Close(code, String::from_utf8(frame.payload[2..].to_vec()).unwrap())
                }
                other => panic!("unexpected {other:?}"),
            },
            Err(_) => Got::End,
        }
    }

    /// `hello` and the first frame.
    pub async fn greeted(&mut self) -> (Value, Value) {
        (self.next().await.json(), self.next().await.json())
    }

    /// Reads until a frame satisfies the condition.
    pub async fn until(&mut self, condition: impl Fn(&Value) -> bool) -> Value {
        self.until_within(LONG, condition).await
    }

    /// The same for what takes its time also when all is well.
    pub async fn until_within(&mut self, deadline: Duration, condition: impl Fn(&Value) -> bool) -> Value {
        let looking = async {
            loop {
                let frame = self.frame().await.json();
                if condition(&frame) {
                    return frame;
                }
            }
        };
        timeout(deadline, looking).await.expect("the frame in time")
    }

    /// Reads until this count arrives.
    pub async fn until_count(&mut self, count: i64) -> Value {
        self.until(|frame| frame["items"][0]["value"]["count"] == count).await
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        // The server may have closed already: what it said is then read.
        let _ = self.write.write_all(bytes).await;
    }
}

/// A client's frame: the first byte, then length, mask and payload as RFC 6455 section 5.2 has them.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut frame = vec![first];
    match u16::try_from(payload.len()) {
        Ok(short @ 0..=125) => frame.push(0x80 | short as u8),
        Ok(medium) => {
            frame.push(0x80 | 126);
            frame.extend(medium.to_be_bytes());
        }
        Err(_) => {
            frame.push(0x80 | 127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

pub fn url(options: &PgConnectOptions) -> DatabaseUrl {
    options.clone().into()
}

/// Stores texts by SQL, as any other program could.
pub async fn save(pool: &PgPool, texts: i32) {
    let insert =
        "INSERT INTO tidemark.texts (id, body) SELECT gen_random_uuid(), 'text ' || n FROM generate_series(1, $1) AS n";
    sqlx::query(insert).bind(texts).execute(pool).await.unwrap();
}
