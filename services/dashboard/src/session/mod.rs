//! One session per client: it waits for news, sends the newest, and never queues. State per client: a position and a few times.
//!
//! What to send, and when, is decided here for both transports; [`websocket`] and [`sse`] bring it to the client.

pub mod sse;
pub mod websocket;

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use protocol::{Cursor, Feeds, Frame, Move, Transport, close};
use store::Reader;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    drain::{self, Drain},
    hub::{Hub, Position, Update},
    metrics::{Kind, Metrics},
    outlet::Cut,
    push::Pushes,
    stream_processor, wire,
};

/// Shortest time between two sets: 20 frames a second are more than an eye can follow.
const SET_INTERVAL: Duration = Duration::from_millis(50);
/// How long a client that is ahead of this replica waits for a fresh reading. The client gives up after 1,000 ms without `hello`.
const REREAD: Duration = Duration::from_millis(700);
/// How long a farewell may take.
pub(crate) const CLOSING: Duration = Duration::from_secs(1);

/// What all sessions share.
pub struct Context {
    /// Where the values are.
    pub hub: Arc<Hub>,
    /// Asked when a client knows more than the hub.
    pub reader: Reader,
    /// Counts.
    pub metrics: Metrics,
    /// Changes that are being traced.
    pub pushes: Arc<Pushes>,
    /// Ends every session.
    pub token: CancellationToken,
    /// Says when clients have to move.
    pub drain: watch::Receiver<Option<Drain>>,
    /// How long a write may make no progress.
    pub stall: Duration,
}

impl Context {
    /// Counts a connection that was cut because its client took nothing.
    fn count(&self, cut: Cut) {
        if cut == Cut::Stalled {
            self.metrics.stalled();
        }
    }
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    /// The client closed or went away.
    Gone,
    /// Close with this code and reason.
    Close(u16, &'static str),
    /// Nothing can be said any more.
    Cut(Cut),
}

impl From<Cut> for End {
    fn from(cut: Cut) -> Self {
        Self::Cut(cut)
    }
}

/// What a client says.
#[derive(Debug)]
enum Heard {
    /// Its half of the connection ended, or has to.
    End(End),
    /// A ping, with what has to be answered.
    Ping(Bytes),
}

/// The way to one client. It queues nothing: what it has not taken is still the session's.
trait Delivery {
    /// What it is.
    const TRANSPORT: Transport;

    /// Takes as much off the front of the frame as there is room for; false if there is none now.
    fn offer(&mut self, frame: &mut Bytes) -> Result<bool, Cut>;

    /// Waits until there may be room. It is bounded, so a slow client lives and a stuck one does not. Cancel-safe.
    fn room(&mut self) -> impl Future<Output = Result<(), Cut>> + Send;

    /// Waits for a word of the client. Cancel-safe.
    fn heard(&mut self) -> impl Future<Output = Heard> + Send;
}

struct Session<'a, D> {
    context: &'a Context,
    delivery: &'a mut D,
    feeds: Arc<Feeds>,
}

impl<D: Delivery> Session<'_, D> {
    async fn serve(&mut self, cursor: Option<Cursor>) -> Result<End, End> {
        let Context { hub, token, drain, .. } = self.context;
        let mut pulse = hub.subscribe();
        // Before the greeting: a change that comes during it is then told once more, not missed.
        let mut told = pulse.borrow().database;
        let mut position = self.greet(cursor).await?;
        let (mut last_sent, mut next_set) = (Instant::now(), Instant::now());
        // These wait in lists that all sessions share, so they are made once and not with every frame.
        let mut ended = pin!(token.cancelled());
        let mut turn = pin!(drain::turn(drain.clone()).fuse());
        let mut beat = pin!(sleep_until(last_sent + hub.beat_interval()));
        loop {
            let newest = *pulse.borrow_and_update();
            let behind = newest.position != position;
            if behind && Instant::now() >= next_set {
                if let Some(update) = self.tell(&mut position).await? {
                    told = newest.database;
                    last_sent = Instant::now();
                    next_set = last_sent + SET_INTERVAL;
                    self.context.metrics.pushed(update.changed, last_sent);
                    self.context.pushes.written(&self.feeds, &update.ticks, last_sent);
                }
                continue;
            }
            if !behind && newest.database != told {
                told = newest.database;
                last_sent = self.beat().await?;
                continue;
            }
            tokio::select! {
                biased;
                () = &mut ended => return Ok(End::Close(close::RESTART, "the replica restarts")),
                heard = self.delivery.heard() => match heard {
                    Heard::End(end) => return Ok(end),
                    Heard::Ping(pong) => self.send(pong, Kind::Pong).await?,
                },
                grace_ms = &mut turn => {
                    self.send(wire::frame(&Frame::Move(Move { grace_ms }), D::TRANSPORT), Kind::Move).await?;
                    self.context.metrics.moved();
                }
                // While behind, only the time of the next frame matters, not how many more changes come.
                _ = pulse.changed(), if !behind => {}
                () = sleep_until(next_set), if behind => {}
                () = &mut beat => {
                    // The timer is not moved with every frame: it looks when it fires whether there was silence.
                    if !behind && last_sent.elapsed() >= hub.beat_interval() {
                        last_sent = self.beat().await?;
                    }
                    beat.as_mut().reset(last_sent + hub.beat_interval());
                }
            }
        }
    }

    /// Sends `hello` and the first values.
    async fn greet(&mut self, cursor: Option<Cursor>) -> Result<Position, End> {
        let Context { hub, reader, .. } = self.context;
        let reread = async {
            let reading = timeout(REREAD, reader.reread()).await.ok()?.ok()?;
            Some(stream_processor::snapshot(&reading))
        };
        let greeting = hub.answer(&self.feeds, cursor.as_ref(), reread, D::TRANSPORT).await;
        self.send(greeting.hello, Kind::Hello).await?;
        self.send(greeting.first, Kind::First).await?;
        Ok(greeting.position)
    }

    /// Tells what is new, if anything is.
    async fn tell(&mut self, position: &mut Position) -> Result<Option<Update>, End> {
        let Context { hub, metrics, .. } = self.context;
        loop {
            let mut newest = *position;
            let Some(update) = hub.news(&self.feeds, &mut newest, D::TRANSPORT) else {
                *position = newest;
                return Ok(None);
            };
            // A frame that has to wait for its first byte to leave is made anew: its ages are true, and its values the newest.
            let mut rest = update.frame.clone();
            if self.delivery.offer(&mut rest)? {
                metrics.sent(Kind::Set, update.frame.len());
                self.write(rest).await?;
                *position = newest;
                return Ok(Some(update));
            }
            self.delivery.room().await?;
        }
    }

    async fn beat(&mut self) -> Result<Instant, End> {
        let frame = self.context.hub.beat(&self.feeds, D::TRANSPORT);
        self.send(frame, Kind::Beat).await?;
        Ok(Instant::now())
    }

    async fn send(&mut self, frame: Bytes, kind: Kind) -> Result<(), End> {
        self.context.metrics.sent(kind, frame.len());
        self.write(frame).await
    }

    /// Writes all of it.
    async fn write(&mut self, mut frame: Bytes) -> Result<(), End> {
        while !frame.is_empty() {
            if !self.delivery.offer(&mut frame)? {
                self.delivery.room().await?;
            }
        }
        Ok(())
    }
}
