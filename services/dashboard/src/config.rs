//! Configuration from the environment, beside what [`ServiceArgs`] has.
//!
//! | variable | default | meaning |
//! |---|---|---|
//! | `DATABASE_URL` | – | `postgres://user:password@host:port/database` |
//! | `LISTEN_DATABASE_URL` | `DATABASE_URL` | a direct way to the same database, if `DATABASE_URL` leads through a pooler |
//! | `GENERATOR_URL` | none | `http://host:port` of the metric generator; without it the feed `servers` is empty |
//! | `ALLOWED_ORIGINS` | none | pages of other sites that may connect: `https://a.example,https://b.example`, or `*` |
//! | `HANDSHAKE_RATE` | 2000 | handshakes a second that this replica takes in the long run; what is more is told when to come again |
//! | `HANDSHAKE_BURST` | 5000 | handshakes at once, after a rest; half of them are for clients that resume |
//! | `MAX_CONNECTIONS` | 20000 | connections that this replica serves |
//! | `UNSENT_BYTES` | 16384 | how many bytes may wait in the kernel for a client that is slow; 0: what its send buffer holds |
//! | `SEND_BUFFER_BYTES` | 0 | the kernel's send buffer for each client; 0: it grows as the way to the client allows |
//! | `DRAIN_SECONDS` | 10 | over how long clients are moved away when this replica ends |
//! | `DRAIN_MAX_SECONDS` | `DRAIN_SECONDS` | how long that may take if the other replicas could not take all clients in that time; less than what this process is given to end |
//! | `VISIT_RETENTION_DAYS` | 30 | how long visits that are over are remembered; the total does not depend on it |

use std::time::Duration;

use clap::Parser;
use runtime::{Secret, ServiceArgs, invalid};
use store::{DatabaseUrl, ReaderConfig, VisitorsConfig};

use crate::{
    Settings,
    admission::Limits,
    drain::Window,
    origin::AllowedOrigins,
    servers::{GeneratorUrl, ServersConfig},
    sockets::{SocketOptions, UNSENT},
};

/// A client that takes nothing for so long is gone, whatever it says.
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
    /// Handshakes a second that are taken in the long run.
    #[arg(long, env = "HANDSHAKE_RATE", default_value_t = Limits::default().rate, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    handshake_rate: u32,
    /// Handshakes at once, after a rest; half of them are for clients that resume.
    #[arg(long, env = "HANDSHAKE_BURST", default_value_t = Limits::default().burst, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    handshake_burst: u32,
    /// Connections that are served.
    #[arg(long, env = "MAX_CONNECTIONS", default_value_t = Limits::default().connections as u32, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    max_connections: u32,
    /// Bytes that may wait in the kernel for a slow client; 0: what its send buffer holds.
    #[arg(long, env = "UNSENT_BYTES", default_value_t = UNSENT)]
    unsent_bytes: u32,
    /// The kernel's send buffer for each client, bytes; 0: it grows as the way to the client allows.
    #[arg(long, env = "SEND_BUFFER_BYTES", default_value_t = 0)]
    send_buffer_bytes: u32,
    /// Over how long clients are moved away at the end.
    #[arg(long, env = "DRAIN_SECONDS", default_value_t = 10)]
    drain_seconds: u16,
    /// How long that may take if the other replicas could not take all clients in that time (default: DRAIN_SECONDS).
    #[arg(long, env = "DRAIN_MAX_SECONDS")]
    drain_max_seconds: Option<u16>,
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
        let drain_max_seconds = self.drain_max_seconds.unwrap_or(self.drain_seconds);
        if drain_max_seconds < self.drain_seconds {
            invalid("DRAIN_MAX_SECONDS", "it must not be less than DRAIN_SECONDS");
        }
        Settings {
            replica: self.service.replica_name.clone(),
            origins: self.allowed_origins,
            limits: Limits {
                rate: self.handshake_rate,
                burst: self.handshake_burst,
                connections: self.max_connections as usize,
            },
            sockets: SocketOptions {
                send_buffer: (self.send_buffer_bytes > 0).then_some(self.send_buffer_bytes as usize),
                unsent: (self.unsent_bytes > 0).then_some(self.unsent_bytes),
                ..SocketOptions::default()
            },
            drain: Window {
                least: Duration::from_secs(self.drain_seconds.into()),
                most: Duration::from_secs(drain_max_seconds.into()),
            },
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
