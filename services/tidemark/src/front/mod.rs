//! One address for all replicas: `/ws` and `/events` go to a ready dashboard, everything else to a ready app. In production the ingress does this.
//! A second address, for the services themselves, leads to a ready metric generator, as an internal Service does on a cluster.

mod forward;
mod pool;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{Router, serve::ListenerExt};
use axum_reverse_proxy::{HostBehaviour, ProxyPolicy};
use runtime::Tasks;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use pool::{Backend, Membership, Pool};

/// Where a dashboard sends events.
const EVENTS: &str = "/events";

/// The port cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else has it.
    #[error("port {port} is in use: stop the program that has it, or choose another with --port (PORT)")]
    Busy {
        /// The port.
        port: u16,
    },
    /// Anything else.
    #[error("failed to listen on {address}")]
    Listen {
        /// Host and port.
        address: SocketAddr,
        /// What went wrong.
        source: io::Error,
    },
}

/// Which address a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// The one that people open.
    Users,
    /// The one that only our services know.
    Services,
}

/// All replicas.
#[derive(Debug)]
pub struct Front {
    /// Replicas of the app.
    pub apps: Pool,
    /// Replicas of the dashboard.
    pub dashboards: Pool,
    /// Replicas of the metric generator.
    pub generators: Pool,
    policy: ProxyPolicy,
    /// Ends the tunnels of upgraded connections, and the streams.
    token: CancellationToken,
}

impl Front {
    /// A front without replicas; everything ends with the token of these tasks.
    pub fn new(tasks: &Tasks) -> Self {
        let [apps, dashboards, generators] = [(); 3].map(|()| Pool::new(tasks.clone()));
        // The dashboard compares the page's origin with the host that the browser asked for.
        let policy = ProxyPolicy::new().with_host_behaviour(HostBehaviour::Preserve);
        Self { apps, dashboards, generators, policy, token: tasks.token.clone() }
    }

    fn pool(&self, door: Door, path: &str) -> &Pool {
        match door {
            Door::Services => &self.generators,
            Door::Users if matches!(path, "/ws" | EVENTS) => &self.dashboards,
            Door::Users => &self.apps,
        }
    }
}

/// Listens.
///
/// # Errors
/// [`Error`], which names the port.
pub async fn bind(host: IpAddr, port: u16) -> Result<TcpListener, Error> {
    let address = SocketAddr::new(host, port);
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => Error::Busy { port },
        _ => Error::Listen { address, source },
    })
}

/// Serves until the front's token is cancelled.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(listener: TcpListener, front: Arc<Front>, door: Door) -> io::Result<()> {
    let token = front.token.clone();
    let routes = Router::new().fallback(forward::forward).with_state((front, door));
    // Frames are small and each is news: waiting to fill a packet would only delay them.
    let listener = listener.tap_io(|socket| drop(socket.set_nodelay(true)));
    axum::serve(listener, routes).with_graceful_shutdown(token.cancelled_owned()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_path_chooses_the_service() {
        let front = Front::new(&Tasks::default());
        for (path, dashboard) in [("/ws", true), ("/events", true), ("/", false), ("/ws/", false), ("/save", false)] {
            assert_eq!(std::ptr::eq(front.pool(Door::Users, path), &raw const front.dashboards), dashboard, "{path}");
        }
        for path in ["/servers", "/metrics"] {
            let users = front.pool(Door::Users, path);
            assert!(std::ptr::eq(users, &raw const front.apps), "{path}: the generator is no business of users");
            assert!(std::ptr::eq(front.pool(Door::Services, path), &raw const front.generators), "{path}");
        }
    }

    #[tokio::test]
    async fn a_busy_port_is_named() {
        let holder = bind([127, 0, 0, 1].into(), 0).await.unwrap();
        let port = holder.local_addr().unwrap().port();
        let error = bind([127, 0, 0, 1].into(), port).await.unwrap_err().to_string();
        assert!(error.contains(&port.to_string()) && error.contains("--port"), "{error}");
    }
}
