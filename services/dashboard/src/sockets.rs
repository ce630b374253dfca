//! What the kernel is told about users' sockets. It is set on the listening socket: those that it accepts have it from there, whatever is spoken on them.

use socket2::{SockRef, TcpKeepalive};
use std::{io, time::Duration};
use tokio::net::{TcpListener, TcpStream};

/// A connection that nothing was sent on for so long is probed: a peer that vanished before it asked for anything has nothing to acknowledge. Sessions
/// send a beat before.
const IDLE: Duration = Duration::from_secs(15);
/// Between two probes.
const PROBE: Duration = Duration::from_secs(3);

/// For clients that are slow: what waits in the kernel is old by the time it arrives, and cannot be taken back. Two full frames of a board.
pub const UNSENT: u32 = 16 * 1024;
/// A peer that acknowledges nothing is closed within 30 s. What it could acknowledge is sent at the latest one beat (5 s) after it fell silent; 5 s are
/// for the kernel's timers, which may be late by an eighth, and for a busy machine.
const SILENCE: Duration = Duration::from_secs(20);

/// Choices about a user's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketOptions {
    /// The kernel's send buffer (`SO_SNDBUF`), bytes; it takes twice as much, for its own books. `None`: it grows with what the way to the client can
    /// hold, to 4 MiB as a rule.
    pub send_buffer: Option<usize>,
    /// How many bytes may wait in the kernel without having been sent (`TCP_NOTSENT_LOWAT`). `None`: as much as the send buffer holds. Linux only.
    pub unsent: Option<u32>,
    /// How long a peer may acknowledge nothing of what was sent, or take nothing of what waits (`TCP_USER_TIMEOUT`). Linux only.
    pub silence: Duration,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self { send_buffer: None, unsent: Some(UNSENT), silence: SILENCE }
    }
}

impl SocketOptions {
    /// Sets them for all that this socket will accept.
    ///
    /// # Errors
    /// When the kernel does not take one.
    pub fn set(&self, listener: &TcpListener) -> io::Result<()> {
        let socket = SockRef::from(listener);
        if let Some(bytes) = self.send_buffer {
            socket.set_send_buffer_size(bytes)?;
        }
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(IDLE).with_interval(PROBE))?;
        #[cfg(target_os = "linux")]
        {
            socket.set_tcp_user_timeout(Some(self.silence))?;
            if let Some(bytes) = self.unsent {
                socket.set_tcp_notsent_lowat(bytes)?;
            }
        }
        Ok(())
    }
}

/// Takes the limit of silence off a socket, and gives it; `None` if there is none.
pub fn lift_silence(stream: &TcpStream) -> Option<Duration> {
    #[cfg(target_os = "linux")]
    {
        let socket = SockRef::from(stream);
        let silence = socket.tcp_user_timeout().ok().flatten()?;
        socket.set_tcp_user_timeout(None).ok().map(|()| silence)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = stream;
        None
    }
}

/// Sets the limit of silence that was taken off.
///
/// # Errors
/// When the kernel does not take it.
pub fn limit_silence(stream: &TcpStream, silence: Duration) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        SockRef::from(stream).set_tcp_user_timeout(Some(silence))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (stream, silence);
        Ok(())
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn accepted_sockets_have_what_the_listening_one_was_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silence = Duration::from_millis(7_000);
        SocketOptions { send_buffer: Some(12_000), unsent: Some(5_000), silence }.set(&listener).unwrap();
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let socket = SockRef::from(&accepted);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(silence));
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), 5_000);
        assert_eq!(socket.send_buffer_size().unwrap(), 24_000);
        assert_eq!((socket.keepalive().unwrap(), socket.tcp_keepalive_time().unwrap()), (true, IDLE));
    }
}
