//! A collector of traces as OpenTelemetry describes it: takes spans over OTLP/HTTP and keeps them.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use prost::Message;
use test_support::wait_for;
use tokio::net::TcpListener;

use super::LONG;

/// A span, and the service that it came from.
#[derive(Debug, Clone)]
pub struct Received {
    pub service: String,
    pub span: Span,
}

#[derive(Default, Clone)]
struct Kept(Arc<Mutex<Vec<Received>>>);

pub struct Collector {
    pub addr: SocketAddr,
    kept: Kept,
}

impl Collector {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, kept) = (listener.local_addr().unwrap(), Kept::default());
        let routes = Router::new().route("/v1/traces", post(take)).with_state(kept.clone());
        tokio::spawn(axum::serve(listener, routes).into_future());
        Self { addr, kept }
    }

    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` has to say.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub fn spans(&self) -> Vec<Received> {
        self.kept.0.lock().unwrap().clone()
    }

    /// The first span that fulfils the condition, as soon as it is here.
    pub async fn span(&self, what: &str, condition: impl Fn(&Received) -> bool) -> Received {
        wait_for(LONG, what, async || self.spans().into_iter().find(&condition)).await.0
    }
}

async fn take(State(kept): State<Kept>, body: Bytes) -> StatusCode {
    let Ok(request) = ExportTraceServiceRequest::decode(body) else { return StatusCode::BAD_REQUEST };
    for resource_spans in request.resource_spans {
        let attributes = resource_spans.resource.map(|resource| resource.attributes).unwrap_or_default();
        let service = text(&attributes, "service.name").unwrap_or_default();
        let spans = resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
        kept.0.lock().unwrap().extend(spans.map(|span| Received { service: service.clone(), span }));
    }
    StatusCode::OK
}

fn value<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?.value.as_ref()
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    match value(attributes, key)? {
        Value::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}

impl Received {
    /// `(trace id, parent's span id)`, as a `traceparent` writes them.
    pub fn place(&self) -> (String, String) {
        (hex(&self.span.trace_id), hex(&self.span.parent_span_id))
    }

    pub fn id(&self) -> String {
        hex(&self.span.span_id)
    }

    pub fn text(&self, key: &str) -> Option<String> {
        text(&self.span.attributes, key)
    }

    pub fn number(&self, key: &str) -> Option<f64> {
        match value(&self.span.attributes, key)? {
            Value::IntValue(number) => Some(*number as f64),
            Value::DoubleValue(number) => Some(*number),
            _ => None,
        }
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
