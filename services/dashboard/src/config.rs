//! Configuration from the environment, beside what [`ServiceArgs`] has.
//!
//! | variable | default | meaning |
//! |---|---|---|
//! | `DATABASE_URL` | – | `postgres://user:password@host:port/database` |
//! | `LISTEN_DATABASE_URL` | `DATABASE_URL` | a direct way to the same database, if `DATABASE_URL` leads through a pooler |
//! | `GENERATOR_URL` | none | `http://host:port` of the metric generator; without it the feed `servers` is empty |
//! | `ALLOWED_ORIGINS` | none | pages of other sites that may connect: `https://a.example,https://b.example`, or `*` |
//! | `DRAIN_SECONDS` | 10 | over how long clients are moved away when this replica ends |
//! | `VISIT_RETENTION_DAYS` | 30 | how long visits that are over are remembered; the total does not depend on it |

use std::time::Duration;

use clap::Parser;
use runtime::{Secret, ServiceArgs, invalid};
use store::{DatabaseUrl, ReaderConfig, VisitorsConfig};

use crate::{
    Settings,
    origin::AllowedOrigins,
    servers::{GeneratorUrl, ServersConfig},
};

/// A write that makes no progress for so long ends the connection.
const STALL: Duration = Duration::from_secs(30);

/// The dashboard: pushes feeds to browsers over WebSocket and SSE.
#[derive(Debug, Parser)]
#[command(name = "dashboard", version)]
pub struct Args {
    /// What every service is told.
    #[command(flatten)]
    pub service: ServiceArgs,
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Secret,
    #[arg(long, env = "LISTEN_DATABASE_URL", hide_env_values = true)]
    listen_database_url: Option<Secret>,
    /// Where the metric generator listens; without it the feed `servers` is empty.
    #[arg(long, env = "GENERATOR_URL")]
    generator_url: Option<GeneratorUrl>,
    /// Pages of other sites that may connect, separated by commas.
    #[arg(long, env = "ALLOWED_ORIGINS", default_value = "")]
    allowed_origins: AllowedOrigins,
    /// Over how long clients are moved away at the end.
    #[arg(long, env = "DRAIN_SECONDS", default_value_t = 10)]
    drain_seconds: u16,
    /// Days for which a visit is remembered that is over. Forgetting it does not change the total.
    #[arg(long, env = "VISIT_RETENTION_DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    visit_retention_days: u32,
}

impl Args {
    /// The settings, or the end of the process with code 2 and the name of the variable that is wrong.
    pub fn settings(self) -> Settings {
        let url = |variable, secret: &Secret| {
            DatabaseUrl::parse(secret.expose()).unwrap_or_else(|error| invalid(variable, error))
        };
        let database = url("DATABASE_URL", &self.database_url);
        let listen = self
            .listen_database_url
            .as_ref()
            .map_or_else(|| database.clone(), |secret| url("LISTEN_DATABASE_URL", secret));
        Settings {
            replica: self.service.replica_name.clone(),
            origins: self.allowed_origins,
            drain: Duration::from_secs(self.drain_seconds.into()),
            beat: Duration::from_millis(protocol::DEFAULT_BEAT_MS),
            stall: STALL,
            servers: ServersConfig::new(self.generator_url),
            visitors: VisitorsConfig {
                retention: Duration::from_secs(u64::from(self.visit_retention_days) * 86_400),
                ..VisitorsConfig::new(database.clone(), self.service.replica_name.clone())
            },
            reader: ReaderConfig { listen, ..ReaderConfig::new(database, self.service.replica_name) },
        }
    }
}
