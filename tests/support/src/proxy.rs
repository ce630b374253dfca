//! A TCP proxy with faults.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, tcp},
    sync::watch,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What the proxy does with connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Existing connections are reset, new ones refused.
    Cut,
    /// Connections are accepted and stay open, but no byte goes through: a half-open connection.
    Frozen,
}

/// Forwards TCP connections to a target until told otherwise. Ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    target: Arc<watch::Sender<SocketAddr>>,
    fault: Arc<watch::Sender<Fault>>,
    accepted: Arc<AtomicUsize>,
    token: CancellationToken,
}

impl Proxy {
    /// Listens on a free loopback port.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let addr = listener.local_addr()?;
        let target = Arc::new(watch::channel(target).0);
        let fault = Arc::new(watch::channel(Fault::None).0);
        let (accepted, token) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let accepting = accept(listener, addr, target.clone(), fault.clone(), accepted.clone(), token.clone());
        tokio::spawn(token.clone().run_until_cancelled_owned(accepting));
        Ok(Self { addr, target, fault, accepted, token })
    }

    /// Where the proxy listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many connections were accepted so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Resets all connections; new ones lead to this target, as after a failover.
    pub fn lead_to(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }

    /// Resets all connections and refuses new ones.
    pub fn cut(&self) {
        self.fault.send_replace(Fault::Cut);
    }

    /// Lets new connections through again after [`Self::cut`].
    pub fn restore(&self) {
        self.fault.send_replace(Fault::None);
    }

    /// Stops forwarding, but keeps and accepts connections.
    pub fn freeze(&self) {
        self.fault.send_replace(Fault::Frozen);
    }

    /// Forwards again after [`Self::freeze`], what was held back first.
    pub fn thaw(&self) {
        self.fault.send_replace(Fault::None);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

async fn accept(
    listener: TcpListener,
    addr: SocketAddr,
    target: Arc<watch::Sender<SocketAddr>>,
    fault: Arc<watch::Sender<Fault>>,
    accepted: Arc<AtomicUsize>,
    token: CancellationToken,
) {
    let (mut faults, connections) = (fault.subscribe(), TaskTracker::new());
    let mut listener = Some(listener);
    loop {
        let now = *faults.borrow_and_update();
        if now == Fault::Cut {
            // Without a listening socket the kernel refuses.
            listener = None;
        } else if listener.is_none() {
            listener = listen_again(addr).ok();
        }
        let Some(open) = &listener else {
            if faults.changed().await.is_err() {
                return;
            }
            continue;
        };
        tokio::select! {
            changed = faults.changed() => if changed.is_err() { return },
            incoming = open.accept() => if let Ok((client, _)) = incoming {
                accepted.fetch_add(1, Ordering::Relaxed);
                let forwarding = forward(client, target.subscribe(), fault.subscribe());
                connections.spawn(token.clone().run_until_cancelled_owned(forwarding));
            },
        }
    }
}

/// The port was ours a moment ago, and connections of that time may linger on it.
fn listen_again(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(1024)
}

async fn forward(mut client: TcpStream, mut target: watch::Receiver<SocketAddr>, mut faults: watch::Receiver<Fault>) {
    if faults.wait_for(|fault| *fault != Fault::Frozen).await.is_err() {
        return;
    }
    let addr = *target.borrow_and_update();
    let Ok(mut server) = TcpStream::connect(addr).await else { return };
    // Latency is measured through this proxy.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
    let cut = tokio::select! {
        () = copy(from_client, to_server, faults.clone()) => false,
        () = copy(from_server, to_client, faults.clone()) => false,
        cut = faults.wait_for(|fault| *fault == Fault::Cut) => cut.is_ok(),
        led_elsewhere = target.changed() => led_elsewhere.is_ok(),
    };
    if cut {
        // Closing with a linger of zero sends a reset instead of a polite end.
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

async fn copy(mut from: tcp::ReadHalf<'_>, mut to: tcp::WriteHalf<'_>, mut faults: watch::Receiver<Fault>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        if faults.wait_for(|fault| *fault != Fault::Frozen).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
