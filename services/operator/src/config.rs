//! Configuration from the environment.
//!
//! | variable | default | meaning |
//! |---|---|---|
//! | `HOST` | `0.0.0.0` | address that the admin server listens on |
//! | `ADMIN_PORT` | 9090 | port for `/healthz`, `/readyz` and `/metrics`; there is none for users |
//! | `RUST_LOG` | `info` | log filter |
//! | `LOG_FORMAT` | `text` | `text` or `json` |
//!
//! The cluster is the one that the pod runs in, or else that of the kubeconfig (`KUBECONFIG`).

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use clap::{Parser, Subcommand};

/// The operator: turns Boards into running stacks.
#[derive(Debug, Parser)]
#[command(name = "operator", version)]
pub struct Args {
    #[arg(long, env = "HOST", default_value = "0.0.0.0")]
    host: IpAddr,
    /// Port for health and metrics; 0 takes a free one.
    #[arg(long, env = "ADMIN_PORT", default_value_t = 9090)]
    admin_port: u16,
    /// What to do; without it: run.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the program can do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Look after the cluster's Boards until told to stop.
    Run,
    /// Write the CRD as YAML into a directory (and into the chart, if there is one).
    Crds {
        /// Where to.
        #[arg(default_value = "k8s/crds")]
        dir: PathBuf,
    },
}

impl Args {
    /// Where the admin server listens.
    pub fn admin(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.admin_port)
    }
}
