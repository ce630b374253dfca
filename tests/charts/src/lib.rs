//! Runs Helm for the tests beside this file, and reads what it rendered and what the charts say about their values.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, and these parts run only in tests")]

mod crd;
mod documents;
mod helm;

use std::{fs, path::PathBuf};

use serde_json::Value;

pub use crd::{default_at, spec_schema, violations};
pub use documents::{leaves, undescribed, undocumented};
pub use helm::{Object, Rendered};

/// A chart in the folder `charts`.
#[derive(Debug, Clone, Copy)]
pub struct Chart(pub &'static str);

impl Chart {
    /// The chart's folder.
    pub fn folder(self) -> PathBuf {
        root().join("charts").join(self.0)
    }

    /// A file of the chart as text.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn file(self, path: &str) -> String {
        let path = self.folder().join(path);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// A YAML or JSON file of the chart.
    ///
    /// # Panics
    /// When it cannot be read or parsed.
    pub fn yaml(self, path: &str) -> Value {
        parse(&self.file(path))
    }
}

/// The project's folder. Asked when the test runs: a build folder may be shared by several checkouts.
///
/// # Panics
/// When cargo did not start the test.
pub fn root() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR").expect("the tests are started by cargo");
    PathBuf::from(own).join("../..")
}

/// One YAML document. `1.0` becomes `1`: a schema's bounds are written in either way, and Helm writes the second.
///
/// # Panics
/// When it is none.
pub fn parse(text: &str) -> Value {
    let mut value = serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("no YAML: {error}\n{text}"));
    shorten(&mut value);
    value
}

fn shorten(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(shorten),
        Value::Object(fields) => fields.values_mut().for_each(shorten),
        Value::Number(number) => {
            let whole = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0);
            // No bound in a chart is longer than a float is exact.
            if let Some(whole) = whole.and_then(|float| format!("{float:.0}").parse::<i64>().ok()) {
                *value = whole.into();
            }
        }
        _ => {}
    }
}
