//! A running server. It is our own child: no daemon that `pg_ctl` would leave behind.

use std::{io, path::Path, process::ExitStatus, time::Duration};

use nix::sys::signal::Signal;
use tokio::{fs, process::Command, time::sleep};
use tokio_util::sync::CancellationToken;

use super::Error;
use crate::{
    guard::Ending,
    process::{Household, Process, StartLimit, Tail, describe},
};

const NAME: &str = "postgres";

/// Between two looks at whether it is ready.
const LOOK: Duration = Duration::from_millis(20);

/// SIGINT is Postgres's fast shutdown (sessions are ended, a checkpoint is written), SIGQUIT its immediate one (without).
const STOP: [(Signal, Duration); 2] =
    [(Signal::SIGINT, Duration::from_secs(10)), (Signal::SIGQUIT, Duration::from_secs(6))];

/// A server that takes connections.
#[derive(Debug)]
pub struct Server {
    process: Process,
}

impl Server {
    pub(super) async fn start(
        directory: &Path,
        command: Command,
        limit: &StartLimit,
        household: &Household,
    ) -> Result<Self, Error> {
        let program = command.as_std().get_program().into();
        let mut process = Process::spawn(household, NAME, command, Ending::Quit)
            .map_err(|source| Error::Spawn { program, source })?;
        let pid = process.pid();
        let outcome = tokio::select! {
            status = process.wait() => Some(status),
            ready = limit.apply(ready(directory, pid)) => {
                if ready.is_none() {
                    // There are no sessions and nothing new to keep.
                    let hurry = CancellationToken::new();
                    hurry.cancel();
                    process.stop(&STOP, &hurry).await;
                    let (step, limit) = ("the start of Postgres", limit.describe().to_string());
                    return Err(Error::Slow { step, limit, program: NAME, tail: process.last_words().await });
                }
                None
            }
        };
        match outcome {
            None => Ok(Self { process }),
            Some(status) => {
                let how = status.map_or_else(|error| error.to_string(), describe);
                Err(Error::Ended { program: NAME, how, tail: process.last_words().await })
            }
        }
    }

    /// Its process number.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// The last lines that it wrote.
    pub fn tail_handle(&self) -> Tail {
        self.process.tail_handle()
    }

    /// Waits for its end, which nobody wanted. Cancel-safe.
    ///
    /// # Errors
    /// When the system does not tell.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.process.wait().await
    }

    /// Stops it in an orderly way; with `hurry` at once.
    pub async fn stop(mut self, hurry: &CancellationToken) {
        self.process.stop(&STOP, hurry).await;
    }
}

/// Waits until the server says in its lock file that it takes connections, as `pg_ctl` does.
async fn ready(directory: &Path, pid: i32) {
    let file = directory.join("postmaster.pid");
    loop {
        if fs::read_to_string(&file).await.is_ok_and(|text| says_ready(&text, pid)) {
            return;
        }
        sleep(LOOK).await;
    }
}

/// Line 1 is the process number (a file of an earlier server may lie there), line 8 the status.
fn says_ready(lock_file: &str, pid: i32) -> bool {
    let mut lines = lock_file.lines();
    lines.next().and_then(|line| line.trim().parse().ok()) == Some(pid)
        && lines.nth(6).is_some_and(|status| status.trim() == "ready")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_said_by_the_right_server_in_the_right_line() {
        let file = "123\n/data\n1700000000\n5432\n\n127.0.0.1\n  5 7\nready   \n";
        assert!(says_ready(file, 123));
        assert!(!says_ready(file, 124));
        assert!(!says_ready(&file.replace("ready", "starting"), 123));
        assert!(!says_ready("123\n/data\n", 123));
    }
}
