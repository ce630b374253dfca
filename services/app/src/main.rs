//! Wires the app: configuration, listeners, signals.

use std::{error::Error, process::ExitCode};

use app::{
    config::{Args, Command},
    run, schema,
};
use clap::Parser;
use runtime::Listeners;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let telemetry = runtime::init_telemetry("app");
    let ended = start(args).await;
    telemetry.flush().await;
    let Err(error) = ended else { return ExitCode::SUCCESS };
    // A line of the log, and not anyhow's report of several lines: a collector reads one line as one event.
    tracing::error!(error = &*error as &dyn Error, "the process failed");
    ExitCode::FAILURE
}

async fn start(args: Args) -> anyhow::Result<()> {
    if let Some(Command::Migrate) = args.command {
        return schema::migrate(args.database(), runtime::signals()?).await;
    }
    let service = args.service.clone();
    let settings = args.settings();
    let signals = runtime::signals()?;
    run(settings, Listeners::bind(&service).await?, signals).await
}
