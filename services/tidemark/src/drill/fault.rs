//! What is done to the system.

use std::{process::Stdio, str::FromStr};

use tokio::{process::Command, time::Instant};

use super::{cluster::ClusterFault, local::LocalFault};

/// When what was taken away was there again.
#[derive(Debug, Clone, Copy)]
pub struct Returned {
    /// The moment.
    pub at: Instant,
}

/// A fault of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// On one machine.
    Local(LocalFault),
    /// On a cluster.
    Cluster(ClusterFault),
    /// What a command of the user does.
    Command(Script),
}

/// A command that is a fault: `NAME=COMMAND`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// What the fault is called.
    pub name: String,
    /// For the shell.
    pub command: String,
}

/// Why a command was not a fault.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// It could not be started.
    #[error("failed to run the command of {name}")]
    Start {
        /// Which.
        name: String,
        /// What went wrong.
        source: std::io::Error,
    },
    /// It failed.
    #[error("the command of {name} {how}")]
    Failed {
        /// Which.
        name: String,
        /// How it ended.
        how: String,
    },
}

impl Fault {
    /// What it is called.
    pub fn name(&self) -> &str {
        match self {
            Self::Local(fault) => fault.name(),
            Self::Cluster(fault) => fault.name(),
            Self::Command(script) => &script.name,
        }
    }

    /// The one on this machine that it is, if it is one.
    pub fn local(&self) -> Option<LocalFault> {
        if let Self::Local(fault) = self { Some(*fault) } else { None }
    }

    /// The one on a cluster that it is, if it is one.
    pub fn on_cluster(&self) -> Option<ClusterFault> {
        if let Self::Cluster(fault) = self { Some(*fault) } else { None }
    }

    /// The feed without which it shows nothing.
    pub fn feed(&self) -> Option<&'static str> {
        match self {
            Self::Local(fault) => fault.feed(),
            Self::Cluster(_) | Self::Command(_) => None,
        }
    }
}

impl FromStr for Script {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((name, command)) if is_name(name) && !command.trim().is_empty() => {
                Ok(Self { name: name.to_owned(), command: command.to_owned() })
            }
            _ => Err("write it as NAME=COMMAND; a name has a-z, 0-9 and -"),
        }
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

impl Script {
    /// Runs it to its end.
    ///
    /// # Errors
    /// When it fails: then it is not known what was measured.
    pub async fn run(&self) -> Result<Returned, ScriptError> {
        let name = || self.name.clone();
        let mut command = Command::new("sh");
        // Its output is for people, and ours may be for a program.
        command.args(["-c", &self.command]).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        let status = command.status().await.map_err(|source| ScriptError::Start { name: name(), source })?;
        if status.success() {
            Ok(Returned { at: Instant::now() })
        } else {
            Err(ScriptError::Failed { name: name(), how: crate::process::describe(status) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_is_a_fault_if_it_succeeds() {
        let script = |text: &str| text.parse::<Script>();
        assert!(script("kill-it=exit 0").unwrap().run().await.is_ok());
        let error = script("kill-it=exit 3").unwrap().run().await.unwrap_err().to_string();
        assert_eq!(error, "the command of kill-it ended with exit code 3");
        for wrong in ["kill-it", "=true", "kill it=true", "kill-it= ", "Kill=true"] {
            assert!(script(wrong).is_err(), "{wrong}");
        }
    }
}
