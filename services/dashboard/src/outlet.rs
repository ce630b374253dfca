//! The way out of a session: what the kernel takes, when it takes it. Nothing is queued here.

use std::{io, time::Duration};

use socket2::SockRef;
use tokio::{
    io::Interest,
    net::tcp::OwnedWriteHalf,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::sockets::{lift_silence, limit_silence};

/// How often a kernel that takes nothing is asked again. By itself it speaks up when a third of its buffer is free, or half of what may wait unsent:
/// for a client that reads little that is minutes, in which it would look as if it had stopped, and would miss the newest value for as long.
const ASK: Duration = Duration::from_millis(500);

/// A client that is slow, and not stuck, has so many times as long to take something: the kernel tells of a window that has opened a little only in
/// answer to its own probes, which are up to 26 s apart by then.
const SLOW: u32 = 2;
/// A client for which there was room at once for so long is no longer slow: a beat.
const FAST: Duration = Duration::from_millis(protocol::DEFAULT_BEAT_MS);

/// `MSG_EOR`: each frame stays a packet of its own while it waits. A client that reads little opens its window for a few of them at a time, and the kernel
/// (tcp_ack_probe) takes a window for shut, and in the end the client for gone, until there is room for the whole packet that is next.
const FRAME: i32 = if cfg!(target_os = "linux") { 0x80 } else { 0 };

/// Nothing more can be written: the connection is lost, or was too slow, or the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Cut {
    /// The connection is lost.
    #[error("the connection is lost")]
    Lost,
    /// The peer took nothing for too long, or acknowledged nothing.
    #[error("the peer takes nothing")]
    Stalled,
    /// The session ends in the middle of a frame.
    #[error("the process ends")]
    Ended,
}

/// The write half of a client's socket. Every wait in it is bounded, so a slow client lives and a stuck one does not.
pub struct Outlet<'a> {
    socket: &'a OwnedWriteHalf,
    token: &'a CancellationToken,
    stall: Duration,
    /// Since when nothing was taken.
    blocked: Option<Instant>,
    /// The kernel's limit of silence and since when it is lifted, as long as this client is slow. The kernel counts a window that stays shut as silence,
    /// whether or not the client answers its probes, and a client that reads little opens its window every 20 s or so. Once a slow client has taken
    /// something, what counts is that it goes on.
    lifted: Option<(Duration, Instant)>,
}

impl<'a> Outlet<'a> {
    /// Gives up a client that takes nothing for `stall`, and any wait when the token is cancelled.
    pub fn new(socket: &'a OwnedWriteHalf, token: &'a CancellationToken, stall: Duration) -> Self {
        Self { socket, token, stall, blocked: None, lifted: None }
    }

    /// Gives these bytes to the kernel, as many as it takes, and returns the rest; `None` if it takes nothing now.
    ///
    /// # Errors
    /// [`Cut`].
    pub fn offer<'b>(&mut self, bytes: &'b [u8]) -> Result<Option<&'b [u8]>, Cut> {
        let waits =
            |taken: &io::Result<usize>| taken.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        let stream = self.socket.as_ref();
        let send = || SockRef::from(stream).send_with_flags(bytes, FRAME);
        let mut taken = stream.try_io(Interest::WRITABLE, send);
        if waits(&taken) && self.blocked.is_some() {
            // Tokio asks the kernel again only after it has spoken up.
            taken = send();
        }
        if waits(&taken) {
            self.blocked.get_or_insert_with(Instant::now);
            return Ok(None);
        }
        match taken {
            Ok(count @ 1..) => {
                self.taken();
                Ok(Some(&bytes[count..]))
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(Cut::Stalled),
            Ok(0) | Err(_) => Err(Cut::Lost),
        }
    }

    /// Something was taken.
    fn taken(&mut self) {
        let now = Instant::now();
        match (self.blocked.take(), self.lifted) {
            (Some(_), None) => self.lifted = lift_silence(self.socket.as_ref()).map(|silence| (silence, now)),
            (Some(_), Some((silence, _))) => self.lifted = Some((silence, now)),
            (None, Some((silence, since))) if now - since >= FAST => {
                self.lifted = None;
                // A connection that is lost says so with the next frame.
                let _ = limit_silence(self.socket.as_ref(), silence);
            }
            (None, _) => {}
        }
    }

    /// Waits until there may be room.
    ///
    /// # Errors
    /// [`Cut`].
    pub async fn room(&self) -> Result<(), Cut> {
        let waited = self.blocked.map_or(Duration::ZERO, |since| since.elapsed());
        let patience = (if self.lifted.is_some() { self.stall * SLOW } else { self.stall }).saturating_sub(waited);
        if patience.is_zero() {
            return Err(Cut::Stalled);
        }
        tokio::select! {
            biased;
            ready = timeout(ASK.min(patience), self.socket.writable()) => match ready {
                Ok(Err(_)) => Err(Cut::Lost),
                Ok(Ok(())) | Err(_) => Ok(()),
            },
            () = self.token.cancelled() => Err(Cut::Ended),
        }
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use tokio::{
        io::AsyncReadExt,
        net::{TcpListener, TcpSocket, TcpStream},
        time::interval,
    };

    use super::*;
    use crate::sockets::SocketOptions;

    /// Writes all of it.
    async fn write_all(outlet: &mut Outlet<'_>, mut bytes: &[u8]) -> Result<(), Cut> {
        while !bytes.is_empty() {
            match outlet.offer(bytes)? {
                Some(rest) => bytes = rest,
                None => outlet.room().await?,
            }
        }
        Ok(())
    }

    /// Both ends of a connection: ours as sessions have it, and a peer that takes little at a time.
    async fn connection(options: SocketOptions) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        options.set(&listener).unwrap();
        let peer = TcpSocket::new_v4().unwrap();
        peer.set_recv_buffer_size(4_096).unwrap();
        let peer = peer.connect(listener.local_addr().unwrap()).await.unwrap();
        (listener.accept().await.unwrap().0, peer)
    }

    #[tokio::test]
    async fn a_peer_that_reads_little_is_not_taken_for_one_that_has_stopped() {
        let ((ours, mut peer), token) = (connection(SocketOptions::default()).await, CancellationToken::new());
        let (_read, write) = ours.into_split();
        let mut outlet = Outlet::new(&write, &token, Duration::from_secs(4));
        fill(&mut outlet);
        let reading = tokio::spawn(async move {
            let (mut every, mut buffer) = (interval(Duration::from_millis(100)), [0; 100]);
            // 8 KiB, at which the kernel would speak up, take it 8 s.
            loop {
                every.tick().await;
                peer.read_exact(&mut buffer).await.unwrap();
            }
        });
        let (began, mut taken) = (Instant::now(), 0);
        while began.elapsed() < Duration::from_secs(6) {
            match outlet.offer(&[0; 150]).unwrap() {
                Some(_) => taken += 1,
                None => outlet.room().await.expect("it reads"),
            }
        }
        assert!(taken > 0);
        reading.abort();
    }

    /// Offers until the kernel takes nothing more.
    fn fill(outlet: &mut Outlet<'_>) {
        while outlet.offer(&[0; 150]).unwrap().is_some() {}
    }

    #[tokio::test]
    async fn a_peer_that_was_seen_to_read_may_pause_for_longer_than_the_kernel_allows() {
        let silence = Duration::from_millis(1_500);
        let (ours, mut peer) = connection(SocketOptions { silence, ..SocketOptions::default() }).await;
        let (token, (_read, write)) = (CancellationToken::new(), ours.into_split());
        let limit = || SockRef::from(write.as_ref()).tcp_user_timeout().unwrap();
        let mut outlet = Outlet::new(&write, &token, Duration::from_secs(10));
        fill(&mut outlet);
        assert_eq!(limit(), Some(silence), "it might be gone");
        // All that waits here comes in the end, and there is room again.
        let mut buffer = vec![0; 64 * 1024];
        while outlet.offer(&[0; 150]).unwrap().is_none() {
            outlet.room().await.unwrap();
            let _ = peer.try_read(&mut buffer);
        }
        fill(&mut outlet);
        let pause = Instant::now();
        while pause.elapsed() < silence * 3 {
            if outlet.offer(&[0; 150]).expect("it is slow, not gone").is_none() {
                outlet.room().await.expect("it is slow, not gone");
            }
        }
        assert!(outlet.blocked.is_some_and(|since| since.elapsed() > silence), "it did not pause");
        // It reads freely for a while: then it is as any other.
        let reading = tokio::spawn(async move { while peer.read(&mut buffer).await.unwrap() > 0 {} });
        let mut every = interval(Duration::from_millis(100));
        while limit().is_none() {
            every.tick().await;
            write_all(&mut outlet, &[0; 150]).await.unwrap();
        }
        assert!(pause.elapsed() > FAST);
        assert_eq!(limit(), Some(silence));
        reading.abort();
    }

    #[tokio::test]
    async fn a_peer_that_has_stopped_is_given_up_and_one_that_is_gone_at_once() {
        let ((ours, peer), token) = (connection(SocketOptions::default()).await, CancellationToken::new());
        let (_read, write) = ours.into_split();
        let (mut outlet, began) = (Outlet::new(&write, &token, Duration::from_secs(1)), Instant::now());
        assert_eq!(write_all(&mut outlet, &vec![0; 1 << 20]).await, Err(Cut::Stalled));
        assert!(began.elapsed() >= Duration::from_secs(1));
        drop(peer);
        assert_eq!(write_all(&mut outlet, &[0; 150]).await, Err(Cut::Lost));
    }

    #[tokio::test]
    async fn a_wait_ends_with_the_process() {
        let ((ours, _peer), token) = (connection(SocketOptions::default()).await, CancellationToken::new());
        let (_read, write) = ours.into_split();
        let mut outlet = Outlet::new(&write, &token, Duration::from_secs(60));
        fill(&mut outlet);
        token.cancel();
        assert_eq!(outlet.room().await, Err(Cut::Ended));
    }
}
