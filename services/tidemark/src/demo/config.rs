//! Flags of `tidemark demo`, checked before anything is started.

use std::{
    env,
    net::IpAddr,
    path::{Path, PathBuf},
};

use super::{Error, replicas::Service};
use crate::{postgres, process::StartLimit};

/// Where `make page` puts the page.
const PAGE_DIR: &str = "frontend/dist";

/// Flags of `tidemark demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    postgres: postgres::Options,
    /// Use this database (default: start one).
    #[arg(long, value_name = "URL", conflicts_with = "data")]
    database_url: Option<String>,
    /// Port of the page; 0 takes a free one.
    #[arg(long, env = "PORT", default_value_t = 3000)]
    port: u16,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Replicas of the app.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=9))]
    apps: u16,
    /// Replicas of the dashboard.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=9))]
    dashboards: u16,
    /// Replicas of the metric generator; SERVER_COUNT says how many servers they make.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(0..=9))]
    generators: u16,
    /// Directory with the programs of the services (default: where this one is).
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Directory of the built page.
    #[arg(long, value_name = "DIR", default_value = PAGE_DIR)]
    page_dir: PathBuf,
    /// Show what every part logs.
    #[arg(long, short)]
    verbose: bool,
}

/// What the demo is made of.
#[derive(Debug)]
pub(super) struct Config {
    pub postgres: postgres::Options,
    pub database_url: Option<String>,
    pub port: u16,
    pub host: IpAddr,
    pub apps: u16,
    pub dashboards: u16,
    pub generators: u16,
    pub bin_dir: PathBuf,
    pub page_dir: PathBuf,
}

impl Config {
    /// The limit of a start that begins now.
    pub fn start_limit(&self) -> StartLimit {
        StartLimit::new(self.postgres.start_timeout)
    }
}

impl Args {
    /// Whether the parts' logs are shown.
    pub fn verbose(&self) -> bool {
        self.verbose
    }

    pub(super) fn check(self) -> Result<Config, Error> {
        let Self { postgres, database_url, port, host, apps, dashboards, generators, bin_dir, page_dir, verbose: _ } =
            self;
        let bin_dir = match bin_dir {
            Some(directory) => directory,
            None => env::current_exe().map_err(Error::Prepare)?.parent().unwrap_or(Path::new(".")).to_owned(),
        };
        for service in Service::ALL {
            let path = bin_dir.join(service.name());
            if !path.is_file() {
                return Err(Error::Program(path));
            }
        }
        if !page_dir.join("index.html").is_file() {
            return Err(Error::Page(page_dir));
        }
        let absolute = |path: PathBuf| std::path::absolute(path).map_err(Error::Prepare);
        let (bin_dir, page_dir) = (absolute(bin_dir)?, absolute(page_dir)?);
        Ok(Config { postgres, database_url, port, host, apps, dashboards, generators, bin_dir, page_dir })
    }
}
