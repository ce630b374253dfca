//! Configuration from the environment, beside what [`ServiceArgs`] has.
//!
//! | variable | default | meaning |
//! |---|---|---|
//! | `DATABASE_URL` | – | `postgres://user:password@host:port/database` |
//! | `SOURCE` | `generated` | `generated`: made-up servers; `host`: this machine, as one server under its own name |
//! | `SERVER_COUNT` | 3 | how many servers are made up, 1 to 1,000 |
//! | `SEED` | 1 | another number makes other samples; replicas must have the same one |
//! | `METRICS_RETENTION` | `24h` | how long samples are kept, an hour to a week |

use std::time::Duration;

use clap::{Parser, ValueEnum};
use runtime::{Secret, ServiceArgs, invalid};
use store::{DatabaseUrl, SamplesConfig};

use crate::{Settings, servers::Source};

/// Partitions are an hour wide.
const SHORTEST_RETENTION: Duration = Duration::from_secs(3_600);

/// 168 partitions: planning a query grows with their number, and takes some milliseconds with these.
const LONGEST_RETENTION: Duration = Duration::from_secs(7 * 86_400);

/// The generator: makes and stores servers' metrics each second.
#[derive(Debug, Parser)]
#[command(name = "metric-generator", version)]
pub struct Args {
    /// What every service is told.
    #[command(flatten)]
    pub service: ServiceArgs,
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Secret,
    /// Where samples come from.
    #[arg(long, env = "SOURCE", value_enum, default_value_t = Kind::Generated)]
    source: Kind,
    /// How many servers are made up.
    #[arg(long, env = "SERVER_COUNT", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    server_count: u16,
    /// Another number makes other samples; replicas must have the same one.
    #[arg(long, env = "SEED", default_value_t = 1)]
    seed: u64,
    /// How long samples are kept, from an hour to a week.
    #[arg(long, env = "METRICS_RETENTION", default_value = "24h", value_parser = parse_retention)]
    metrics_retention: Duration,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// Made-up servers.
    Generated,
    /// This machine, as one server under its own name.
    Host,
}

impl Args {
    /// The settings, or the end of the process with code 2 and the name of the variable that is wrong.
    pub fn settings(self) -> Settings {
        let Self { service, database_url, source, server_count, seed, metrics_retention } = self;
        let database = DatabaseUrl::parse(database_url.expose()).unwrap_or_else(|error| invalid("DATABASE_URL", error));
        let source = match source {
            Kind::Generated => Source::Generated { seed, count: server_count },
            Kind::Host => Source::Host { name: runtime::host_name() },
        };
        Settings { source, samples: SamplesConfig::new(database, service.replica_name, metrics_retention) }
    }
}

fn parse_retention(text: &str) -> Result<Duration, String> {
    let retention = humantime::parse_duration(text).map_err(|error| format!("{error}; write it as 24h or 7days"))?;
    if (SHORTEST_RETENTION..=LONGEST_RETENTION).contains(&retention) {
        Ok(retention)
    } else {
        Err("it must be from 1h to 7days".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retention_is_from_an_hour_to_a_week() {
        for (text, hours) in [("1h", 1), ("60m", 1), ("24h", 24), ("1day 12h", 36), ("7days", 168)] {
            assert_eq!(parse_retention(text), Ok(Duration::from_secs(hours * 3_600)), "{text}");
        }
        for text in ["", "24", "-1h", "59m", "8days", "forever", "99999999999999999999days"] {
            assert!(parse_retention(text).is_err(), "{text}");
        }
    }
}
