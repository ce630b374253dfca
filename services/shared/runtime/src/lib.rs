//! What every service needs to run: telemetry, admin server (health, Prometheus), shutdown.
