//! The way of spans to a collector: OTLP over HTTP, batched by a thread of its own, and never in anybody's way.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use axum::http::Uri;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response, hyper::HyperClient};
use opentelemetry_otlp::{ExporterBuildError, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tokio::runtime::Handle;

/// The variable that turns traces on.
pub(crate) const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// One batch. A collector answers within milliseconds; meanwhile at most 2,048 spans wait (`OTEL_BSP_MAX_QUEUE_SIZE`), and more are dropped.
const EXPORT: Duration = Duration::from_secs(2);

/// For the last batch, when the process ends. The services count it into the time that their end may take.
pub(crate) const FLUSH: Duration = Duration::from_millis(500);

/// Why spans cannot be sent to where the variable says.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EndpointError {
    #[error("it must be a base URL like http://collector:4318; https is not built in")]
    NotHttp,
    #[error("failed to set up the exporter")]
    Exporter(#[source] ExporterBuildError),
}

/// Where spans go: the collector's base URL, if the variable is there and not empty.
pub(crate) fn endpoint() -> Option<String> {
    std::env::var(ENDPOINT).ok().filter(|url| !url.is_empty())
}

/// Builds the pipeline. Everything else that the standard names (`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`, `OTEL_BSP_*`,
/// `OTEL_EXPORTER_OTLP_HEADERS`) the library reads by itself. Needs a Tokio runtime.
pub(crate) fn provider(service: &'static str, endpoint: &str) -> Result<SdkTracerProvider, EndpointError> {
    let base: Uri = endpoint.parse().map_err(|_| EndpointError::NotHttp)?;
    if base.scheme_str() != Some("http") || base.host().is_none() {
        return Err(EndpointError::NotHttp);
    }
    let delivery = Delivery {
        runtime: Handle::current(),
        client: Arc::new(HyperClient::with_default_connector(EXPORT, None)),
        lost: AtomicBool::new(false),
    };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(delivery)
        .with_timeout(EXPORT)
        // A retry would keep newer spans waiting in a queue that is soon full.
        .with_retry_policy(RetryPolicy::disabled())
        .build()
        .map_err(EndpointError::Exporter)?;
    let named = std::env::var("OTEL_SERVICE_NAME").is_ok_and(|name| !name.is_empty());
    let resource = Resource::builder();
    let resource = if named { resource } else { resource.with_service_name(service) };
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build())
}

/// The exporter has a thread of its own, but sockets and timers belong to the runtime: this carries requests over. It also tells, once, that the
/// collector is away.
struct Delivery {
    runtime: Handle,
    client: Arc<HyperClient>,
    lost: AtomicBool,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Delivery")
    }
}

#[async_trait]
impl HttpClient for Delivery {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = Arc::clone(&self.client);
        // The client bounds it by EXPORT; at the end of the process it goes with the runtime.
        let sending = self.runtime.spawn(async move { client.send_bytes(request).await });
        let result = sending.await.unwrap_or_else(|ended| Err(ended.into()));
        let trouble = match &result {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("it answered {}", response.status())),
            Err(error) => Some(error.to_string()),
        };
        let was_lost = self.lost.swap(trouble.is_some(), Ordering::Relaxed);
        match trouble {
            Some(reason) if !was_lost => {
                tracing::warn!(reason, "the collector of traces is away; spans are dropped until it is back");
            }
            None if was_lost => tracing::info!("the collector of traces is back"),
            _ => {}
        }
        result
    }
}
