//! Lines for people. A terminal that went away is no reason to fail, so that errors are left alone.

use std::{
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
