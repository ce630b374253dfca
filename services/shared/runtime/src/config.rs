//! Configuration comes from the environment (or the same names as flags): one clap struct per service, which flattens [`ServiceArgs`].
//!
//! | variable | default | meaning |
//! |---|---|---|
//! | `HOST` | `0.0.0.0` | address that the service listens on |
//! | `PORT` | 8080 | port for users |
//! | `ADMIN_PORT` | 9090 | port for `/healthz`, `/readyz` and `/metrics`; never put it behind the ingress |
//! | `REPLICA_NAME` | host name | what this replica calls itself |
//! | `RUST_LOG` | `info` | log filter |
//! | `LOG_FORMAT` | `text` | `text` or `json` |
//! | `OTEL_EXPORTER_OTLP_ENDPOINT` | none | base URL of a collector of traces, as `http://collector:4318`; unset: no traces |
//! | `OTEL_SERVICE_NAME` | the service's name | what traces call this service |

use std::{convert::Infallible, fmt, net::IpAddr, str::FromStr};

/// What every service is told.
#[derive(Debug, Clone, clap::Args)]
pub struct ServiceArgs {
    /// Address to listen on.
    #[arg(long, env = "HOST", default_value = "0.0.0.0")]
    pub host: IpAddr,
    /// Port for users; 0 takes a free one.
    #[arg(long, env = "PORT", default_value_t = 8080)]
    pub port: u16,
    /// Port for health and metrics; 0 takes a free one.
    #[arg(long, env = "ADMIN_PORT", default_value_t = 9090)]
    pub admin_port: u16,
    /// What this replica calls itself (default: the host name, which is the pod's name in Kubernetes).
    #[arg(long, env = "REPLICA_NAME", default_value_t = host_name())]
    pub replica_name: String,
}

/// The machine's name as the kernel knows it, or `replica` where it cannot be read.
#[must_use]
pub fn host_name() -> String {
    ["/proc/sys/kernel/hostname", "/etc/hostname"]
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or_else(|| "replica".to_owned())
}

/// A value that is never printed: it takes any string, and is checked after parsing, so that no parser can quote it in an error.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The value itself; do not log it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = Infallible;
    fn from_str(value: &str) -> Result<Self, Infallible> {
        Ok(Self(value.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Ends the process with code 2, as clap does for its own errors, and names the variable that is wrong.
pub fn invalid(variable: &str, error: impl fmt::Display) -> ! {
    eprintln!("error: invalid value for the environment variable {variable}: {error}");
    std::process::exit(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let secret: Secret = "hunter2".parse().unwrap();
        assert_eq!(format!("{secret:?}"), "[redacted]");
        assert_eq!(secret.expose(), "hunter2");
    }
}
