//! Ports for programs that are about to start.

use std::{io, net::SocketAddr};

use tokio::net::TcpSocket;

/// A free loopback port, reserved for one program.
///
/// A port that is only looked up may be assigned to another program before ours listens on it:
/// `initdb` alone takes seconds, and tests start many programs at the same time. So this keeps the
/// port bound. On Linux the kernel assigns the port of a bound socket to nobody else, neither at
/// `bind` nor at `connect`, while a program that sets `SO_REUSEADDR`, as the services and Postgres
/// do, can listen on it as long as this socket does not listen. Elsewhere the second `bind` fails,
/// so [`Self::hand_over`] releases the port.
#[derive(Debug)]
pub struct ReservedPort {
    number: u16,
    socket: Option<TcpSocket>,
}

impl ReservedPort {
    /// Takes one.
    ///
    /// # Errors
    /// When the system has none.
    pub fn take() -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        Ok(Self { number: socket.local_addr()?.port(), socket: Some(socket) })
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Call this right before the program starts.
    pub fn hand_over(&mut self) {
        if cfg!(not(target_os = "linux")) {
            self.socket = None;
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{
        io::ErrorKind,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn only_a_program_that_knows_the_port_can_listen_on_it() {
        let mut port = ReservedPort::take().unwrap();
        port.hand_over();
        let address = SocketAddr::from(([127, 0, 0, 1], port.number()));
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        // Without SO_REUSEADDR, the port is in use.
        let other = TcpSocket::new_v4().unwrap();
        assert_eq!(other.bind(address).unwrap_err().kind(), ErrorKind::AddrInUse);
        // The standard library sets SO_REUSEADDR.
        let listener = TcpListener::bind(address).unwrap();
        assert!(TcpStream::connect(address).is_ok());
        drop(listener);
        assert!(TcpListener::bind(address).is_ok(), "the program may start again");
    }
}
