//! Where a client connects, and what it asks for.

use std::{fmt::Write, net::IpAddr};

use hyper::Uri;
use protocol::{Feeds, FeedsError, Transport};
use rustls::pki_types::ServerName;

use super::trust::Trust;

/// Why an address cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Not an address.
    #[error("{0:?} is not an address like http://localhost:3000")]
    Address(String),
    /// Not a list of feeds.
    #[error(transparent)]
    Feeds(#[from] FeedsError),
}

/// A base address and the feeds.
#[derive(Debug, Clone)]
pub struct Target {
    base: Address,
    feeds: String,
}

/// All that one connection needs to know.
#[derive(Debug, Clone)]
pub struct Address {
    /// Name or address of the host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The value of the `Host` header.
    pub authority: String,
    /// Path and query.
    pub path: String,
    /// For `https` and `wss`.
    pub tls: Option<Tls>,
}

/// What an encrypted connection needs besides.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Who may say that the certificate is good.
    pub trust: Trust,
    /// Whom the certificate must name.
    pub name: ServerName<'static>,
}

impl Address {
    /// Reads the address of one WebSocket, path and query as they are. Encrypted connections trust whom the system trusts.
    ///
    /// # Errors
    /// [`TargetError::Address`].
    pub fn parse(url: &str) -> Result<Self, TargetError> {
        let wrong = || TargetError::Address(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let encrypted = match uri.scheme_str() {
            Some("http" | "ws") => false,
            Some("https" | "wss") => true,
            _ => return Err(wrong()),
        };
        let named = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        // An IPv6 address has brackets in an address, and none where it is resolved or stands in a certificate.
        let host = named.trim_matches(['[', ']']).to_owned();
        let tls = if encrypted {
            let name = ServerName::try_from(host.clone()).map_err(|_| wrong())?;
            Some(Tls { trust: Trust::system(), name })
        } else {
            None
        };
        let usual = if encrypted { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(usual);
        let authority = if port == usual { named.to_owned() } else { format!("{named}:{port}") };
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { host, port, authority, path, tls })
    }

    /// The same, with this trust. It makes no difference to an unencrypted address.
    #[must_use]
    pub fn with_trust(mut self, trust: Trust) -> Self {
        self.tls = self.tls.map(|tls| Tls { trust, ..tls });
        self
    }

    /// The same, reached at this address of a machine. What the certificate must name, and whom the server takes itself for, stays.
    #[must_use]
    pub fn at(mut self, machine: Option<IpAddr>) -> Self {
        if let Some(machine) = machine {
            self.host = machine.to_string();
        }
        self
    }
}

impl Target {
    /// Reads an address like `https://board.example`, with a path in front of `/ws` and `/events` if it has one, and a list of feeds like `texts,servers:server-1`.
    /// Encrypted connections trust whom the system trusts.
    ///
    /// # Errors
    /// [`TargetError`], fit to be shown to the user.
    pub fn parse(url: &str, feeds: &str) -> Result<Self, TargetError> {
        Feeds::parse(feeds)?;
        let address = Address::parse(url)?;
        let path = address.path.split('?').next().unwrap_or_default().trim_end_matches('/').to_owned();
        Ok(Self { base: Address { path, ..address }, feeds: feeds.to_owned() })
    }

    /// The same, with this trust. It makes no difference to an `http` address.
    #[must_use]
    pub fn with_trust(mut self, trust: Trust) -> Self {
        self.base = self.base.with_trust(trust);
        self
    }

    /// The same, reached at this address of a machine.
    #[must_use]
    pub fn at(mut self, machine: Option<IpAddr>) -> Self {
        self.base = self.base.at(machine);
        self
    }

    /// The address of a connection with this cursor.
    pub(super) fn address(&self, transport: Transport, since: Option<&str>) -> Address {
        let name = match transport {
            Transport::WebSocket => "ws",
            Transport::Sse => "events",
        };
        let mut path = format!("{}/{name}?feeds={}", self.base.path, encoded(&self.feeds));
        if let Some(since) = since {
            path += "&since=";
            path += &encoded(since);
        }
        Address { path, ..self.base.clone() }
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

    const WS: Transport = Transport::WebSocket;

    #[test]
    fn an_address_becomes_a_connection_with_feeds_and_cursor() {
        let target = Target::parse("http://localhost:3000", "texts,servers:a").unwrap();
        let address = target.address(WS, None);
        assert_eq!(
            (address.host.as_str(), address.port, address.authority.as_str()),
            ("localhost", 3000, "localhost:3000")
        );
        assert_eq!(address.path, "/ws?feeds=texts,servers:a");
        assert_eq!(target.address(WS, Some("a+/=ü")).path, "/ws?feeds=texts,servers:a&since=a%2B%2F%3D%C3%BC");
        assert_eq!(target.address(Transport::Sse, Some("c")).path, "/events?feeds=texts,servers:a&since=c");
        let behind_a_path = Target::parse("ws://[::1]/board/", "texts").unwrap().address(WS, None);
        assert_eq!((behind_a_path.host.as_str(), behind_a_path.port), ("::1", 80));
        assert_eq!((behind_a_path.authority.as_str(), behind_a_path.path.as_str()), ("[::1]", "/board/ws?feeds=texts"));
    }

    #[test]
    fn an_encrypted_address_names_whom_the_certificate_must_name() {
        for (url, name, port, authority) in [
            ("https://board.example/", "board.example", 443, "board.example"),
            ("wss://localhost:8443", "localhost", 8443, "localhost:8443"),
            ("https://[::1]:80", "::1", 80, "[::1]:80"),
        ] {
            let address = Target::parse(url, "texts").unwrap().address(WS, None);
            assert_eq!((address.port, address.authority.as_str()), (port, authority));
            assert_eq!((address.host.as_str(), &*address.tls.unwrap().name.to_str()), (name, name));
        }
        assert!(Target::parse("http://board.example", "texts").unwrap().address(WS, None).tls.is_none());
    }

    #[test]
    fn what_is_no_address_is_refused_with_words() {
        for url in ["localhost:3000", "", "http://", "ftp://x", "http://exa mple", "https://a..example"] {
            assert!(matches!(Target::parse(url, "texts"), Err(TargetError::Address(_))), "{url}");
        }
        assert!(matches!(Target::parse("http://a.example", "Texts"), Err(TargetError::Feeds(_))));
    }

    #[test]
    fn the_address_of_any_websocket_is_taken_as_it_is() {
        let address = Address::parse("ws://localhost:8080/chat?room=1&x=%20").unwrap();
        assert_eq!((address.port, address.path.as_str()), (8080, "/chat?room=1&x=%20"));
        assert_eq!(Address::parse("wss://chat.example").unwrap().path, "/");
    }

    #[test]
    fn another_way_to_the_same_server_leaves_its_name() {
        let address = Address::parse("wss://chat.example:8443").unwrap().at("::1".parse().ok());
        assert_eq!((address.host.as_str(), address.authority.as_str()), ("::1", "chat.example:8443"));
        assert_eq!(&*address.tls.unwrap().name.to_str(), "chat.example");
    }
}
