//! One stream of server-sent events, for a way that lets no WebSocket through.

use std::pin::Pin;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, StatusCode,
    body::Incoming,
    client::conn::http1::handshake,
    header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use protocol::{
    Frame,
    client::{Conn, Event},
    close,
    events::{self, Close, Decoder, MEDIA_TYPE, TooLong},
};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    MAX_FRAME, OPEN,
    dial::{DialError, dial},
    target::Address,
};

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("failed to speak HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("failed to make a request: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("the server answered {0} instead of sending events")]
    Status(StatusCode),
    #[error("the server answered with something else than events")]
    Media,
    #[error(transparent)]
    TooLong(#[from] TooLong),
    #[error("no answer in time")]
    Slow,
}

/// Opens the stream and passes on what arrives, until it ends or `close` is cancelled. Its last event is `Closed`, unless we closed it.
pub(super) async fn run(conn: Conn, address: Address, events: mpsc::Sender<Event>, close: CancellationToken) {
    let following = async {
        let mut stream = timeout(OPEN, Stream::open(&address)).await.unwrap_or(Err(Error::Slow))?;
        stream.read(conn, &events).await
    };
    let followed = tokio::select! {
        followed = following => followed,
        // A server learns that nobody reads from the end of the connection.
        () = close.cancelled() => return,
    };
    let Close { code, reason } = followed.unwrap_or_else(|error| {
        tracing::debug!(conn, "stream broke off: {error}");
        Close { code: close::ABNORMAL, reason: error.to_string() }
    });
    let _ = events.send(Event::Closed { conn, code, reason }).await;
}

type Driver = Pin<Box<dyn Future<Output = Result<(), hyper::Error>> + Send>>;

/// An answer that is being read.
struct Stream {
    body: Incoming,
    /// The connection has to be driven while it is read; `None` when it has ended.
    driver: Option<Driver>,
}

impl Stream {
    async fn open(address: &Address) -> Result<Self, Error> {
        let stream = dial(address).await?;
        let request = Request::get(&address.path)
            .header(HOST, &address.authority)
            .header(ACCEPT, MEDIA_TYPE)
            .header(CACHE_CONTROL, "no-store")
            .body(Empty::<Bytes>::new())?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        let mut driver: Driver = Box::pin(connection);
        let sending = sender.send_request(request);
        tokio::pin!(sending);
        let (response, driver) = tokio::select! {
            response = &mut sending => (response?, Some(driver)),
            driven = &mut driver => {
                driven?;
                (sending.await?, None)
            }
        };
        if response.status() != StatusCode::OK {
            return Err(Error::Status(response.status()));
        }
        let media = response.headers().get(CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
        if media.split(';').next().map(str::trim) != Some(MEDIA_TYPE) {
            return Err(Error::Media);
        }
        Ok(Self { body: response.into_body(), driver })
    }

    /// Reads until the end.
    async fn read(&mut self, conn: Conn, events: &mpsc::Sender<Event>) -> Result<Close, Error> {
        let lost = || Close { code: close::ABNORMAL, reason: String::new() };
        let mut decoder = Decoder::new(MAX_FRAME);
        while let Some(piece) = self.piece().await? {
            for event in decoder.push(&piece)? {
                if event.kind == events::CLOSE {
                    return Ok(serde_json::from_str(&event.data).unwrap_or_else(|_| lost()));
                }
                let event = Event::Frame { conn, frame: Frame::parse(event.data.as_bytes()) };
                if events.send(event).await.is_err() {
                    return Ok(lost());
                }
            }
        }
        Ok(lost())
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let frame = match &mut self.driver {
                None => self.body.frame().await,
                Some(driver) => tokio::select! {
                    frame = self.body.frame() => frame,
                    // What was read before its end is still in the body, and an error too.
                    _ = driver => {
                        self.driver = None;
                        continue;
                    }
                },
            };
            match frame.transpose()?.map(hyper::body::Frame::into_data) {
                None => return Ok(None),
                Some(Ok(piece)) => return Ok(Some(piece)),
                Some(Err(_trailers)) => {}
            }
        }
    }
}
