//! Wires the operator: configuration, admin server, cluster, signals.

use clap::Parser;
use operator::{
    config::{Args, Command},
    crds, run,
};
use runtime::Listeners;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    match args.command.clone().unwrap_or(Command::Run) {
        Command::Crds { dir } => {
            for path in crds::write(&dir)? {
                println!("{}", path.display());
            }
            Ok(())
        }
        Command::Run => {
            let telemetry = runtime::init_telemetry("operator");
            let signals = runtime::signals()?;
            let listener = Listeners::bind_admin(args.admin()).await?;
            let ended = run(kube::Client::try_default().await?, listener, signals).await;
            telemetry.flush().await;
            ended
        }
    }
}
