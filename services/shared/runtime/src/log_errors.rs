//! How a log line shows an error: its [`error_chain`] as the value of one field, in both formats.
//!
//! The formats of `tracing-subscriber` show less: text has the sources in a second field, JSON has none of them.

use std::{error::Error, fmt};

use serde_json::Value;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    field::{MakeVisitor, VisitFmt, VisitOutput},
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{DefaultFields, DefaultVisitor, Format, Json, Writer},
    },
    registry::LookupSpan,
};

use crate::error_chain;

/// Fields of text lines.
#[derive(Debug)]
pub struct TextErrors;

impl<'writer> MakeVisitor<Writer<'writer>> for TextErrors {
    type Visitor = TextVisitor<'writer>;
    fn make_visitor(&self, writer: Writer<'writer>) -> TextVisitor<'writer> {
        TextVisitor(DefaultFields::new().make_visitor(writer))
    }
}

/// Writes an error's chain, and leaves every other field to the default.
#[derive(Debug)]
pub struct TextVisitor<'writer>(DefaultVisitor<'writer>);

impl Visit for TextVisitor<'_> {
    fn record_error(&mut self, field: &Field, error: &(dyn Error + 'static)) {
        // A line break would end the line, and a terminal obeys control characters.
        let text = error_chain(error).chars().fold(String::new(), |mut text, character| {
            if character.is_control() {
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
            text
        });
        self.0.record_debug(field, &format_args!("{text}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.record_str(field, value);
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.record_debug(field, value);
    }
}

impl VisitOutput<fmt::Result> for TextVisitor<'_> {
    fn finish(self) -> fmt::Result {
        self.0.finish()
    }
}

impl VisitFmt for TextVisitor<'_> {
    fn writer(&mut self) -> &mut dyn fmt::Write {
        self.0.writer()
    }
}

/// JSON lines.
#[derive(Debug)]
pub struct JsonErrors(Format<Json>);

impl Default for JsonErrors {
    fn default() -> Self {
        Self(tracing_subscriber::fmt::format().json().flatten_event(true))
    }
}

impl<S, N> FormatEvent<S, N> for JsonErrors
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        event.record(&mut JsonVisitor(&mut line));
        writer.write_str(&line)
    }
}

/// Replaces the text of each error in a finished line by its chain.
struct JsonVisitor<'line>(&'line mut String);

impl Visit for JsonVisitor<'_> {
    fn record_error(&mut self, field: &Field, error: &(dyn Error + 'static)) {
        // Within a string of JSON a quote is escaped, so this can only be the field itself.
        let entry = |text: String| format!("{}:{}", Value::from(field.name()), Value::from(text));
        *self.0 = self.0.replacen(&entry(error.to_string()), &entry(error_chain(error)), 1);
    }
    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    use tracing_subscriber::{Layer, fmt, fmt::format::JsonFields, layer::SubscriberExt};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("failed to read \"it\"")]
    struct ReadError(#[source] io::Error);

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The line of one event with an error, whose message and other field look like the error's.
    fn logged(layer: impl FnOnce(Log) -> Box<dyn Layer<tracing_subscriber::Registry> + Send + Sync>) -> String {
        let log = Log::default();
        let subscriber = tracing_subscriber::registry().with(layer(log.clone()));
        let error = ReadError(io::Error::other("gone\n\u{1b}[31m"));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(
                other = r#""error":"failed to read \"it\"""#,
                error = &error as &dyn Error,
                after = 7,
                r#"text "error":"failed to read \"it\"""#
            );
        });
        let bytes = log.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_text_line_has_an_error_and_its_source_in_one_field() {
        let line = logged(|log| {
            let lines = fmt::layer().with_writer(move || log.clone()).with_ansi(false);
            lines.fmt_fields(TextErrors).boxed()
        });
        assert!(line.ends_with(" error=failed to read \"it\": gone\\n\\u{1b}[31m after=7\n"), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
    }

    #[test]
    fn a_json_line_has_an_error_and_its_source_in_one_field() {
        let line = logged(|log| {
            let lines = fmt::layer().with_writer(move || log.clone()).event_format(JsonErrors::default());
            lines.fmt_fields(JsonFields::new()).boxed()
        });
        let mut line: serde_json::Map<String, Value> = serde_json::from_str(&line).unwrap();
        assert!(line.remove("timestamp").is_some());
        assert_eq!(
            Value::from(line),
            serde_json::json!({
                "level": "WARN",
                "message": r#"text "error":"failed to read \"it\"""#,
                "other": r#""error":"failed to read \"it\"""#,
                "error": "failed to read \"it\": gone\n\u{1b}[31m",
                "after": 7,
                "target": "runtime::log_errors::tests",
            })
        );
    }
}
