//! The HTTP/3 client against a small server of this process.
#![expect(clippy::unwrap_used, reason = "a test that panics has said what it found")]

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use e2e::http3::Http3;
use http::{Response, Uri};
use quinn::{Endpoint, ServerConfig, crypto::rustls::QuicServerConfig};
use rustls::pki_types::PrivateKeyDer;
use tokio::sync::mpsc;

/// Long against anything that a healthy machine does.
const LONG: Duration = Duration::from_secs(20);

/// A server on `https://localhost:PORT`; its certificate's file; and what it says to whoever asks for `/events`, until the sender goes.
struct Server {
    base: Uri,
    authority: PathBuf,
    says: mpsc::UnboundedSender<&'static str>,
}

impl Server {
    async fn start(name: &str) -> Self {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let authority = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.pem"));
        std::fs::write(&authority, certified.cert.pem()).unwrap();
        let key = PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls =
            rustls::ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
        let mut tls =
            tls.unwrap().with_no_client_auth().with_single_cert(vec![certified.cert.der().clone()], key).unwrap();
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        let endpoint = Endpoint::server(config, SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let base = format!("https://localhost:{}", endpoint.local_addr().unwrap().port()).parse().unwrap();
        let (says, said) = mpsc::unbounded_channel();
        tokio::spawn(serve(endpoint, said));
        Self { base, authority, says }
    }
}

/// Serves one connection.
async fn serve(endpoint: Endpoint, mut said: mpsc::UnboundedReceiver<&'static str>) {
    let connection = endpoint.accept().await.unwrap().await.unwrap();
    let mut connection = h3::server::Connection::<_, Bytes>::new(h3_quinn::Connection::new(connection)).await.unwrap();
    while let Ok(Some(resolver)) = connection.accept().await {
        let (request, mut stream) = resolver.resolve_request().await.unwrap();
        let media = if request.uri().path() == "/events" { "text/event-stream" } else { "text/html" };
        stream.send_response(Response::builder().header("content-type", media).body(()).unwrap()).await.unwrap();
        while let Some(text) = said.recv().await {
            stream.send_data(Bytes::from_static(text.as_bytes())).await.unwrap();
        }
        stream.finish().await.unwrap();
    }
}

#[tokio::test]
async fn events_are_given_as_they_come_and_the_end_is_told() {
    let server = Server::start("events").await;
    let http3 = Http3::trusting(&server.authority).unwrap();
    server.says.send("event: hello\ndata: {}\n\nevent: set\nid: c1\nda").unwrap();
    let mut events = http3.follow(&server.base, "/events?feeds=texts").await.unwrap();
    assert_eq!(events.next(LONG).await.unwrap().kind, "hello", "while the answer goes on");
    server.says.send("ta: {\"a\":1}\n\n").unwrap();
    let set = events.next(LONG).await.unwrap();
    assert_eq!((set.kind.as_str(), set.id.as_str(), set.data.as_str()), ("set", "c1", r#"{"a":1}"#));
    let silence = events.next(Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(silence.to_string(), "nothing in time");
    drop(server.says);
    assert_eq!(events.next(LONG).await.unwrap_err().to_string(), "the stream has ended");
}

#[tokio::test]
async fn an_answer_is_read_to_its_end_and_a_page_is_no_stream() {
    let server = Server::start("page").await;
    let http3 = Http3::trusting(&server.authority).unwrap();
    server.says.send("<title>").unwrap();
    server.says.send("a page</title>").unwrap();
    drop(server.says);
    let answer = http3.get(&server.base, "/").await.unwrap();
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, b"<title>a page</title>".as_slice()));

    let server = Server::start("no-stream").await;
    let http3 = Http3::trusting(&server.authority).unwrap();
    let refused = http3.follow(&server.base, "/").await.err().unwrap();
    assert_eq!(refused.to_string(), r#""text/html""#);
}
