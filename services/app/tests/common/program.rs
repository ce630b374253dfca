//! The program as its users start it.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use sqlx::postgres::PgConnectOptions;
use test_support::{Output, listening, through, with_database};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
};

/// Long against anything that a healthy system does, also on a machine that compiles at the same time.
pub const LONG: Duration = Duration::from_secs(20);

pub fn app(environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_app"));
    command.env_clear().env("PAGE_DIR", super::page_dir()).envs(environment.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// A running app, and where it listens.
pub struct Running {
    pub child: Child,
    pub public: SocketAddr,
    pub admin: SocketAddr,
    _output: Output,
}

impl Running {
    pub async fn start(extra: &[(&str, &str)], database: &str) -> Self {
        let mut environment =
            vec![("DATABASE_URL", database), ("HOST", "127.0.0.1"), ("PORT", "0"), ("ADMIN_PORT", "0")];
        environment.extend(extra);
        let mut child = app(&environment).spawn().unwrap();
        let output = Output::of("app", &mut child);
        let (public, admin) = listening(&output.err()).await;
        if let Some(secret) = password(database) {
            assert_eq!(output.err().with(secret), [""; 0]);
        }
        Self { child, public, admin, _output: output }
    }

    pub async fn ready(&self) -> bool {
        request(self.admin, "GET", "/readyz", "").await.starts_with("HTTP/1.1 200")
    }

    pub async fn terminate(&self) {
        terminate(&self.child).await;
    }
}

pub async fn terminate(child: &Child) {
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
}

/// One request on a connection of its own; empty if there was no answer.
pub async fn request(to: SocketAddr, method: &str, path: &str, body: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(to).await else { return String::new() };
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: app\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    let mut answer = String::new();
    if stream.write_all(format!("{head}{body}").as_bytes()).await.is_ok() {
        let _ = stream.read_to_string(&mut answer).await;
    }
    answer
}

/// The address of the test's own database, with the password that the server wants.
pub fn url(options: &PgConnectOptions, port: u16) -> String {
    let server = std::env::var("DATABASE_URL").unwrap();
    through(&with_database(&server, options.get_database().unwrap()), SocketAddr::from(([127, 0, 0, 1], port)))
}

/// The secret part of an address, if it has one.
fn password(url: &str) -> Option<&str> {
    let (credentials, _) = url.split_once("://")?.1.rsplit_once('@')?;
    Some(credentials.split_once(':')?.1)
}
