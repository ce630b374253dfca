//! Frames as server-sent events: the body of an HTTP response, pulled by the HTTP server.
//!
//! The session is polled with the body, by the task of its connection, and ends with it. The HTTP server holds one part of a frame at a time; the
//! next one is handed to it when that was given to the kernel. So a frame is made when it can leave, here as on a bare socket.

use std::{
    future::pending,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{self, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::Stream;
use protocol::{Cursor, Feeds, Transport, close, events};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{CLOSING, Context, Delivery, End, Heard, Session};
use crate::{metrics::Metrics, outlet::Cut};

/// Longest part of a frame that is handed over at a time, bytes. The HTTP server stops asking for more while it holds some hundred KiB: with less, it
/// keeps asking, and a client that takes nothing is noticed.
const PART: usize = 64 * 1024;

/// The client took nothing for too long: its connection is cut. The HTTP server does that when a body fails.
#[derive(Debug, thiserror::Error)]
#[error("the client takes nothing")]
pub struct Stuck;

/// A body that consists of what a session hands over. The session ends with the body, which the HTTP server drops when the client has gone.
pub fn body<S>(session: impl FnOnce(Events) -> S) -> Body
where
    S: Future<Output = Result<(), Stuck>> + Send + 'static,
{
    let events = Events::default();
    let handed = Arc::clone(&events.handed);
    Body::from_stream(Pulled { handed, session: Some(Box::pin(session(events))) })
}

/// Serves one client until either side ends.
///
/// # Errors
/// [`Stuck`], which has to be the end of its connection.
pub async fn follow(
    context: &Context,
    mut events: Events,
    feeds: Arc<Feeds>,
    cursor: Option<Cursor>,
) -> Result<(), Stuck> {
    let mut farewell = Farewell { metrics: &context.metrics, code: close::ABNORMAL };
    let mut delivery = Sse { events: &mut events, context };
    let mut session = Session { context, delivery: &mut delivery, feeds };
    match session.serve(cursor).await.unwrap_or_else(|end| end) {
        End::Close(code, reason) => {
            timeout(CLOSING, events.finish(code, reason)).await.map_err(|_| Stuck)?;
            farewell.code = code;
            Ok(())
        }
        End::Cut(cut) => {
            context.count(cut);
            Err(Stuck)
        }
        End::Gone => Err(Stuck),
    }
}

/// Counts how it ended, also when that is the end of the body.
struct Farewell<'a> {
    metrics: &'a Metrics,
    code: u16,
}

impl Drop for Farewell<'_> {
    fn drop(&mut self) {
        self.metrics.closed(self.code);
    }
}

/// What a session hands to the HTTP server.
pub struct Events {
    handed: Arc<Mutex<Option<Bytes>>>,
    /// One permit: the part that the HTTP server holds has it.
    room: Arc<Semaphore>,
}

impl Default for Events {
    fn default() -> Self {
        Self { handed: Arc::default(), room: Arc::new(Semaphore::new(1)) }
    }
}

/// A part of a frame. When the HTTP server has given it to the kernel it is dropped, and there is room again.
struct Part {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Events {
    /// Hands over as much off the front of the frame as may be at a time; false if the HTTP server still holds the part before.
    fn hand(&mut self, frame: &mut Bytes) -> bool {
        let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else { return false };
        let bytes = frame.split_to(frame.len().min(PART));
        *lock(&self.handed) = Some(Bytes::from_owner(Part { bytes, _room: room }));
        true
    }

    /// Waits until the HTTP server holds nothing.
    async fn room(&self) {
        // Nobody closes the semaphore.
        let _ = self.room.acquire().await;
    }

    /// Says why, as a close frame does.
    async fn finish(&mut self, code: u16, reason: &str) {
        let mut event = Bytes::from(events::encode_close(code, reason));
        while !event.is_empty() {
            self.room().await;
            self.hand(&mut event);
        }
    }
}

/// The way out of a session, through the HTTP server.
struct Sse<'a> {
    events: &'a mut Events,
    context: &'a Context,
}

impl Delivery for Sse<'_> {
    const TRANSPORT: Transport = Transport::Sse;

    fn offer(&mut self, frame: &mut Bytes) -> Result<bool, Cut> {
        Ok(self.events.hand(frame))
    }

    async fn room(&mut self) -> Result<(), Cut> {
        let Context { stall, token, .. } = self.context;
        let room = token.run_until_cancelled(timeout(*stall, self.events.room())).await.ok_or(Cut::Ended)?;
        room.map_err(|_| Cut::Stalled)
    }

    async fn heard(&mut self) -> Heard {
        // A request says nothing after its head. Its end is the end of the body.
        pending().await
    }
}

fn lock(handed: &Mutex<Option<Bytes>>) -> std::sync::MutexGuard<'_, Option<Bytes>> {
    // It holds one value that is put in and taken out: it is whole, whoever panicked.
    handed.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Polls the session for the next part.
struct Pulled<S> {
    handed: Arc<Mutex<Option<Bytes>>>,
    /// `None` when it has ended.
    session: Option<Pin<Box<S>>>,
}

impl<S: Future<Output = Result<(), Stuck>>> Stream for Pulled<S> {
    type Item = Result<Bytes, Stuck>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(session) = &mut this.session
            && let Poll::Ready(ended) = session.as_mut().poll(context)
        {
            this.session = None;
            if let Err(stuck) = ended {
                return Poll::Ready(Some(Err(stuck)));
            }
        }
        match lock(&this.handed).take() {
            Some(part) => Poll::Ready(Some(Ok(part))),
            None if this.session.is_none() => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};

    use super::*;

    async fn write(events: &mut Events, mut frame: Bytes) {
        while !frame.is_empty() {
            events.room().await;
            events.hand(&mut frame);
        }
    }

    #[tokio::test]
    async fn a_long_frame_leaves_part_by_part_and_each_when_the_one_before_has_left() {
        let frame: Bytes = (0..=255).cycle().take(2 * PART + 1).collect();
        let sent = frame.clone();
        let session = |mut events: Events| async move {
            write(&mut events, sent).await;
            Ok(())
        };
        let mut parts = body(session).into_data_stream();
        let mut arrived = Vec::new();
        for length in [PART, PART, 1] {
            let part = parts.next().await.unwrap().unwrap();
            assert_eq!(part.len(), length);
            arrived.extend_from_slice(&part);
            if arrived.len() < frame.len() {
                assert!(parts.next().now_or_never().is_none(), "the part is still held");
            }
        }
        assert!(parts.next().await.is_none());
        assert_eq!(arrived, frame);
    }

    #[tokio::test]
    async fn a_client_that_is_stuck_is_an_error_of_the_body() {
        let session = |mut events: Events| async move {
            write(&mut events, Bytes::from_static(b"one")).await;
            // The part is taken by now, and held.
            tokio::task::yield_now().await;
            assert!(!events.hand(&mut Bytes::from_static(b"two")));
            Err(Stuck)
        };
        let mut parts = body(session).into_data_stream();
        let held = parts.next().await.unwrap().unwrap();
        assert_eq!(&held[..], b"one");
        assert_eq!(parts.next().await.unwrap().unwrap_err().to_string(), "the client takes nothing");
        assert!(parts.next().await.is_none());
    }
}
