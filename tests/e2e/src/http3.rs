//! A request over HTTP/3, from the UDP socket up: what the ingress answers when nobody can fall back to anything else.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode, Uri};
use quinn::{ClientConfig, Endpoint, crypto::rustls::QuicClientConfig};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::{net::lookup_host, time::timeout};

/// Longest time for connecting and for an answer each.
const ANSWER: Duration = Duration::from_secs(5);

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its head.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// A client that speaks HTTP/3 only, and trusts one authority.
#[derive(Debug)]
pub struct Http3 {
    endpoint: Endpoint,
}

impl Http3 {
    /// Trusts the authorities of this PEM file.
    ///
    /// # Errors
    /// When the file cannot be read, or no socket opened.
    pub fn trusting(authority: &Path) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in
            CertificateDer::pem_file_iter(authority).with_context(|| format!("{}", authority.display()))?
        {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let mut endpoint = Endpoint::client(SocketAddr::from(([0, 0, 0, 0], 0)))?;
        endpoint.set_default_client_config(ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?)));
        Ok(Self { endpoint })
    }

    /// Connects, asks for one path of `https://host[:port]`, and reads the answer to its end.
    ///
    /// # Errors
    /// When there is no HTTP/3 at that address, or it breaks.
    pub async fn get(&self, base: &Uri, path: &str) -> Result<Answer> {
        let host = base.host().context("the address has no host")?;
        let port = base.port_u16().unwrap_or(443);
        let mut addresses = lookup_host((host, port)).await?;
        let address = addresses.find(SocketAddr::is_ipv4).context("the host has no IPv4 address")?;
        let connecting = self.endpoint.connect(address, host)?;
        let connection = timeout(ANSWER, connecting).await.context("no QUIC handshake in time")??;
        let (mut driver, mut requests) = h3::client::new(h3_quinn::Connection::new(connection)).await?;

        let authority = base.authority().context("the address has no authority")?;
        let request = Request::get(format!("https://{authority}{path}")).body(())?;
        let exchange = async {
            let mut stream = requests.send_request(request).await?;
            stream.finish().await?;
            let (head, ()) = stream.recv_response().await?.into_parts();
            let mut body = BytesMut::new();
            while let Some(mut part) = stream.recv_data().await? {
                body.extend_from_slice(&part.copy_to_bytes(part.remaining()));
            }
            Ok(Answer { status: head.status, headers: head.headers, body: body.freeze() })
        };
        tokio::select! {
            answer = timeout(ANSWER, exchange) => answer.context("no answer in time")?,
            // The connection has to be driven; it ends before the answer only if it breaks.
            broken = std::future::poll_fn(|cx| driver.poll_close(cx)) => bail!("the connection ended: {broken}"),
        }
    }
}
