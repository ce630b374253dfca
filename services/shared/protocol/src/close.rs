//! WebSocket close codes as `tidemark.v1` uses them (RFC 6455 section 7.4 and its registry).

/// The client is done.
pub const DONE: u16 = 1000;
/// The client broke RFC 6455.
pub const PROTOCOL_ERROR: u16 = 1002;
/// What a browser reports when no close frame came.
pub const ABNORMAL: u16 = 1006;
/// Against the rules: origin, query, frames of a client that may send none. Final: the client does not try again.
pub const POLICY: u16 = 1008;
/// This replica restarts: connect elsewhere.
pub const RESTART: u16 = 1012;
/// Not now: wait as the reason says.
pub const TRY_LATER: u16 = 1013;

/// Longest wait that a client accepts, ms: a wrong number in a reason must not silence a page for ever.
const MAX_RETRY_MS: u64 = 60_000;

/// The reason of a [`TRY_LATER`]: `retry=250`.
pub fn retry_reason(ms: u64) -> String {
    format!("retry={ms}")
}

/// The wait in a reason, ms, if there is one.
pub fn parse_retry(reason: &str) -> Option<u64> {
    let ms: u64 = reason.strip_prefix("retry=")?.parse().ok()?;
    Some(ms.min(MAX_RETRY_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_read_back_and_bounded() {
        assert_eq!(parse_retry(&retry_reason(250)), Some(250));
        assert_eq!(parse_retry("retry=999999999"), Some(60_000));
        assert_eq!(parse_retry("retry=-1"), None);
        assert_eq!(parse_retry("later"), None);
    }
}
