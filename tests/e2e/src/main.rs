//! Drives the system on a cluster that is deployed already; `tests/e2e/run` makes one.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use e2e::{
    args::{Args, Part},
    checks::{boards::Trials, children, idle, ingress, monitoring},
    kubectl::Kubectl,
    report::Report,
};

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let kubectl = Kubectl::new(&args.context, &args.namespace);
    let mut report = Report::default();
    if args.wants(Part::Ingress) {
        ingress::run(&kubectl, &args.url, &args.plain, &args.ca, &mut report).await?;
    }
    if args.wants(Part::Monitoring) {
        monitoring::run(&kubectl, &args.dashboard, &mut report).await?;
    }
    if args.wants(Part::Idle) {
        report.check("60 idle seconds without a write", idle::run(&kubectl)).await;
    }
    if args.wants(Part::Children) {
        children::run(&kubectl, &mut report).await;
    }
    if args.wants(Part::Boards) {
        let operator = kubectl.within("tidemark-system");
        let trials = Trials { kubectl, operator, postgres_image: args.postgres_image, sample: args.sample };
        trials.run(&mut report).await;
    }
    println!("{}", report.summary());
    Ok(if report.held() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
