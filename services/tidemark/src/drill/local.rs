//! Faults on one machine: signals to the processes of a demo, which `.tidemark/demo.json` names.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::ValueEnum;
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System as Processes};
use tokio::time::{Instant, sleep};

use super::fault::Returned;
use crate::{
    demo::roster::{self, Entry},
    process::is_running,
};

/// How often the demo's file is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// How long the demo may take to be whole again: a drain of the longest kind, and a start.
const WHOLE: Duration = Duration::from_secs(150);

/// A frozen replica stays frozen until every client has noticed (2.5 beats of 5 s) and has had 5 s to go elsewhere.
const FREEZE: Duration = Duration::from_millis(protocol::DEFAULT_BEAT_MS * 5 / 2 + 5_000);

/// A database stays frozen for so long.
const FREEZE_DATABASE: Duration = Duration::from_secs(10);

/// What can be done to a demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LocalFault {
    /// A replica is asked to end.
    Sigterm,
    /// A replica is killed.
    Sigkill,
    /// A replica is stopped for 17.5 s: its connections are half open.
    Freeze,
    /// New dashboards start, then the old ones end.
    Rolling,
    /// The database ends, and starts again after 3 s.
    DatabaseRestart,
    /// The database is stopped for 10 s.
    DatabaseFreeze,
    /// A metric generator is killed.
    GeneratorKill,
}

/// Why a fault could not be done.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The file.
    #[error("failed to read {}: faults on one machine need a demo that runs in this directory, or leave the address out", path.display())]
    Roster {
        /// Which.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// Another system.
    #[error("the demo of this directory is {found}, not {wanted}")]
    Other {
        /// Its address.
        found: String,
        /// The one that was named.
        wanted: String,
    },
    /// Nobody there.
    #[error("the demo has no {0}")]
    Nobody(String),
    /// The signal.
    #[error("failed to signal {name} (pid {pid})")]
    Signal {
        /// Whom.
        name: String,
        /// Its process.
        pid: i32,
        /// What went wrong.
        source: Errno,
    },
    /// The system does not say which processes there are.
    #[error("failed to list the processes of this machine: {0}")]
    Processes(String),
    /// It does not come back.
    #[error("after {fault}, the demo was not whole again within {} s: {missing}", WHOLE.as_secs())]
    NotWhole {
        /// What was done.
        fault: &'static str,
        /// What is missing.
        missing: String,
    },
}

/// A demo that runs on this machine.
#[derive(Debug, Clone)]
pub struct Demo {
    file: PathBuf,
    /// The service whose replicas are taken away.
    target: String,
}

impl LocalFault {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sigterm => "sigterm",
            Self::Sigkill => "sigkill",
            Self::Freeze => "freeze",
            Self::Rolling => "rolling",
            Self::DatabaseRestart => "database-restart",
            Self::DatabaseFreeze => "database-freeze",
            Self::GeneratorKill => "generator-kill",
        }
    }

    /// The feed without which it shows nothing.
    pub fn feed(self) -> Option<&'static str> {
        (self == Self::GeneratorKill).then_some("servers")
    }
}

impl Demo {
    /// The demo that runs in a directory.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(directory: &Path, target: &str) -> Result<Self, LocalError> {
        let demo = Self { file: roster::file_in(directory), target: target.to_owned() };
        demo.entries().map(|_| demo)
    }

    /// Its address.
    ///
    /// # Errors
    /// When it has gone.
    pub fn url(&self) -> Result<String, LocalError> {
        Ok(self.one("front")?.url)
    }

    /// Whether these faults can be done.
    ///
    /// # Errors
    /// Names what is missing.
    pub fn check(&self, url: &str, faults: &[LocalFault]) -> Result<(), LocalError> {
        let found = self.url()?;
        if found.trim_end_matches('/') != url.trim_end_matches('/') {
            return Err(LocalError::Other { found, wanted: url.to_owned() });
        }
        for fault in faults {
            self.one(self.service(*fault))?;
        }
        Ok(())
    }

    /// Does it, and returns when what was taken away is there again.
    ///
    /// # Errors
    /// [`LocalError`].
    pub async fn inject(&self, fault: LocalFault) -> Result<Returned, LocalError> {
        let before = self.entries()?;
        let victim = self.one(self.service(fault))?;
        match fault {
            LocalFault::Sigterm => self.replace(fault, &before, victim, Signal::SIGTERM).await,
            LocalFault::Sigkill | LocalFault::GeneratorKill => {
                self.replace(fault, &before, victim, Signal::SIGKILL).await
            }
            // What Postgres calls a fast shutdown: transactions are rolled back, connections closed.
            LocalFault::DatabaseRestart => self.replace(fault, &before, victim, Signal::SIGINT).await,
            LocalFault::Freeze => {
                let mut frozen = Frozen::default();
                frozen.stop(&victim.name, victim.pid)?;
                Ok(frozen.go_on_after(FREEZE).await)
            }
            LocalFault::DatabaseFreeze => {
                // The server first: it can then start no further process.
                let mut frozen = Frozen::default();
                frozen.stop(&victim.name, victim.pid)?;
                for child in children(victim.pid)? {
                    frozen.stop(&victim.name, child)?;
                }
                Ok(frozen.go_on_after(FREEZE_DATABASE).await)
            }
            LocalFault::Rolling => {
                let front = self.one("front")?;
                let old: Vec<Entry> = before.iter().filter(|entry| entry.service == "dashboard").cloned().collect();
                signal(&front.name, front.pid, Signal::SIGUSR1)?;
                self.whole(fault, &before, &old).await
            }
        }
    }

    fn service(&self, fault: LocalFault) -> &str {
        match fault {
            LocalFault::Sigterm | LocalFault::Sigkill | LocalFault::Freeze => &self.target,
            LocalFault::Rolling => "dashboard",
            LocalFault::DatabaseRestart | LocalFault::DatabaseFreeze => "postgres",
            LocalFault::GeneratorKill => "metric-generator",
        }
    }

    async fn replace(
        &self,
        fault: LocalFault,
        before: &[Entry],
        victim: Entry,
        with: Signal,
    ) -> Result<Returned, LocalError> {
        signal(&victim.name, victim.pid, with)?;
        self.whole(fault, before, &[victim]).await
    }

    /// Waits until these have gone and others are in their places.
    async fn whole(&self, fault: LocalFault, before: &[Entry], old: &[Entry]) -> Result<Returned, LocalError> {
        let deadline = Instant::now() + WHOLE;
        loop {
            let missing = missing(before, old, &self.entries()?);
            let Some(missing) = missing else { return Ok(Returned { at: Instant::now() }) };
            if Instant::now() >= deadline {
                return Err(LocalError::NotWhole { fault: fault.name(), missing });
            }
            sleep(LOOK).await;
        }
    }

    fn entries(&self) -> Result<Vec<Entry>, LocalError> {
        roster::read(&self.file).map_err(|source| LocalError::Roster { path: self.file.clone(), source })
    }

    fn one(&self, service: &str) -> Result<Entry, LocalError> {
        let entry = self.entries()?.into_iter().find(|entry| entry.service == service);
        entry.ok_or_else(|| LocalError::Nobody(service.to_owned()))
    }
}

/// What is not as it was: one of the old still runs, or a service has fewer replicas than before.
fn missing(before: &[Entry], old: &[Entry], now: &[Entry]) -> Option<String> {
    let is_there = |entry: &&Entry| is_running(entry.pid) || now.iter().any(|other| other.pid == entry.pid);
    if let Some(entry) = old.iter().find(is_there) {
        return Some(format!("{} (pid {}) is still there", entry.name, entry.pid));
    }
    let count = |entries: &[Entry], service: &str| entries.iter().filter(|entry| entry.service == service).count();
    let fewer = before.iter().find(|entry| count(now, &entry.service) < count(before, &entry.service))?;
    Some(format!("a replica of {} is missing", fewer.service))
}

/// Processes that are stopped. They go on whatever happens here.
#[derive(Debug, Default)]
struct Frozen(Vec<i32>);

impl Frozen {
    fn stop(&mut self, name: &str, pid: i32) -> Result<(), LocalError> {
        self.0.push(pid);
        signal(name, pid, Signal::SIGSTOP)
    }

    async fn go_on_after(self, time: Duration) -> Returned {
        sleep(time).await;
        drop(self);
        Returned { at: Instant::now() }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for pid in &self.0 {
            // One that has gone meanwhile needs nothing.
            let _ = kill(Pid::from_raw(*pid), Signal::SIGCONT);
        }
    }
}

fn signal(name: &str, pid: i32, signal: Signal) -> Result<(), LocalError> {
    kill(Pid::from_raw(pid), signal).map_err(|source| LocalError::Signal { name: name.to_owned(), pid, source })
}

/// The processes that this one has started.
fn children(pid: i32) -> Result<Vec<i32>, LocalError> {
    let mut processes = Processes::new().map_err(|error| LocalError::Processes(error.to_string()))?;
    processes.refresh_processes_specifics(ProcessesToUpdate::All, true, ProcessRefreshKind::nothing());
    let parent = u32::try_from(pid).map(sysinfo::Pid::from_u32).ok();
    let children = processes.processes().iter().filter(|(_, process)| process.parent() == parent);
    Ok(children.filter_map(|(pid, _)| i32::try_from(pid.as_u32()).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(service: &str, name: &str, pid: i32) -> Entry {
        Entry { service: service.into(), name: name.into(), pid, url: String::new(), admin: None }
    }

    #[test]
    fn the_demo_is_whole_when_the_old_have_gone_and_as_many_are_there() {
        // No process has such a number: Linux stops at 4,194,304.
        let [old, other, new] = [10_000_001, 10_000_002, 10_000_003].map(|pid| entry("dashboard", "d", pid));
        let before = [old.clone(), other.clone(), entry("app", "a", 10_000_004)];
        let gone = [old.clone()];
        let now = |entries: &[&Entry]| {
            let all: Vec<_> = entries.iter().map(|entry| (*entry).clone()).chain([before[2].clone()]).collect();
            missing(&before, &gone, &all)
        };
        assert!(now(&[&old, &other]).unwrap().contains("still there"));
        assert!(now(&[&other]).unwrap().contains("dashboard is missing"));
        assert_eq!(now(&[&other, &new]), None);
    }

    #[test]
    fn the_children_of_a_process_are_found() {
        let mut shell = std::process::Command::new("sh").args(["-c", "sleep 60 & wait"]).spawn().unwrap();
        let pid = i32::try_from(shell.id()).unwrap();
        let found = loop {
            let found = children(pid).unwrap();
            if !found.is_empty() {
                break found;
            }
            std::thread::yield_now();
        };
        assert_eq!(found.len(), 1);
        kill(Pid::from_raw(found[0]), Signal::SIGKILL).unwrap();
        shell.wait().unwrap();
    }
}
