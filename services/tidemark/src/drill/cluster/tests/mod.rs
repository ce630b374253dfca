//! Faults on a cluster that lives in memory: what is asked of the API server, and in which order.

mod drain;
mod faults;
mod rights;
mod world;

use clap::Parser;

use super::{ClusterArgs, ClusterFault};

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// The flags as they come from the command line.
fn args(flags: &str) -> ClusterArgs {
    let flags = ["drill", "--kube"].into_iter().chain(flags.split_whitespace());
    Cli::try_parse_from(flags).unwrap().cluster
}
