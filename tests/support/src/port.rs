//! Ports that nobody else gets.

use std::{io, net::SocketAddr};

use tokio::net::TcpSocket;

/// A loopback port that refuses connections, and that the kernel assigns to nobody else while this
/// exists: its socket is bound, but does not listen. On Linux a program that sets `SO_REUSEADDR` can
/// listen on it.
#[derive(Debug)]
pub struct ReservedPort {
    addr: SocketAddr,
    socket: Option<TcpSocket>,
}

impl ReservedPort {
    /// Takes a free port.
    ///
    /// # Errors
    /// If there is none.
    pub fn take() -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        Ok(Self { addr: socket.local_addr()?, socket: Some(socket) })
    }

    /// The address.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Call this right before something listens on the port: elsewhere than on Linux it has to be
    /// free for that.
    pub fn hand_over(&mut self) {
        if cfg!(not(target_os = "linux")) {
            self.socket = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::ErrorKind,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn it_refuses_connections_until_somebody_listens() {
        let mut port = ReservedPort::take().unwrap();
        assert_eq!(TcpStream::connect(port.addr()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        port.hand_over();
        let _listener = TcpListener::bind(port.addr()).unwrap();
        assert!(TcpStream::connect(port.addr()).is_ok());
    }
}
