//! Lines for people. A terminal that went away is no reason to fail, so that errors are left alone.

use std::{
    error::Error,
    fmt::Display,
    io::{Write, stderr, stdout},
};

/// A line on standard output.
pub fn line(text: impl Display) {
    let _ = writeln!(stdout().lock(), "{text}");
}

/// A line on standard error.
pub fn note(text: impl Display) {
    let _ = writeln!(stderr().lock(), "{text}");
}

/// What went wrong, with its causes, on standard error.
pub fn error(error: &dyn Error) {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    note(format_args!("error: {text}"));
}
