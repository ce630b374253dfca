//! Traces: where a request spent its time, across services. The only place that knows OpenTelemetry.
//!
//! Everybody else makes `tracing` spans with the target [`TRACE`], and hands a place in a trace on as a plain string, the W3C `traceparent`. Without
//! a collector such spans are never made: they cost a comparison.

use std::{ops::Range, sync::OnceLock, time::SystemTime};

use opentelemetry::{
    Context, KeyValue, Value,
    propagation::{Extractor, TextMapPropagator},
    trace::{Span as _, SpanBuilder, SpanKind, TraceContextExt},
};
use opentelemetry_sdk::{propagation::TraceContextPropagator, trace::SdkTracer};
use tracing::{Span, field::Empty, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The target of spans that are parts of a trace. Log lines never carry them.
pub const TRACE: &str = "tidemark::trace";

/// The header's name, and the key of the same thing wherever it is kept.
const TRACEPARENT: &str = "traceparent";

/// For spans that begin and end at given times. Set once, when a collector is configured.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// From now on spans are recorded.
pub(crate) fn turn_on(tracer: SdkTracer) {
    // A process starts its telemetry once; were it twice, the first collector would stay.
    let _ = TRACER.set(tracer);
}

/// Whether there is a collector for spans.
#[must_use]
pub fn traces_are_on() -> bool {
    TRACER.get().is_some()
}

/// The span of a request that is being answered; `route` is the pattern, never the path. It continues the trace of the caller's `traceparent`, if
/// there is one.
#[must_use]
pub fn request_span(method: &str, route: &str, traceparent: Option<&str>) -> Span {
    let span = info_span!(
        target: TRACE,
        "request",
        "otel.name" = %format_args!("{method} {route}"),
        "otel.kind" = "server",
        "http.request.method" = method,
        "http.route" = route,
        "http.response.status_code" = Empty,
        "otel.status_code" = Empty,
    );
    if let Some(parent) = traceparent.filter(|_| !span.is_disabled()).and_then(remote) {
        // It has just been made here and the layer is there, so it can be neither started nor unknown.
        let _ = span.set_parent(parent);
    }
    span
}

/// Says how a request was answered.
pub fn answered(span: &Span, status: u16) {
    // Signed: unsigned numbers become words on the way to a collector.
    span.record("http.response.status_code", i64::from(status));
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
}

/// The place of a span in its trace, for whoever continues it elsewhere. None if the span is not part of a trace.
#[must_use]
pub fn traceparent(span: &Span) -> Option<String> {
    if span.is_disabled() || !traces_are_on() {
        return None;
    }
    let context = span.context();
    let context = context.span().span_context().clone();
    let flags = context.trace_flags().to_u8();
    context.is_valid().then(|| format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id()))
}

/// What is said about a span.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    /// A word.
    Text(String),
    /// A count or a version.
    Number(i64),
    /// A measured quantity.
    Quantity(f64),
}

impl From<Attribute> for Value {
    fn from(attribute: Attribute) -> Self {
        match attribute {
            Attribute::Text(text) => text.into(),
            Attribute::Number(number) => number.into(),
            Attribute::Quantity(quantity) => quantity.into(),
        }
    }
}

/// Records a span of work that is done: it took up, at `times.start`, what the span at `traceparent` had left for it.
pub fn record_span<A>(name: &'static str, traceparent: &str, times: Range<SystemTime>, attributes: A)
where
    A: IntoIterator<Item = (&'static str, Attribute)>,
{
    let (Some(tracer), Some(parent)) = (TRACER.get(), remote(traceparent)) else { return };
    let attributes = attributes.into_iter().map(|(key, value)| KeyValue::new(key, value));
    let builder = SpanBuilder::from_name(name)
        .with_kind(SpanKind::Consumer)
        .with_start_time(times.start)
        .with_attributes(attributes);
    builder.start_with_context(tracer, &parent).end_with_timestamp(times.end);
}

/// A place in a trace of somebody else. None if the text is not a W3C `traceparent`.
fn remote(traceparent: &str) -> Option<Context> {
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &Header(traceparent));
    context.has_active_span().then_some(context)
}

/// A request's headers, of which only one matters.
struct Header<'a>(&'a str);

impl Extractor for Header<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        key.eq_ignore_ascii_case(TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_taken_only_if_it_is_one() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = remote(good).unwrap();
        assert_eq!(context.span().span_context().trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        for wrong in ["", "00", "00-0-0-01", "00-00000000000000000000000000000000-b7ad6b7169203331-01", &good[3..]] {
            assert!(remote(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn without_a_collector_no_span_is_made() {
        let span = request_span("POST", "/save", Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        assert!(span.is_disabled() && traceparent(&span).is_none() && !traces_are_on());
    }
}
