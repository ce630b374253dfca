//! Drives the system on a cluster that is deployed already; `tests/e2e/run` makes one.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, ValueEnum};
use e2e::{
    checks::{boards::Trials, children, faults, idle, ingress, monitoring},
    kubectl::Kubectl,
    report::Report,
    stage::Stage,
};
use http::Uri;

/// The system on a real cluster: clients from outside, faults, and a verdict.
#[derive(Debug, Parser)]
struct Args {
    /// Where users reach the Board.
    #[arg(long, default_value = "https://localhost")]
    url: Uri,
    /// The same without TLS.
    #[arg(long, default_value = "http://localhost")]
    plain: Uri,
    /// The authority of its certificate.
    #[arg(long, default_value = ".tidemark/tls/ca.crt")]
    ca: PathBuf,
    /// The context of kubectl.
    #[arg(long, default_value = "kind-tidemark")]
    context: String,
    /// The Board's namespace.
    #[arg(long, default_value = "tidemark")]
    namespace: String,
    /// The Grafana dashboard whose queries are asked.
    #[arg(long, default_value = "k8s/dev/monitoring/tidemark.json")]
    dashboard: PathBuf,
    /// The manifest that users begin with.
    #[arg(long, default_value = "k8s/samples/board.yaml")]
    sample: PathBuf,
    /// The image of Postgres that the cluster has.
    #[arg(long, default_value = "postgres:18.4")]
    postgres_image: String,
    /// Clients that watch.
    #[arg(long, default_value_t = 100)]
    clients: usize,
    /// Texts saved per second.
    #[arg(long, default_value_t = 10)]
    rate: u32,
    /// Of the faults, only those whose name has these words.
    #[arg(long, value_name = "WORDS")]
    fault: Option<String>,
    /// Only these parts; all of them if none is named.
    #[arg(value_enum)]
    parts: Vec<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Ingress,
    Faults,
    Monitoring,
    Idle,
    Children,
    Boards,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let kubectl = Kubectl::new(&args.context, &args.namespace);
    let wanted = |part| args.parts.is_empty() || args.parts.contains(&part);
    let mut report = Report::default();
    if wanted(Part::Ingress) {
        ingress::run(&kubectl, &args.url, &args.plain, &args.ca, &mut report).await?;
    }
    if wanted(Part::Faults) {
        let stage = Stage::open(kubectl.clone(), &args.url, &args.ca, args.clients, args.rate).await?;
        let outcome = faults::run(&stage, args.fault.as_deref(), &mut report).await;
        stage.close().await;
        outcome?;
    }
    if wanted(Part::Monitoring) {
        monitoring::run(&kubectl, &args.dashboard, &mut report).await?;
    }
    if wanted(Part::Idle) {
        report.check("60 idle seconds without a write", idle::run(&kubectl)).await;
    }
    if wanted(Part::Children) {
        children::run(&kubectl, &mut report).await;
    }
    if wanted(Part::Boards) {
        let operator = kubectl.within("tidemark-system");
        let trials = Trials { kubectl, operator, postgres_image: args.postgres_image, sample: args.sample };
        trials.run(&mut report).await;
    }
    if let Some(table) = report.table() {
        println!("\n{table}\n");
    }
    println!("{}", report.summary());
    Ok(if report.held() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
