//! Lines for people. A terminal that went away is no reason to fail, so that errors are left alone.

use std::{
    error::Error,
    fmt::Display,
    io::{Write, stderr, stdout},
};

use runtime::error_chain;

/// A line on standard output.
pub fn line(text: impl Display) {
    let _ = writeln!(stdout().lock(), "{text}");
}

/// A line on standard error.
pub fn note(text: impl Display) {
    let _ = writeln!(stderr().lock(), "{text}");
}

/// An error with its sources, on standard error.
pub fn error(error: &dyn Error) {
    note(format_args!("error: {}", error_chain(error)));
}
