//! A child process: its last lines, its end, and how it is stopped.

use std::{
    collections::VecDeque,
    fmt::Display,
    io,
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader},
    process::{Child, Command},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::guard::{Ending, Guard};

/// Lines that are kept of each process: enough for the reason of a failure.
const TAIL: usize = 30;

/// Longest line that is kept whole, bytes.
const LINE: u64 = 4096;

/// Time limit of a start with several steps, which share it.
#[derive(Debug, Clone, Copy)]
pub struct StartLimit {
    began: Instant,
    limit: Duration,
}

impl StartLimit {
    /// Begins now.
    pub fn new(limit: Duration) -> Self {
        Self { began: Instant::now(), limit }
    }

    /// The result of one step, or `None` if the limit passes first.
    pub async fn apply<T>(&self, step: impl Future<Output = T>) -> Option<T> {
        timeout(self.limit.saturating_sub(self.began.elapsed()), step).await.ok()
    }

    /// The limit in words.
    pub fn describe(&self) -> impl Display + use<> {
        humantime::format_duration(self.limit)
    }
}

/// What all child processes share.
#[derive(Debug, Clone)]
pub struct Household {
    /// Ends them if we are killed.
    pub guard: Arc<Guard>,
    /// Where their readers run.
    pub tracker: TaskTracker,
    /// Whether what they write is shown.
    pub verbose: bool,
}

impl Household {
    /// Runs something that starts processes, and clears away after it.
    ///
    /// # Errors
    /// When the guard cannot be started; then nothing was run.
    pub async fn run<T>(verbose: bool, work: impl AsyncFnOnce(&Self) -> T) -> io::Result<T> {
        let guard = Arc::new(Guard::start()?);
        let telemetry = verbose.then(|| runtime::init_telemetry("tidemark"));
        let done = work(&Self { guard: Arc::clone(&guard), tracker: TaskTracker::new(), verbose }).await;
        if let Some(telemetry) = telemetry {
            telemetry.flush().await;
        }
        guard.finish();
        Ok(done)
    }
}

/// A child process in a group of its own, so that Ctrl-C in the terminal reaches only us.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: i32,
    child: Child,
    tail: Tail,
    readers: Vec<JoinHandle<()>>,
    household: Household,
}

impl Process {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(household: &Household, name: &str, mut command: Command, ending: Ending) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn()?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).ok_or(io::ErrorKind::NotFound)?;
        household.guard.process(pid, ending);
        let tail = Tail::default();
        let shown_as = household.verbose.then(|| name.to_owned());
        let mut readers = Vec::new();
        if let Some(output) = child.stdout.take() {
            readers.push(household.tracker.spawn(tail.clone().follow(output, shown_as.clone())));
        }
        if let Some(output) = child.stderr.take() {
            readers.push(household.tracker.spawn(tail.clone().follow(output, shown_as)));
        }
        Ok(Self { name: name.to_owned(), pid, child, tail, readers, household: household.clone() })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The last lines that it wrote.
    pub fn tail(&self) -> String {
        self.tail.text()
    }

    /// The same, for use after the process has been dropped.
    pub fn tail_handle(&self) -> Tail {
        self.tail.clone()
    }

    /// The last lines of a process that has ended. What it wrote may still be on its way to us, so this waits a moment for the rest.
    pub async fn last_words(&mut self) -> String {
        let read = async {
            for reader in &mut self.readers {
                let _ = reader.await;
            }
        };
        // A grandchild may hold the pipe open: then what is there must do.
        let _ = timeout(Duration::from_millis(500), read).await;
        self.readers.clear();
        self.tail()
    }

    /// Waits for its end. Cancel-safe.
    ///
    /// # Errors
    /// When the system does not tell.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        self.household.guard.ended(self.pid);
        Ok(status)
    }

    /// Sends each signal in turn and gives the process that long to end; after the last one comes SIGKILL. `hurry` leaves out all but the last.
    pub async fn stop(&mut self, steps: &[(Signal, Duration)], hurry: &CancellationToken) {
        let Some(((last, last_patience), steps)) = steps.split_last() else { return };
        for (signal, patience) in steps {
            if hurry.is_cancelled() {
                break;
            }
            self.signal(*signal);
            let ended = tokio::select! {
                ended = timeout(*patience, self.wait()) => ended.is_ok(),
                () = hurry.cancelled() => false,
            };
            if ended {
                return;
            }
        }
        self.signal(*last);
        if timeout(*last_patience, self.wait()).await.is_ok() {
            return;
        }
        self.signal(Signal::SIGKILL);
        // Nothing resists SIGKILL, but a disk that hangs may delay the end; the guard waits for that.
        let _ = timeout(Duration::from_secs(1), self.wait()).await;
    }

    fn signal(&self, signal: Signal) {
        // `id` is `None` once it was waited for: then the number may be somebody else's.
        if self.child.id().is_some() {
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }
}

/// Whether this process runs. One that has ended and that nobody has waited for yet does not.
pub fn is_running(pid: i32) -> bool {
    // Somebody else's process, which we may not signal, runs as well.
    let exists = matches!(kill(Pid::from_raw(pid), None), Ok(()) | Err(Errno::EPERM));
    // Field 3, after the program's name in parentheses. Elsewhere than on Linux there is no such file, and such processes count as running.
    let is_zombie = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
    };
    exists && !is_zombie()
}

/// How a process ended, for people.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "ended".to_owned(),
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(number)) => match Signal::try_from(number) {
            Ok(signal) => format!("was killed by {signal}"),
            Err(_) => format!("was killed by signal {number}"),
        },
        (None, None) => "ended".to_owned(),
    }
}

/// The last lines of a process. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    /// Reads until the process and its children have closed their end.
    async fn follow(self, output: impl AsyncRead + Unpin, shown_as: Option<String>) {
        let mut reader = BufReader::new(output);
        let mut line = Vec::new();
        loop {
            line.clear();
            match (&mut reader).take(LINE).read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if let Some(name) = &shown_as {
                crate::say::note(format_args!("{name:<12} {text}"));
            }
            self.push(text);
        }
    }

    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == TAIL {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// All of them, indented.
    pub fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_process_is_told_in_words() {
        assert_eq!(describe(ExitStatus::from_raw(0)), "ended");
        assert_eq!(describe(ExitStatus::from_raw(7 << 8)), "ended with exit code 7");
        assert_eq!(describe(ExitStatus::from_raw(9)), "was killed by SIGKILL");
    }

    #[test]
    fn a_process_runs_until_it_ends_also_if_nobody_has_waited_for_it() {
        let mut sleeper = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(sleeper.id()).unwrap();
        assert!(is_running(pid) && is_running(1));
        sleeper.kill().unwrap();
        while cfg!(target_os = "linux") && is_running(pid) {
            std::thread::yield_now();
        }
        sleeper.wait().unwrap();
        assert!(!is_running(pid));
    }

    #[tokio::test]
    async fn only_the_last_lines_are_kept_and_a_long_one_is_cut() {
        let tail = Tail::default();
        let mut text: String = (0..100).map(|n| format!("line {n}\n")).collect();
        text += &"x".repeat(5_000);
        tail.clone().follow(text.as_bytes(), None).await;
        let kept = tail.text();
        assert_eq!(kept.lines().count(), TAIL);
        assert!(kept.contains("line 99") && !kept.contains("line 70\n"));
        assert!(kept.lines().all(|line| line.len() <= LINE as usize + 2));
    }
}
