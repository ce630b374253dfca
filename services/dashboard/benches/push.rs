//! What a delivered message costs: CPU per message and memory per connection of the dashboard's push path with all protocol features, against a
//! bare `send()` loop that writes the same bytes to the same number of sockets. Server and clients are processes of their own; `make bench`.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a bench that panics has said what it found")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener as StdListener, TcpStream as StdStream},
    process::{Child, ChildStdout, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use dashboard::{
    admission::{Gate, Limits},
    db_updater::DbUpdater,
    gateway::{self, Gateway},
    hub::{Hub, Scalar, Snapshot},
    metrics::Metrics,
    origin::AllowedOrigins,
    session::Context,
};
use prometheus::Registry;
use protocol::{History, Transport};
use runtime::Tasks;
use serde_json::json;
use store::{DatabaseUrl, Reader, ReaderConfig, ReaderMetrics, VisitorMetrics, Visitors, VisitorsConfig};
use tokio::sync::watch;

const SOCKETS: usize = 2_000;
/// Messages per socket. 25 ms apart would be merged by the dashboard's limit of 20 frames/s, so both send every 60 ms.
const MESSAGES: usize = 60;
const EVERY: Duration = Duration::from_millis(60);
const ROUNDS: usize = 5;

fn main() {
    match std::env::var("PUSH_ROLE").as_deref() {
        Ok("bare") => bare(),
        Ok("dashboard") => runtime().block_on(dashboard()),
        Ok("clients") => runtime().block_on(clients()),
        _ => compare(),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

// The parent: runs the two servers in turn.

fn compare() {
    let (mut bare, mut dashboard) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        // The dashboard first: its frames decide how long the bare ones are.
        let full = measure("dashboard", 0);
        bare.push(measure("bare", full.bytes as usize));
        dashboard.push(full);
    }
    let middle = |values: Vec<f64>| {
        let mut values = values;
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let column = |runs: &[Measured], of: fn(&Measured) -> f64| middle(runs.iter().map(of).collect());
    println!(
        "\n{SOCKETS} sockets, {MESSAGES} messages each, {} bytes (median of {ROUNDS} runs in turn)",
        dashboard[0].bytes
    );
    println!("{:>16} {:>20} {:>24}", "", "CPU us/message", "resident KiB/connection");
    println!(
        "{:>16} {:>20.2} {:>24.1}",
        "bare send loop",
        column(&bare, |run| run.cpu_us),
        column(&bare, |run| run.kib)
    );
    println!(
        "{:>16} {:>20.2} {:>24.1}",
        "dashboard",
        column(&dashboard, |run| run.cpu_us),
        column(&dashboard, |run| run.kib)
    );
    let ratios = dashboard.iter().zip(&bare).map(|(dashboard, bare)| dashboard.cpu_us / bare.cpu_us).collect();
    println!("ratio of CPU: {:.2} (targets: <= 1.15, and <= 4 KiB per connection)", middle(ratios));
}

struct Measured {
    cpu_us: f64,
    kib: f64,
    bytes: f64,
}

fn role(role: &str, vars: &[(&str, String)]) -> (Child, BufReader<ChildStdout>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env("PUSH_ROLE", role).envs(vars.iter().map(|(name, value)| (*name, value))).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    (child, lines)
}

fn line(lines: &mut impl BufRead) -> String {
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    line.trim().to_owned()
}

fn measure(server: &str, bytes: usize) -> Measured {
    let (mut server, mut said) = role(server, &[("PUSH_BYTES", bytes.to_string())]);
    let port = line(&mut said);
    let (mut clients, _) = role("clients", &[("PUSH_PORT", port)]);
    let numbers: Vec<f64> = line(&mut said).split(' ').map(|number| number.parse().unwrap()).collect();
    server.wait().unwrap();
    clients.kill().unwrap();
    clients.wait().unwrap();
    Measured { cpu_us: numbers[0], kib: numbers[1], bytes: numbers[2] }
}

// The two servers.

/// Prints what the parent reads: CPU per message, memory per connection, bytes per message.
fn report(cpu: Duration, kib: u64, bytes: usize) {
    let messages = (SOCKETS * MESSAGES) as f64;
    println!("{} {} {}", cpu.as_secs_f64() * 1e6 / messages, kib as f64 / SOCKETS as f64, bytes);
}

/// CPU time of this process: fields 14 and 15 of proc_pid_stat(5), in ticks of 10 ms.
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let ticks: u64 = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(ticks * 10)
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn bare() {
    let bytes: usize = std::env::var("PUSH_BYTES").unwrap().parse().unwrap();
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    let before = resident_kib();
    let mut sockets: Vec<StdStream> = (0..SOCKETS)
        .map(|_| {
            let (mut socket, _) = listener.accept().unwrap();
            socket.set_nodelay(true).unwrap();
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") {
                socket.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            socket.write_all(b"HTTP/1.1 101 x\r\n\r\n").unwrap();
            socket
        })
        .collect();
    let (kib, message) = (resident_kib() - before, vec![b'x'; bytes]);
    let start = cpu();
    for _ in 0..MESSAGES {
        let began = Instant::now();
        for socket in &mut sockets {
            socket.write_all(&message).unwrap();
        }
        std::thread::sleep(EVERY.saturating_sub(began.elapsed()));
    }
    report(cpu() - start, kib, bytes);
}

async fn dashboard() {
    let (tasks, registry) = (Tasks::default(), Registry::new());
    // The values come from here, not from a database: what is measured is the way from the hub to the sockets.
    let nowhere = DatabaseUrl::parse("postgres://nobody@127.0.0.1:1/nothing").unwrap();
    let stopped = Tasks::default();
    stopped.token.cancel();
    let reader = Reader::start(
        ReaderConfig::new(nowhere.clone(), "bench"),
        ReaderMetrics::register(&registry).unwrap(),
        &stopped.tracker,
        stopped.token.clone(),
    );
    let hub = Arc::new(Hub::new("dashboard-7f9c-x2".into(), Duration::from_secs(5)));
    let set = |version: u64| {
        let history = History { store: "k3v9k3v9k3v9k3v9".into(), timeline: 1 };
        let at = tokio::time::Instant::now();
        let value = json!({ "count": version });
        let values = vec![Scalar { feed: "texts".to_owned(), version, value, changed: Some(at), known_at: at }];
        hub.update(|items| items.apply(Snapshot { history, at, values }));
    };
    set(1_000_000);
    let (_drain, drain) = watch::channel(None);
    let metrics = Metrics::register(&registry).unwrap();
    let context = Context {
        hub: Arc::clone(&hub),
        reader,
        metrics,
        pushes: Arc::default(),
        token: tasks.token.clone(),
        drain,
        stall: Duration::from_secs(30),
    };
    let (open, mut opened) = watch::channel(0);
    let visitors = DbUpdater::new(Visitors::start(
        VisitorsConfig::new(nowhere, "bench"),
        VisitorMetrics::register(&registry).unwrap(),
        &stopped.tracker,
        stopped.token.clone(),
    ));
    let (origins, context) = (AllowedOrigins::default(), Arc::new(context));
    // As many at once as there are: what is measured comes after.
    let limits = Limits { burst: 2 * SOCKETS as u32, ..Limits::default() };
    let gate = Arc::new(Gate::new(limits, usize::MAX, tokio::time::Instant::now()));
    let gateway = Gateway { origins, context, tasks: tasks.clone(), visitors, gate, open };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    let before = resident_kib();
    tokio::spawn(axum::serve(listener, gateway::router(Arc::new(gateway))).into_future());
    opened.wait_for(|open| *open == SOCKETS).await.unwrap();
    // The last handshakes end, and their buffers go.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let kib = resident_kib() - before;
    let feeds = Arc::new(protocol::Feeds::parse("texts").unwrap());
    let mut position = hub.greet(&feeds, None, false, Transport::WebSocket).position;
    let start = cpu();
    for message in 1..=MESSAGES as u64 {
        let began = Instant::now();
        set(1_000_000 + message);
        tokio::time::sleep(EVERY.saturating_sub(began.elapsed())).await;
    }
    let bytes = hub.news(&feeds, &mut position, Transport::WebSocket).unwrap().frame.len();
    report(cpu() - start, kib, bytes);
    std::process::exit(0);
}

// The clients: they read and forget.

async fn clients() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = format!("127.0.0.1:{}", std::env::var("PUSH_PORT").unwrap());
    let mut sockets = Vec::new();
    for _ in 0..SOCKETS {
        let mut socket = tokio::net::TcpStream::connect(&address).await.unwrap();
        let request = "GET /ws?feeds=texts HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
            sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        socket.write_all(request.as_bytes()).await.unwrap();
        sockets.push(tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while !matches!(socket.read(&mut buffer).await, Ok(0) | Err(_)) {}
        }));
    }
    for socket in sockets {
        let _ = socket.await;
    }
}
