//! What the tests of this crate share: a place of their own, the program under test, and HTTP by hand.
#![allow(dead_code, reason = "each test file is a program of its own and uses a part of this")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

pub mod authority;
pub mod demo;
pub mod script;

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use test_support::{Lines, Output, wait_until};
use tidemark::{process::is_running, scratch::Scratch};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, ChildStdin, Command},
    time::timeout,
};

/// Long against anything that a healthy system does, also on a machine that compiles at the same time.
pub const LONG: Duration = Duration::from_secs(30);

/// A directory to run in, and one for temporary files, so that what is left behind can be seen.
pub struct Place {
    pub work: PathBuf,
    pub temporary: PathBuf,
    _root: Scratch,
}

impl Place {
    pub fn new() -> Self {
        let root = Scratch::inside(&std::env::temp_dir()).unwrap();
        let [work, temporary] = ["work", "tmp"].map(|name| root.path().join(name));
        for directory in [root.path(), &work, &temporary] {
            fs::create_dir_all(directory).unwrap();
            // The database's user has to get through if we are root.
            fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self { work, temporary, _root: root }
    }

    /// Whether nothing is left.
    pub fn is_clean(&self) -> bool {
        [&self.work, &self.temporary].into_iter().all(|directory| names(directory).is_empty())
    }

    /// Starts `tidemark` here.
    pub fn start(&self, arguments: &[&str]) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemark"));
        command.args(arguments).current_dir(&self.work).env("TMPDIR", &self.temporary).env_remove("DATABASE_URL");
        // A drain that is over soon: it is not what these tests are about.
        command.env("DRAIN_SECONDS", "2");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = Output::of(&format!("tidemark {}", arguments.join(" ")), &mut child);
        let pid = i32::try_from(child.id().unwrap()).unwrap();
        Run { input: child.stdin.take(), pid, child, out: output.out(), err: output.err(), output }
    }
}

pub fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The running program. When this goes, also because a test failed, the program is killed, and its guard clears away after it.
pub struct Run {
    pub input: Option<ChildStdin>,
    pub pid: i32,
    child: Child,
    pub out: Lines,
    pub err: Lines,
    output: Output,
}

impl Run {
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid), signal).unwrap();
    }

    /// Waits for the end. The exit code, or `None` after a signal.
    pub async fn end(&mut self) -> Option<i32> {
        timeout(LONG, self.ended()).await.expect("an end in time")
    }

    /// The same for what takes its time.
    pub async fn ended(&mut self) -> Option<i32> {
        drop(self.input.take());
        let status = self.child.wait().await.unwrap();
        // A process that outlived the program would hold the pipe open: that is an error too.
        timeout(LONG, self.output.closed()).await.expect("the end of its output");
        status.code()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.start_kill();
    }
}

/// Waits until none of these runs.
pub async fn all_gone(pids: &[i32]) {
    wait_until(LONG, "all processes have gone", async || !pids.iter().any(|pid| is_running(*pid))).await;
}

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// One request on a connection of its own. An answer that breaks off is an error.
pub async fn request(address: SocketAddr, line: &str, body: &str) -> Result<Answer, String> {
    let text = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(address).await.map_err(text)?;
    let length = body.len();
    let head = format!(
        "{line} HTTP/1.1\r\nhost: board.example:3000\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n"
    );
    // A server may answer before it has read a long body.
    let _ = stream.write_all((head + body).as_bytes()).await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.map_err(text)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    Ok(Answer { status: head[9..12].parse().unwrap(), head: head.to_lowercase(), body: body.to_owned() })
}
