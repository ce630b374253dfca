//! Wires the dashboard: configuration, listeners, signals.

use clap::Parser;
use dashboard::{config::Args, run};
use runtime::Listeners;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    runtime::init_telemetry();
    let service = args.service.clone();
    let settings = args.settings();
    let signals = runtime::signals()?;
    run(settings, Listeners::bind(&service).await?, signals).await
}
