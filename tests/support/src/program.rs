//! A service as its users start it: a process that is told everything by its environment.

use std::{net::SocketAddr, path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
    time::timeout,
};

use crate::{Lines, Output, wait_until};

/// Long against anything that a healthy system does, also on a machine that compiles at the same time.
const LONG: Duration = Duration::from_secs(20);

/// The command that starts a program, on free ports of the loopback interface unless `environment` says otherwise. It knows no other variable.
#[must_use]
pub fn command(program: &Path, environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs([("HOST", "127.0.0.1"), ("PORT", "0"), ("ADMIN_PORT", "0")]);
    command.envs(environment.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// What a request was answered.
#[derive(Debug)]
pub struct Answer {
    /// The status; 0 if there was no answer.
    pub status: u16,
    /// Everything before the body, in small letters.
    pub head: String,
    /// The body.
    pub body: String,
}

/// A running service, and where it listens. It is killed when dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
    /// For users.
    pub users: SocketAddr,
    /// For health and metrics.
    pub admin: SocketAddr,
    output: Output,
}

impl Program {
    /// Starts a service and waits until it says where it listens.
    ///
    /// # Panics
    /// If it does not.
    pub async fn start(program: &Path, environment: &[(&str, &str)]) -> Self {
        let Ok(mut child) = command(program, environment).spawn() else { panic!("no {}", program.display()) };
        let output = Output::of(&program.display().to_string(), &mut child);
        let (users, admin) = listening(&output.err()).await;
        Self { child, users, admin, output }
    }

    /// The lines that it has logged so far which contain this.
    #[must_use]
    pub fn said(&self, part: &str) -> Vec<String> {
        self.output.err().with(part)
    }

    /// Asks the port for users.
    pub async fn get(&self, path: &str) -> Answer {
        get(self.users, path).await
    }

    /// Whether it is ready, and what it says of it.
    pub async fn readiness(&self) -> (bool, String) {
        let answer = get(self.admin, "/readyz").await;
        (answer.status == 200, answer.body)
    }

    /// Waits until it is ready; gives the time that it took.
    pub async fn ready(&self) -> Duration {
        wait_until(LONG, "the service is ready", async || self.readiness().await.0).await
    }

    /// The value of one line of its metrics, 0 if there is none.
    pub async fn metric(&self, line: &str) -> f64 {
        let text = get(self.admin, "/metrics").await.body;
        let value = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' ')?.trim().parse().ok());
        value.unwrap_or(0.0)
    }

    /// Tells it to stop (SIGTERM), waits for its end, and gives its exit code.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn stop(&mut self) -> Option<i32> {
        if let Some(pid) = self.child.id() {
            let told = Command::new("kill").args(["-TERM", &pid.to_string()]).status().await;
            assert!(told.is_ok_and(|status| status.success()), "{pid} can be told to stop");
        }
        match timeout(LONG, self.child.wait()).await {
            Ok(Ok(status)) => status.code(),
            other => panic!("it does not end: {other:?}"),
        }
    }
}

/// Waits until a service logs its two addresses: for users, and for health and metrics.
///
/// # Panics
/// If it does not.
pub async fn listening(log: &Lines) -> (SocketAddr, SocketAddr) {
    let line = log.line(" listening address=").await;
    let address = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)?.parse().ok());
    match (address("address="), address("admin=")) {
        (Some(users), Some(admin)) => (users, admin),
        _ => panic!("no two addresses in {line:?}"),
    }
}

/// One request on a connection of its own.
pub async fn get(to: SocketAddr, path: &str) -> Answer {
    let mut text = String::new();
    if let Ok(mut stream) = TcpStream::connect(to).await {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        if stream.write_all(request.as_bytes()).await.is_ok() {
            // What is cut off has no status, or is no JSON.
            let _ = stream.read_to_string(&mut text).await;
        }
    }
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}
