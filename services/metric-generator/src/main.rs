//! Wires the generator: configuration, listeners, signals.

use clap::Parser;
use metric_generator::{config::Args, run};
use runtime::Listeners;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let telemetry = runtime::init_telemetry("metric-generator");
    let ended = start(args).await;
    telemetry.flush().await;
    ended
}

async fn start(args: Args) -> anyhow::Result<()> {
    let service = args.service.clone();
    let settings = args.settings();
    let signals = runtime::signals()?;
    run(settings, Listeners::bind(&service).await?, signals).await
}
