//! A request over HTTP/3, from the UDP socket up: what the ingress answers when nobody can fall back to anything else.

use std::{collections::VecDeque, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, Bytes, BytesMut};
use h3::client::{Connection, RequestStream, SendRequest};
use h3_quinn::{BidiStream, OpenStreams};
use http::{HeaderMap, Request, StatusCode, Uri, header::CONTENT_TYPE};
use protocol::events::{Decoder, Event, MEDIA_TYPE};
use quinn::{ClientConfig, Endpoint, crypto::rustls::QuicClientConfig};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::{net::lookup_host, time::timeout};

/// Longest time for connecting and for an answer each.
const ANSWER: Duration = Duration::from_secs(5);

/// Longest event, bytes.
const MAX_EVENT: usize = 1 << 20;

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
        let mut exchange = self.ask(base, path).await?;
        let mut body = BytesMut::new();
        while let Some(part) = exchange.part(ANSWER).await? {
            body.extend_from_slice(&part);
        }
        Ok(Answer { status: exchange.status, headers: exchange.headers, body: body.freeze() })
    }

    /// The same for an answer that has no end: its events are read as they come.
    ///
    /// # Errors
    /// When there is no HTTP/3 at that address, it breaks, or the answer is no stream of events.
    pub async fn follow(&self, base: &Uri, path: &str) -> Result<Events> {
        let exchange = self.ask(base, path).await?;
        ensure!(exchange.status == StatusCode::OK, "{}", exchange.status);
        let media = exchange.headers.get(CONTENT_TYPE).context("an answer without a type")?;
        ensure!(media == MEDIA_TYPE, "{media:?}");
        Ok(Events { exchange, decoder: Decoder::new(MAX_EVENT), read: VecDeque::new() })
    }

    /// Connects, and asks for one path.
    async fn ask(&self, base: &Uri, path: &str) -> Result<Exchange> {
        let host = base.host().context("the address has no host")?;
        let port = base.port_u16().unwrap_or(443);
        let mut addresses = lookup_host((host, port)).await?;
        let address = addresses.find(SocketAddr::is_ipv4).context("the host has no IPv4 address")?;
        let connecting = self.endpoint.connect(address, host)?;
        let connection = timeout(ANSWER, connecting).await.context("no QUIC handshake in time")??;
        let (mut driver, mut requests) = h3::client::new(h3_quinn::Connection::new(connection)).await?;

        let authority = base.authority().context("the address has no authority")?;
        let request = Request::get(format!("https://{authority}{path}")).body(())?;
        let asking = async {
            let mut stream = requests.send_request(request).await?;
            stream.finish().await?;
            let (head, ()) = stream.recv_response().await?.into_parts();
            anyhow::Ok((stream, head))
        };
        let (stream, head) = driven(&mut driver, timeout(ANSWER, asking)).await?.context("no answer in time")??;
        Ok(Exchange { stream, driver, status: head.status, headers: head.headers, _requests: requests })
    }
}

/// A request that is being answered.
struct Exchange {
    status: StatusCode,
    headers: HeaderMap,
    stream: RequestStream<BidiStream<Bytes>, Bytes>,
    driver: Connection<h3_quinn::Connection, Bytes>,
    /// The connection ends with it.
    _requests: SendRequest<OpenStreams, Bytes>,
}

impl Exchange {
    /// The next part of the body; `None` at its end.
    async fn part(&mut self, patience: Duration) -> Result<Option<Bytes>> {
        let receiving = timeout(patience, self.stream.recv_data());
        let part = driven(&mut self.driver, receiving).await?.context("nothing in time")??;
        Ok(part.map(|mut part| part.copy_to_bytes(part.remaining())))
    }
}

/// The connection has to be driven meanwhile; it ends before the answer only if it breaks.
async fn driven<T>(driver: &mut Connection<h3_quinn::Connection, Bytes>, doing: impl Future<Output = T>) -> Result<T> {
    tokio::select! {
        done = doing => Ok(done),
        broken = std::future::poll_fn(|cx| driver.poll_close(cx)) => bail!("the connection ended: {broken}"),
    }
}

/// A stream of events over HTTP/3.
pub struct Events {
    exchange: Exchange,
    decoder: Decoder,
    /// Events that came and were not given yet.
    read: VecDeque<Event>,
}

impl Events {
    /// The next event.
    ///
    /// # Errors
    /// When none comes in time, or the stream ends.
    pub async fn next(&mut self, patience: Duration) -> Result<Event> {
        loop {
            if let Some(event) = self.read.pop_front() {
                return Ok(event);
            }
            let part = self.exchange.part(patience).await?.context("the stream has ended")?;
            self.read.extend(self.decoder.push(&part)?);
        }
    }
}
