//! The programs as their users start them: this one and, where a test is about more, the others that lie beside it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use sqlx::postgres::PgConnectOptions;
use test_support::{Output, listening, through, wait_until, with_database};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, timeout},
};

use super::LONG;

pub struct Running {
    child: Child,
    pub public: SocketAddr,
    pub admin: SocketAddr,
    output: Output,
}

impl Running {
    /// Starts a service on free ports and waits until it is ready.
    pub async fn start(service: &str, options: &PgConnectOptions, extra: &[(&str, &str)]) -> Self {
        let dashboard = Path::new(env!("CARGO_BIN_EXE_dashboard"));
        let program: PathBuf = dashboard.with_file_name(service);
        assert!(program.is_file(), "no {service} beside the dashboard: cargo build -p {service}");
        let mut command = Command::new(program);
        command.env_clear().env("DATABASE_URL", url(options)).env("PAGE_DIR", page_dir());
        command.envs([("HOST", "127.0.0.1"), ("PORT", "0"), ("ADMIN_PORT", "0"), ("DRAIN_SECONDS", "0")]);
        command.envs(extra.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let output = Output::of(service, &mut child);
        let (public, admin) = listening(&output.err()).await;
        let running = Self { child, public, admin, output };
        let ready = async || running.request(admin, "GET", "/readyz", &[], "").await.starts_with("HTTP/1.1 200");
        wait_until(LONG, "the service is ready", ready).await;
        running
    }

    /// The lines that it has logged so far which contain this.
    pub fn said(&self, part: &str) -> usize {
        self.output.err().with(part).len()
    }

    /// One request on a connection of its own.
    pub async fn request(
        &self,
        to: SocketAddr,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> String {
        let mut stream = TcpStream::connect(to).await.unwrap();
        let extra: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{extra}content-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Stores a text through `POST /save`.
    pub async fn save(&self, headers: &[(&str, &str)]) {
        let answer = self.request(self.public, "POST", "/save", headers, r#"{"text":"a text"}"#).await;
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }

    pub async fn metrics(&self) -> String {
        self.request(self.admin, "GET", "/metrics", &[], "").await
    }

    /// Memory that is its own and in use, KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Sends a signal: `-KILL`, `-STOP`.
    pub async fn signal(&self, signal: &str) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().await.unwrap().success());
    }

    /// Tells it to stop, and gives how long that took.
    pub async fn stop(&mut self) -> Duration {
        let began = Instant::now();
        self.signal("-TERM").await;
        let status = timeout(LONG, self.child.wait()).await.unwrap().unwrap();
        assert_eq!(status.code(), Some(0));
        began.elapsed()
    }
}

/// The address of the test's own database, with the password that the server wants.
fn url(options: &PgConnectOptions) -> String {
    let server = std::env::var("DATABASE_URL").unwrap();
    let here = SocketAddr::from(([127, 0, 0, 1], options.get_port()));
    through(&with_database(&server, options.get_database().unwrap()), here)
}

/// A page for the app, which starts with one only.
fn page_dir() -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("dashboard-page");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("index.html"), "<!doctype html>").unwrap();
    directory
}
