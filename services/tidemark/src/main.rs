//! Wires the command line: flags, subcommands, exit codes.

use std::{error::Error, io::stdin, process::ExitCode, sync::Arc};

use clap::{Parser, Subcommand};
use tidemark::{demo, guard, guard::Guard, postgres, process::Household, say, watch};
use tokio_util::task::TaskTracker;

/// Live numbers from Postgres on every screen.
#[derive(Debug, Parser)]
#[command(name = "tidemark", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole system on this machine: database, replicas, and one address before them.
    Demo(demo::Args),
    /// Show feeds in this terminal, one line per change.
    Watch(watch::Args),
    /// Run a command with a throw-away database, whose address is in DATABASE_URL.
    Postgres(postgres::Args),
    /// Clear away after a parent that was killed (started by the others).
    #[command(name = guard::SUBCOMMAND, hide = true)]
    Guard,
}

#[tokio::main]
async fn main() -> ExitCode {
    let code = match Cli::parse().command {
        Command::Demo(args) => {
            let verbose = args.verbose();
            household(verbose, async |household| {
                demo::run(args, household).await.map_or_else(|error| fail(&error, 1), |()| 0)
            })
            .await
        }
        Command::Postgres(args) => {
            household(false, async |household| {
                postgres::run(args, household).await.unwrap_or_else(|error| fail(&error, 1))
            })
            .await
        }
        Command::Watch(args) => match runtime::signals() {
            Ok(signals) => match watch::run(args, &signals).await {
                Ok(()) => 0,
                Err(error @ watch::Error::Target(_)) => fail(&error, 2),
                Err(error) => fail(&error, 1),
            },
            Err(error) => fail(&error, 1),
        },
        Command::Guard => {
            guard::watch(stdin().lock());
            0
        }
    };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Runs something that starts processes, and clears away after it.
async fn household(verbose: bool, run: impl AsyncFnOnce(&Household) -> i32) -> i32 {
    let guard = match Guard::start() {
        Ok(guard) => Arc::new(guard),
        Err(error) => return fail(&error, 1),
    };
    let household = Household { guard: Arc::clone(&guard), tracker: TaskTracker::new(), verbose };
    if verbose {
        runtime::init_telemetry();
    }
    let code = run(&household).await;
    guard.finish();
    code
}

/// Says what went wrong, with its causes.
fn fail(error: &dyn Error, code: i32) -> i32 {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    say::note(format_args!("error: {text}"));
    code
}
