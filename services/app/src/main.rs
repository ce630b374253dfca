//! Wires the app: configuration, listeners, signals.

use app::{
    config::{Args, Command},
    run, schema,
};
use clap::Parser;
use runtime::Listeners;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let telemetry = runtime::init_telemetry("app");
    let ended = start(args).await;
    telemetry.flush().await;
    ended
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
