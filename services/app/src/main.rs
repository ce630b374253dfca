//! Wires the app: configuration, listeners, signals.

use app::{config::Args, run};
use clap::Parser;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    runtime::init_telemetry();
    let (host, port, admin_port) = (args.service.host, args.service.port, args.service.admin_port);
    let settings = args.settings();
    let signals = runtime::signals()?;
    let public = runtime::bind(host, port, "PORT").await?;
    let admin = runtime::bind(host, admin_port, "ADMIN_PORT").await?;
    tracing::info!(address = %public.local_addr()?, admin = %admin.local_addr()?, replica = settings.replica, "app starts");
    run(settings, public, admin, signals).await
}
