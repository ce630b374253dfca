//! Listening: bind first, announce readiness later, stop when told.

use std::{io, net::SocketAddr};

use axum::{Router, serve::ListenerExt};
use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{Admin, ServiceArgs, Signals, Tasks};

/// Connections that may wait to be accepted. When a replica dies its clients come to another within 250 ms; the first attempt of who finds no room is
/// lost without a word, and the next one follows after a second. The kernel allows `net.core.somaxconn` at most, which is 4,096 unless set.
const WAITING: u32 = 16_384;

/// A port could not be taken.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({variable}): {source}")]
pub struct BindError {
    address: SocketAddr,
    variable: &'static str,
    source: io::Error,
}

/// The two ports of a service.
#[derive(Debug)]
pub struct Listeners {
    /// For users.
    pub users: TcpListener,
    /// For health and metrics.
    pub admin: TcpListener,
}

impl Listeners {
    /// Takes both ports and says which they are.
    ///
    /// # Errors
    /// [`BindError`] when a port is taken or not allowed.
    pub async fn bind(args: &ServiceArgs) -> Result<Self, BindError> {
        let users = listen(SocketAddr::new(args.host, args.port), "PORT")?;
        let admin = listen(SocketAddr::new(args.host, args.admin_port), "ADMIN_PORT")?;
        if let (Ok(address), Ok(admin)) = (users.local_addr(), admin.local_addr()) {
            tracing::info!(%address, %admin, replica = args.replica_name, "listening");
        }
        Ok(Self { users, admin })
    }

    /// Takes the admin port of a service that has none for users.
    ///
    /// # Errors
    /// [`BindError`] when it is taken or not allowed.
    pub async fn bind_admin(address: SocketAddr) -> Result<TcpListener, BindError> {
        let admin = listen(address, "ADMIN_PORT")?;
        if let Ok(admin) = admin.local_addr() {
            tracing::info!(%admin, "listening");
        }
        Ok(admin)
    }
}

impl Admin {
    /// Serves health and metrics until the tasks are stopped. For a service that has no port for users; [`serve`] does it for the others.
    pub fn serve(self, listener: TcpListener, tasks: &Tasks) -> JoinHandle<io::Result<()>> {
        tasks.tracker.spawn(accept(listener, self.router(), tasks.token.clone()))
    }
}

fn listen(address: SocketAddr, variable: &'static str) -> Result<TcpListener, BindError> {
    let open = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A port whose last connections still linger is free for the next process.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(WAITING)
    };
    open().map_err(|source| BindError { address, variable, source })
}

/// Serves users until the signal to stop: then readiness fails and no connection is accepted any more, while the admin port answers until the
/// tasks are stopped. Gives the task that ends when the requests in flight are answered (the router's timeout bounds them).
///
/// # Errors
/// When a listener breaks.
pub async fn serve(
    listeners: Listeners,
    routes: Router,
    admin: Admin,
    tasks: &Tasks,
    signals: &Signals,
) -> io::Result<JoinHandle<io::Result<()>>> {
    let serving = admin.readiness.condition("serving");
    let accepting = tasks.token.child_token();
    let mut users = tasks.tracker.spawn(accept(listeners.users, routes, accepting.clone()));
    let mut admin = admin.serve(listeners.admin, tasks);
    serving.set(true, "yes");
    tokio::select! {
        () = signals.stop.cancelled() => {}
        ended = &mut users => ended??,
        ended = &mut admin => ended??,
    }
    serving.set(false, "shutting down");
    accepting.cancel();
    Ok(users)
}

async fn accept(listener: TcpListener, routes: Router, token: CancellationToken) -> io::Result<()> {
    // Answers and frames are small, and each is news: waiting to fill a packet would only delay them.
    let listener = listener.tap_io(|socket| drop(socket.set_nodelay(true)));
    axum::serve(listener, routes).with_graceful_shutdown(token.cancelled_owned()).await
}
