//! Which pages may connect: those of the same host and port, and those that `ALLOWED_ORIGINS` names.

use std::{collections::HashSet, str::FromStr};

use axum::http::Uri;

/// The value of `ALLOWED_ORIGINS`: origins separated by commas, or `*` for every page of the world.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedOrigins {
    any: bool,
    origins: HashSet<String>,
}

/// An entry that is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no origin; write them as https://example.org or http://localhost:3000, separated by commas")]
pub struct OriginError(String);

impl FromStr for AllowedOrigins {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let mut allowed = Self::default();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            if entry == "*" {
                allowed.any = true;
            } else {
                let (scheme, authority) = parts(entry).ok_or_else(|| OriginError(entry.to_owned()))?;
                allowed.origins.insert(format!("{scheme}://{authority}"));
            }
        }
        Ok(allowed)
    }
}

impl AllowedOrigins {
    /// Whether a page of this origin may connect to this host. Programs that are no browsers send no origin; they may.
    pub fn allow(&self, origin: Option<&str>, host: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        if self.any {
            return true;
        }
        let Some((scheme, authority)) = parts(origin) else { return false };
        // Behind an ingress that ends TLS this service cannot know the scheme, so the origin's default port stands for a missing one.
        let same =
            host.is_some_and(|host| with_port(&scheme, &host.to_ascii_lowercase()) == with_port(&scheme, &authority));
        same || self.origins.contains(&format!("{scheme}://{authority}"))
    }
}

/// Scheme and authority of an origin, in lower case.
fn parts(origin: &str) -> Option<(String, String)> {
    let uri: Uri = origin.parse().ok()?;
    let is_origin = uri.path() == "/" && uri.query().is_none() && !origin.ends_with('/');
    let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https") && is_origin)?;
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
    Some((scheme.to_owned(), authority.as_str().to_ascii_lowercase()))
}

fn with_port(scheme: &str, authority: &str) -> String {
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()) && !port.is_empty());
    if has_port { authority.to_owned() } else { format!("{authority}:{}", if scheme == "https" { 443 } else { 80 }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_host_and_port_may_connect() {
        let none = AllowedOrigins::default();
        for (origin, host) in [
            ("http://localhost:3000", "localhost:3000"),
            ("https://Board.example", "board.example"),
            ("https://board.example", "board.example:443"),
            ("http://[::1]:3000", "[::1]:3000"),
            ("http://[::1]", "[::1]"),
        ] {
            assert!(none.allow(Some(origin), Some(host)), "{origin} {host}");
        }
        assert!(none.allow(None, Some("localhost:3000")), "programs that are no browsers");
    }

    #[test]
    fn every_other_page_may_not() {
        let none = AllowedOrigins::default();
        for (origin, host) in [
            ("http://localhost:3001", "localhost:3000"),
            ("http://evil.example", "board.example"),
            ("https://board.example:8443", "board.example"),
            ("http://board.example.evil.example", "board.example"),
            ("null", "board.example"),
            ("file://", "board.example"),
            ("http://user@board.example", "board.example"),
            ("", "board.example"),
        ] {
            assert!(!none.allow(Some(origin), Some(host)), "{origin} {host}");
        }
        assert!(!none.allow(Some("http://board.example"), None));
    }

    #[test]
    fn allowed_origins_are_a_list_or_everybody() {
        let list: AllowedOrigins = "https://a.example, http://b.example:81".parse().unwrap();
        assert!(list.allow(Some("https://a.example"), Some("x")) && list.allow(Some("http://b.example:81"), Some("x")));
        assert!(!list.allow(Some("http://a.example"), Some("x")));
        assert!("*".parse::<AllowedOrigins>().unwrap().allow(Some("https://a.example"), Some("x")));
        for wrong in ["a.example", "https://a.example/path", "https://a.example/", "ws://a.example"] {
            assert!(wrong.parse::<AllowedOrigins>().is_err(), "{wrong}");
        }
    }
}
