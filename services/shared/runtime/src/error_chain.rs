//! An error and its sources as one text.

use std::{error::Error, fmt::Write};

/// The error and its sources, separated by colons. A source whose text the error before it has printed already is left out,
/// because many libraries print a cause and return it as the source as well.
#[must_use]
pub fn error_chain(error: &(dyn Error + '_)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !ends_with(&text, &cause) {
            let _ = write!(text, ": {cause}");
        }
        source = error.source();
    }
    text
}

/// Whether `text` is the cause, or ends with it after a colon.
fn ends_with(text: &str, cause: &str) -> bool {
    text.strip_suffix(cause).is_some_and(|before| before.is_empty() || before.ends_with(": "))
}

#[cfg(test)]
mod tests {
    use std::{io, num::ParseIntError};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Wrapper {
        #[error("failed to read")]
        Plain(#[source] io::Error),
        #[error("failed to read: {0}")]
        Repeats(#[source] io::Error),
        #[error("{0}")]
        Same(#[source] ParseIntError),
        #[error("failed to start: {0}")]
        Nested(#[source] Box<Self>),
    }

    #[test]
    fn each_cause_is_printed_once() {
        let gone = || io::Error::other("gone");
        let number = "x".parse::<u8>().unwrap_err();
        for (error, text) in [
            (Wrapper::Plain(gone()), "failed to read: gone"),
            (Wrapper::Plain(io::Error::other("read")), "failed to read: read"),
            (Wrapper::Repeats(gone()), "failed to read: gone"),
            (Wrapper::Same(number.clone()), number.to_string().as_str()),
            (Wrapper::Nested(Wrapper::Plain(gone()).into()), "failed to start: failed to read: gone"),
            (Wrapper::Nested(Wrapper::Repeats(gone()).into()), "failed to start: failed to read: gone"),
        ] {
            assert_eq!(error_chain(&error), text, "{error:?}");
        }
    }
}
