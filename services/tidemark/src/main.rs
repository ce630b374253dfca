//! Wires the command line: flags, subcommands, exit codes.

use std::{error::Error, io::stdin, process::ExitCode};

use clap::{Parser, Subcommand};
use tidemark::{check, demo, drill, feed, guard, postgres, process::Household, say, watch};

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
    /// Measure what clients notice when replicas and databases go away; exit code 0 if every budget held, 1 if not.
    Drill(Box<drill::Args>),
    /// Make feeds of the rows of your own tables.
    Feed(feed::Args),
    /// Save a text and see a dashboard count it; exit code 0 if it does.
    Check(check::Args),
    /// Run a command with a throw-away database, whose address is in DATABASE_URL.
    Postgres(postgres::Args),
    /// Clear away after a parent that was killed (started by the others).
    #[command(name = guard::SUBCOMMAND, hide = true)]
    Guard,
}

#[tokio::main]
async fn main() -> ExitCode {
    let code = run(Cli::parse().command).await.unwrap_or_else(|error| {
        say::error(&*error);
        // As clap does for a wrong argument.
        let watch = matches!(error.downcast_ref(), Some(watch::Error::Target(_) | watch::Error::Trust(_)));
        let check = matches!(error.downcast_ref(), Some(check::Error::Target(_) | check::Error::Trust(_)));
        let feed = error.downcast_ref().is_some_and(feed::Error::is_usage);
        // 1 would be a verdict.
        let drill = error.is::<drill::Error>();
        if watch || check || feed || drill { 2 } else { 1 }
    });
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

async fn run(command: Command) -> Result<i32, Box<dyn Error>> {
    match command {
        Command::Demo(args) => {
            let verbose = args.verbose();
            Household::run(verbose, async |household| demo::run(args, household).await).await??;
        }
        Command::Drill(args) => {
            let held = Household::run(false, async |household| drill::run(*args, household).await).await??;
            return Ok(i32::from(!held));
        }
        Command::Watch(args) => watch::run(args, &runtime::signals()?).await?,
        Command::Feed(args) => feed::run(args).await?,
        Command::Check(args) => check::run(args, &runtime::signals()?).await?,
        Command::Postgres(args) => {
            return Ok(Household::run(false, async |household| postgres::run(args, household).await).await??);
        }
        Command::Guard => guard::watch(stdin().lock()),
    }
    Ok(0)
}
