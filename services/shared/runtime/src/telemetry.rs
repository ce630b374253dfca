//! Logs: one line per event on standard error, as text or JSON.

use tracing_subscriber::EnvFilter;

/// Starts logging for the process. `RUST_LOG` filters (default `info`), `LOG_FORMAT=json` writes one JSON object per line.
///
/// Ends the process with code 2 if one of the two cannot be understood.
pub fn init() {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => {
            EnvFilter::try_new(text).unwrap_or_else(|error| crate::invalid("RUST_LOG", error))
        }
        _ => EnvFilter::new("info"),
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match std::env::var("LOG_FORMAT").as_deref() {
        Err(_) | Ok("text" | "") => log.with_ansi(false).init(),
        Ok("json") => log.json().flatten_event(true).init(),
        Ok(other) => crate::invalid("LOG_FORMAT", format!("{other:?} is neither text nor json")),
    }
}
