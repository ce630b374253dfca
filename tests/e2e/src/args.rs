//! What can be asked for on the command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use http::Uri;

/// The system on a real cluster: what must hold, seen from outside.
#[derive(Debug, Parser)]
pub struct Args {
    /// Where users reach the Board.
    #[arg(long, default_value = "https://localhost")]
    pub url: Uri,
    /// The same without TLS.
    #[arg(long, default_value = "http://localhost")]
    pub plain: Uri,
    /// The authority of its certificate.
    #[arg(long, default_value = ".tidemark/tls/ca.crt")]
    pub ca: PathBuf,
    /// The context of kubectl.
    #[arg(long, default_value = "kind-tidemark")]
    pub context: String,
    /// The Board's namespace.
    #[arg(long, default_value = "tidemark")]
    pub namespace: String,
    /// The Grafana dashboard whose queries are asked.
    #[arg(long, default_value = "k8s/dev/monitoring/tidemark.json")]
    pub dashboard: PathBuf,
    /// The manifest that users begin with.
    #[arg(long, default_value = "k8s/samples/board.yaml")]
    pub sample: PathBuf,
    /// The image of Postgres that the cluster has.
    #[arg(long, default_value = "postgres:18.4")]
    pub postgres_image: String,
    /// Only these parts; all of them if none is named.
    #[arg(value_enum)]
    pub parts: Vec<Part>,
}

/// A part of the run. The parts are independent of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// HTTP/3, redirect, and that there is no other way in.
    Ingress,
    /// The queries of the Grafana dashboard.
    Monitoring,
    /// Nobody touches anything, and nothing is written.
    Idle,
    /// Children that are deleted or edited.
    Children,
    /// Boards that are wrong.
    Boards,
}

impl Args {
    /// Whether a part is to be run.
    pub fn wants(&self, part: Part) -> bool {
        self.parts.is_empty() || self.parts.contains(&part)
    }
}
