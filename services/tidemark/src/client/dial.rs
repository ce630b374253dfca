//! The way to a server: TCP, and TLS over it.

use std::io;

use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

use super::{
    target::{Address, Tls},
    trust::distrust,
};

/// Why there is no way.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("failed to connect: {0}")]
    Connect(#[from] io::Error),
    #[error("{0}")]
    Distrust(String),
    #[error("failed to encrypt: {0}")]
    Tls(#[source] io::Error),
}

/// Connects, and encrypts what has to be.
pub(super) async fn dial(address: &Address) -> Result<Either<TcpStream, TlsStream<TcpStream>>, DialError> {
    let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
    stream.set_nodelay(true)?;
    let Some(Tls { trust, name }) = &address.tls else { return Ok(Either::Left(stream)) };
    let stream = TlsConnector::from(trust.config()).connect(name.clone(), stream).await;
    Ok(Either::Right(stream.map_err(|error| distrust(&error).map_or(DialError::Tls(error), DialError::Distrust))?))
}
