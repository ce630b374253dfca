//! Logs and traces of the process. Logs: one line per event on standard error, as text or JSON. Traces: to a collector, if there is one.
//!
//! Events become log lines, spans with the target [`TRACE`](crate::TRACE) become traces, and neither becomes the other.

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, filter_fn},
    fmt::{self, format::JsonFields},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::{
    TRACE, collector, invalid,
    log_errors::{JsonErrors, TextErrors},
    traces,
};

/// What has to be brought out before the process ends.
#[derive(Debug)]
#[must_use = "flush it at the end, or the last spans are lost"]
pub struct Telemetry(Option<SdkTracerProvider>);

/// Starts logs and traces for the process. `RUST_LOG` filters logs (default `info`), `LOG_FORMAT=json` writes one JSON object per line;
/// `OTEL_EXPORTER_OTLP_ENDPOINT` turns traces on, in which the process is called `service` unless `OTEL_SERVICE_NAME` says otherwise.
///
/// Ends the process with code 2 if one of them cannot be understood. Needs a Tokio runtime.
pub fn init(service: &'static str) -> Telemetry {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(text).unwrap_or_else(|error| invalid("RUST_LOG", error)),
        _ => EnvFilter::new("info"),
    };
    let Some(endpoint) = collector::endpoint() else {
        tracing_subscriber::registry().with(log(filter)).init();
        return Telemetry(None);
    };
    let provider = collector::provider(service, &endpoint).unwrap_or_else(|error| invalid(collector::ENDPOINT, error));
    let tracer = provider.tracer("tidemark");
    let spans = tracing_opentelemetry::layer()
        .with_tracer(tracer.clone())
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(filter_fn(|metadata| metadata.is_span() && metadata.target() == TRACE));
    tracing_subscriber::registry().with(log(filter)).with(spans).init();
    traces::turn_on(tracer);
    tracing::info!(endpoint, "sending traces to a collector");
    Telemetry(Some(provider))
}

/// Log lines. Spans are left out, so that without a collector nobody wants them and they are never made.
fn log<S>(filter: EnvFilter) -> impl Layer<S>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match std::env::var("LOG_FORMAT").as_deref() {
        Err(_) | Ok("text" | "") => lines.with_ansi(false).fmt_fields(TextErrors).boxed(),
        Ok("json") => lines.event_format(JsonErrors::default()).fmt_fields(JsonFields::new()).boxed(),
        Ok(other) => invalid("LOG_FORMAT", format!("{other:?} is neither text nor json")),
    };
    lines.with_filter(filter.and(filter_fn(|metadata| metadata.target() != TRACE)))
}

impl Telemetry {
    /// Sends what is still here to the collector, for at most half a second.
    pub async fn flush(self) {
        let Some(provider) = self.0 else { return };
        let flushing = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(collector::FLUSH));
        if !matches!(flushing.await, Ok(Ok(()))) {
            tracing::warn!("the last spans could not be delivered");
        }
    }
}
