//! A process that outlives this one by a moment.
//!
//! Nothing that we do ourselves helps when we are killed by SIGKILL. So a second process of the same program is told over a pipe what is ours;
//! when the pipe closes, for whatever reason, it ends those processes that still run and removes those files that are still there.

use std::{
    io::{self, BufRead, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Mutex, PoisonError},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use crate::process::is_running;

/// The hidden subcommand that the second process runs.
pub const SUBCOMMAND: &str = "guard";

/// How long processes may take to follow the signal before they get SIGKILL: an immediate shutdown of Postgres waits 5 s for its own children.
const PATIENCE: Duration = Duration::from_secs(6);

/// Between two looks at whether they have gone.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Debug, Serialize, Deserialize)]
enum Message {
    /// This process is ours.
    Process { pid: i32, ending: Ending },
    /// It has ended and was waited for: its number may soon be somebody else's.
    Ended { pid: i32 },
    /// This file is ours, or this directory with all that is in it.
    Path(PathBuf),
    /// This directory is ours if it is empty.
    EmptyDirectory(PathBuf),
}

/// How a process is ended when we are gone.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Ending {
    /// SIGKILL.
    Kill,
    /// SIGQUIT: a Postgres server that is killed hard would leave its shared memory behind.
    Quit,
}

/// Our end of the pipe. When it closes, the guard clears away.
#[derive(Debug)]
pub struct Guard(Mutex<Option<(Child, ChildStdin)>>);

impl Guard {
    /// Starts the second process.
    ///
    /// # Errors
    /// When this program cannot be started a second time.
    pub fn start() -> io::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg(SUBCOMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Not in the terminal's group: Ctrl-C is for us alone.
            .process_group(0)
            .spawn()?;
        let pipe = process.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self(Mutex::new(Some((process, pipe)))))
    }

    /// This process must not outlive us.
    pub fn process(&self, pid: i32, ending: Ending) {
        self.tell(&Message::Process { pid, ending });
    }

    /// This process has ended.
    pub fn ended(&self, pid: i32) {
        self.tell(&Message::Ended { pid });
    }

    /// This file, or directory with everything in it, must not outlive us.
    pub fn path(&self, path: &Path) {
        self.tell(&Message::Path(path.to_owned()));
    }

    /// This directory must not outlive us if it is empty.
    pub fn empty_directory(&self, path: &Path) {
        self.tell(&Message::EmptyDirectory(path.to_owned()));
    }

    /// Has everything cleared away that is left, and waits for it.
    pub fn finish(&self) {
        if let Some((mut process, pipe)) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            drop(pipe);
            // It ends by itself: its own patience is bounded.
            let _ = process.wait();
        }
    }

    fn tell(&self, message: &Message) {
        let mut line = serde_json::to_vec(message).unwrap_or_default();
        line.push(b'\n');
        // A guard that somebody killed is missed only if we are killed as well.
        if let Some((_, pipe)) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            let _ = pipe.write_all(&line);
        }
    }
}

/// What the second process does.
pub fn watch(input: impl BufRead) {
    let (mut processes, mut paths, mut directories) = (Vec::new(), Vec::new(), Vec::new());
    for line in input.lines().map_while(Result::ok) {
        match serde_json::from_str(&line) {
            Ok(Message::Process { pid, ending }) => processes.push((Pid::from_raw(pid), ending)),
            Ok(Message::Ended { pid }) => processes.retain(|(known, _)| known.as_raw() != pid),
            Ok(Message::Path(path)) => paths.push(path),
            Ok(Message::EmptyDirectory(path)) => directories.push(path),
            Err(_) => {} // half a line: the writer died while it wrote
        }
    }
    end_all(&mut processes);
    for path in paths {
        // Each may have gone already, and none may keep the others from going.
        let _ = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
    }
    for directory in directories {
        let _ = std::fs::remove_dir(directory);
    }
}

fn end_all(processes: &mut Vec<(Pid, Ending)>) {
    for (pid, ending) in &*processes {
        let signal = match ending {
            Ending::Kill => Signal::SIGKILL,
            Ending::Quit => Signal::SIGQUIT,
        };
        let _ = kill(*pid, signal);
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        processes.retain(|(pid, _)| is_running(pid.as_raw()));
        if processes.is_empty() {
            return;
        }
        if Instant::now() >= deadline {
            break;
        }
        sleep(LOOK);
    }
    for (pid, _) in processes {
        let _ = kill(*pid, Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_and_removes_what_is_still_there_and_nothing_else() {
        let directory = std::env::temp_dir().join(format!("tidemark-guard-{}", std::process::id()));
        std::fs::create_dir_all(directory.join("mine/deep")).unwrap();
        std::fs::write(directory.join("kept"), "").unwrap();
        let sleeper = || Command::new("sleep").arg("60").spawn().unwrap();
        let (mut ours, mut reported) = (sleeper(), sleeper());
        let (our_pid, reported_pid) = (ours.id() as i32, reported.id() as i32);
        let messages = [
            Message::Process { pid: our_pid, ending: Ending::Quit },
            Message::Process { pid: reported_pid, ending: Ending::Kill },
            Message::Ended { pid: reported_pid },
            Message::Path(directory.join("mine")),
            Message::EmptyDirectory(directory.clone()),
        ];
        let lines: Vec<String> = messages.iter().map(|message| serde_json::to_string(message).unwrap()).collect();
        watch(lines.join("\n").as_bytes());
        assert!(!is_running(our_pid));
        ours.wait().unwrap();
        assert!(reported.try_wait().unwrap().is_none(), "what was reported as ended is left alone");
        assert!(!directory.join("mine").exists());
        assert!(directory.join("kept").exists(), "a directory that is not empty stays");
        reported.kill().unwrap();
        reported.wait().unwrap();
        std::fs::remove_dir_all(directory).unwrap();
    }
}
