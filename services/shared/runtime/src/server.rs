//! Listening: bind first, announce readiness later, stop when told.

use std::net::{IpAddr, SocketAddr};

use axum::{Router, serve::ListenerExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A port could not be taken.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({variable}): {source}")]
pub struct BindError {
    address: SocketAddr,
    variable: &'static str,
    source: std::io::Error,
}

/// Listens on a port; `variable` is the environment variable that chose it, for the error.
///
/// # Errors
/// [`BindError`] when the port is taken or not allowed.
pub async fn bind(host: IpAddr, port: u16, variable: &'static str) -> Result<TcpListener, BindError> {
    let address = SocketAddr::new(host, port);
    TcpListener::bind(address).await.map_err(|source| BindError { address, variable, source })
}

/// Serves until the token is cancelled, then finishes the requests in flight (the router's timeout bounds them).
///
/// # Errors
/// When the listener breaks.
pub async fn serve(listener: TcpListener, router: Router, token: CancellationToken) -> std::io::Result<()> {
    // Answers and frames are small, and each is news: waiting to fill a packet would only delay them.
    let listener = listener.tap_io(|socket| drop(socket.set_nodelay(true)));
    axum::serve(listener, router).with_graceful_shutdown(token.cancelled_owned()).await
}
