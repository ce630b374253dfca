//! Where a client connects, and what it asks for.

use std::fmt::Write;

use hyper::Uri;
use protocol::{Feeds, FeedsError};

/// Why an address cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Not an address.
    #[error("{0:?} is not an address like http://localhost:3000")]
    Address(String),
    /// TLS is not there.
    #[error("https is not supported here; connect to an http address, for example through `kubectl port-forward`")]
    Tls,
    /// Not a list of feeds.
    #[error(transparent)]
    Feeds(#[from] FeedsError),
}

/// A base address and the feeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    host: String,
    port: u16,
    path: String,
    feeds: String,
}

/// All that one connection needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Name or address of the host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The value of the `Host` header.
    pub authority: String,
    /// Path and query.
    pub path: String,
}

impl Target {
    /// Reads an address like `http://localhost:3000`, with a path in front of `/ws` if it has one, and a list of feeds like `texts,servers:server-1`.
    ///
    /// # Errors
    /// [`TargetError`], fit to be shown to the user.
    pub fn parse(url: &str, feeds: &str) -> Result<Self, TargetError> {
        Feeds::parse(feeds)?;
        let wrong = || TargetError::Address(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        match uri.scheme_str() {
            Some("http" | "ws") => {}
            Some("https" | "wss") => return Err(TargetError::Tls),
            _ => return Err(wrong()),
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?.to_owned();
        let path = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { host, port: uri.port_u16().unwrap_or(80), path, feeds: feeds.to_owned() })
    }

    /// The address of a connection with this cursor.
    pub(super) fn address(&self, since: Option<&str>) -> Address {
        let Self { host, port, path, feeds } = self;
        let mut path = format!("{path}/ws?feeds={}", encoded(feeds));
        if let Some(since) = since {
            path += "&since=";
            path += &encoded(since);
        }
        let authority = if *port == 80 { host.clone() } else { format!("{host}:{port}") };
        // An IPv6 address has brackets in an address, and none where it is resolved.
        let host = host.trim_matches(['[', ']']).to_owned();
        Address { host, port: *port, authority, path }
    }
}

/// Percent-encoding for a query's value; commas and colons of a list of feeds stay readable.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b',' | b':' => out.push(byte.into()),
            _ => drop(write!(out, "%{byte:02X}")),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_becomes_a_connection_with_feeds_and_cursor() {
        let target = Target::parse("http://localhost:3000", "texts,servers:a").unwrap();
        let address = target.address(None);
        assert_eq!(
            (address.host.as_str(), address.port, address.authority.as_str()),
            ("localhost", 3000, "localhost:3000")
        );
        assert_eq!(address.path, "/ws?feeds=texts,servers:a");
        assert_eq!(target.address(Some("a+/=ü")).path, "/ws?feeds=texts,servers:a&since=a%2B%2F%3D%C3%BC");
        let behind_a_path = Target::parse("ws://[::1]/board/", "texts").unwrap().address(None);
        assert_eq!((behind_a_path.host.as_str(), behind_a_path.port), ("::1", 80));
        assert_eq!((behind_a_path.authority.as_str(), behind_a_path.path.as_str()), ("[::1]", "/board/ws?feeds=texts"));
    }

    #[test]
    fn what_is_no_address_is_refused_with_words() {
        for url in ["localhost:3000", "", "http://", "ftp://x", "http://exa mple"] {
            assert!(matches!(Target::parse(url, "texts"), Err(TargetError::Address(_))), "{url}");
        }
        assert!(matches!(Target::parse("https://a.example", "texts"), Err(TargetError::Tls)));
        assert!(matches!(Target::parse("http://a.example", "Texts"), Err(TargetError::Feeds(_))));
    }
}
