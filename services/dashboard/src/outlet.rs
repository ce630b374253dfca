//! The way out of a session: what the kernel takes, when it takes it. Nothing is queued here.

use std::{io, time::Duration};

use socket2::SockRef;
use tokio::{
    net::tcp::OwnedWriteHalf,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

/// How often a kernel that takes nothing is asked again. By itself it speaks up when a third of its buffer is free, or half of what may wait unsent:
/// for a client that reads little that is minutes, in which it would look as if it had stopped, and would miss the newest value for as long.
const ASK: Duration = Duration::from_millis(500);

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
}

impl<'a> Outlet<'a> {
    /// Gives up a client that takes nothing for `stall`, and any wait when the token is cancelled.
    pub fn new(socket: &'a OwnedWriteHalf, token: &'a CancellationToken, stall: Duration) -> Self {
        Self { socket, token, stall, blocked: None }
    }

    /// Gives these bytes to the kernel, as many as it takes, and returns the rest; `None` if it takes nothing now.
    ///
    /// # Errors
    /// [`Cut`].
    pub fn offer<'b>(&mut self, bytes: &'b [u8]) -> Result<Option<&'b [u8]>, Cut> {
        let waits =
            |taken: &io::Result<usize>| taken.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        let mut taken = self.socket.try_write(bytes);
        if waits(&taken) && self.blocked.is_some() {
            // Tokio asks the kernel again only after it has spoken up.
            taken = SockRef::from(self.socket.as_ref()).send(bytes);
        }
        if waits(&taken) {
            self.blocked.get_or_insert_with(Instant::now);
            return Ok(None);
        }
        match taken {
            Ok(count @ 1..) => {
                self.blocked = None;
                Ok(Some(&bytes[count..]))
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(Cut::Stalled),
            Ok(0) | Err(_) => Err(Cut::Lost),
        }
    }

    /// Waits until there may be room.
    ///
    /// # Errors
    /// [`Cut`].
    pub async fn room(&self) -> Result<(), Cut> {
        let waited = self.blocked.map_or(Duration::ZERO, |since| since.elapsed());
        let patience = self.stall.saturating_sub(waited);
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

    /// Writes all of it.
    ///
    /// # Errors
    /// [`Cut`].
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), Cut> {
        while !bytes.is_empty() {
            match self.offer(bytes)? {
                Some(rest) => bytes = rest,
                None => self.room().await?,
            }
        }
        Ok(())
    }
}
