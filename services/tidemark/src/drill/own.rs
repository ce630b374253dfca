//! A demo of the drill's own: another process, in a directory of its own, gone when the drill is over.

use std::{env, fs, io, path::PathBuf, time::Duration};

use nix::sys::signal::Signal;
use tokio::{
    process::Command,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    guard::Ending,
    process::{Household, Process, describe},
    scratch::Scratch,
};

/// How long it may take to be ready: a database, a migration and the replicas, on a machine that does other things too.
const READY: Duration = Duration::from_secs(60);

/// How often a wait looks.
const LOOK: Duration = Duration::from_millis(20);

/// A demo ends its replicas and its database one after the other.
const STOP: [(Signal, Duration); 2] =
    [(Signal::SIGTERM, Duration::from_secs(30)), (Signal::SIGTERM, Duration::from_secs(10))];

/// What the demo says last when it is ready.
const READY_LINE: &str = "Ctrl-C stops everything";

/// Nobody looks at this page.
const PAGE: &str = "<!doctype html><title>a drill</title>";

/// What the demo is made of.
#[derive(Debug, Clone, clap::Args)]
pub struct OwnArgs {
    /// Dashboards of the drill's own demo.
    #[arg(long, value_name = "N", default_value_t = 2, help_heading = "The drill's own demo")]
    dashboards: u16,
    /// Its apps.
    #[arg(long, value_name = "N", default_value_t = 2, help_heading = "The drill's own demo")]
    apps: u16,
    /// Its metric generators.
    #[arg(long, value_name = "N", default_value_t = 2, help_heading = "The drill's own demo")]
    generators: u16,
    /// Directory with the programs of the services (default: where this one is).
    #[arg(long, value_name = "DIR", help_heading = "The drill's own demo")]
    bin_dir: Option<PathBuf>,
}

/// Why there is no demo.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// No place for it.
    #[error("failed to prepare a demo")]
    Prepare(#[from] io::Error),
    /// It ended.
    #[error("the demo {how}. Its last lines:\n{tail}")]
    Ended {
        /// How.
        how: String,
        /// What it wrote.
        tail: String,
    },
    /// It is not ready in time.
    #[error("the demo was not ready after {} s. Its last lines:\n{tail}", READY.as_secs())]
    Slow {
        /// What it wrote.
        tail: String,
    },
}

/// A running demo.
#[derive(Debug)]
pub struct OwnDemo {
    process: Process,
    directory: Scratch,
}

impl OwnDemo {
    /// Starts a demo and waits until it is ready.
    ///
    /// # Errors
    /// [`OwnError`].
    pub async fn start(args: &OwnArgs, household: &Household) -> Result<Self, OwnError> {
        let directory = Scratch::inside(&env::temp_dir())?;
        household.guard.path(directory.path());
        fs::write(directory.path().join("index.html"), PAGE)?;
        let mut command = Command::new(env::current_exe()?);
        command.args(["demo", "--port", "0", "--page-dir", "."]).current_dir(directory.path());
        for (flag, count) in
            [("--dashboards", args.dashboards), ("--apps", args.apps), ("--generators", args.generators)]
        {
            command.args([flag, &count.to_string()]);
        }
        if let Some(directory) = &args.bin_dir {
            command.arg("--bin-dir").arg(std::path::absolute(directory)?);
        }
        // An address in the user's shell is that of another database.
        command.env_remove("DATABASE_URL");
        let process = Process::spawn(household, "demo", command, Ending::Kill)?;
        let mut demo = Self { process, directory };
        demo.ready().await.map(|()| demo)
    }

    async fn ready(&mut self) -> Result<(), OwnError> {
        let deadline = Instant::now() + READY;
        loop {
            if self.process.tail().contains(READY_LINE) {
                return Ok(());
            }
            tokio::select! {
                status = self.process.wait() => {
                    let how = describe(status?);
                    return Err(OwnError::Ended { how, tail: self.process.last_words().await });
                }
                () = sleep(LOOK) => {}
            }
            if Instant::now() >= deadline {
                return Err(OwnError::Slow { tail: self.process.tail() });
            }
        }
    }

    /// Where it says who runs.
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// Ends it.
    pub async fn stop(mut self, hurry: &CancellationToken) {
        self.process.stop(&STOP, hurry).await;
    }
}
