//! One session per socket: it waits for news, writes the newest, and never queues. State per client: a position and a few times.

use std::{
    io,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use protocol::{Cursor, Feeds, Frame, Move, close};
use store::Reader;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    drain::{self, Drain},
    hub::{Hub, Position, Update},
    inbound::{self, Ended},
    metrics::{Kind, Metrics},
    outlet::{Cut, Outlet},
    push::Pushes,
    stream_processor, wire,
};

/// Shortest time between two sets: 20 frames a second are more than an eye can follow.
const SET_INTERVAL: Duration = Duration::from_millis(50);
/// How long a client that is ahead of this replica waits for a fresh reading. The client gives up after 1,000 ms without `hello`.
const REREAD: Duration = Duration::from_millis(700);
/// How long a closing handshake may take.
pub(crate) const CLOSING: Duration = Duration::from_secs(1);
/// What is still read from a client that was closed, bytes.
const CLOSING_BYTES: usize = 1 << 20;

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

/// A socket after its upgrade: the stream, and what had been read ahead.
pub struct Socket {
    /// The connection itself; the HTTP server's buffers are gone.
    pub stream: TcpStream,
    /// Bytes that came with the handshake.
    pub ahead: Bytes,
}

/// Serves one client until either side ends.
pub async fn run(context: &Context, socket: Socket, feeds: Arc<Feeds>, cursor: Option<Cursor>) {
    let (mut read, mut write) = socket.stream.into_split();
    let (pongs, mut pongs_to_send) = mpsc::channel(1);
    let end = {
        let inbound = pin!(inbound(&mut read, socket.ahead, pongs));
        let outlet = Outlet::new(&write, &context.token, context.stall);
        let mut session = Session { context, outlet, feeds };
        session.serve(cursor, inbound, &mut pongs_to_send).await.unwrap_or_else(|end| end)
    };
    let code = match end {
        End::Gone => finish(&mut read, &mut write, close::DONE, "").await,
        End::Close(code, reason) => finish(&mut read, &mut write, code, reason).await,
        End::Cut(cut) => {
            if cut == Cut::Stalled {
                context.metrics.stalled();
            }
            close::ABNORMAL
        }
    };
    context.metrics.closed(code);
}

/// Closes a client that is not served, with the reason.
pub async fn refuse(context: &Context, socket: Socket, code: u16, reason: &str) {
    let (mut read, mut write) = socket.stream.into_split();
    context.metrics.closed(finish(&mut read, &mut write, code, reason).await);
}

/// Says why, ends our half, and waits shortly for the other half: unread bytes would turn the end into a reset that swallows the reason.
async fn finish(read: &mut OwnedReadHalf, write: &mut OwnedWriteHalf, code: u16, reason: &str) -> u16 {
    let closing = async {
        write.write_all(&wire::close(code, reason)).await?;
        write.shutdown().await?;
        inbound::drain(read, CLOSING_BYTES).await;
        io::Result::Ok(())
    };
    match timeout(CLOSING, closing).await {
        Ok(Ok(())) | Err(_) => code,
        Ok(Err(_)) => close::ABNORMAL,
    }
}

/// Waits for the first byte before it makes a reader: most clients never send one, and a reader's buffer is 8 KiB.
async fn inbound(read: &mut OwnedReadHalf, ahead: Bytes, pongs: mpsc::Sender<Bytes>) -> Ended {
    if ahead.is_empty() && read.readable().await.is_err() {
        return Ended::Gone;
    }
    let stream: Pin<&mut (dyn AsyncRead + Send)> = pin!(ahead.as_ref().chain(read));
    inbound::read(stream, pongs).await
}

struct Session<'a> {
    context: &'a Context,
    outlet: Outlet<'a>,
    feeds: Arc<Feeds>,
}

impl Session<'_> {
    async fn serve(
        &mut self,
        cursor: Option<Cursor>,
        mut inbound: Pin<&mut impl Future<Output = Ended>>,
        pongs: &mut mpsc::Receiver<Bytes>,
    ) -> Result<End, End> {
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
                ended = &mut inbound => return Ok(match ended {
                    Ended::Gone => End::Gone,
                    Ended::Silent => End::Cut(Cut::Stalled),
                    Ended::Broken(code, reason) => End::Close(code, reason),
                }),
                Some(pong) = pongs.recv() => self.send(&pong, Kind::Pong).await?,
                grace_ms = &mut turn => {
                    self.send(&wire::text(&Frame::Move(Move { grace_ms })), Kind::Move).await?;
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

    /// Sends `hello` and the first values. A client that knows more than this replica makes it read the database first.
    async fn greet(&mut self, cursor: Option<Cursor>) -> Result<Position, End> {
        let Context { hub, reader, .. } = self.context;
        let mut verified = false;
        if cursor.as_ref().is_some_and(|cursor| hub.is_behind(cursor))
            && let Ok(Ok(reading)) = timeout(REREAD, reader.reread()).await
        {
            hub.update(|items| items.apply(stream_processor::snapshot(&reading)));
            verified = true;
        }
        let greeting = hub.greet(&self.feeds, cursor.as_ref(), verified);
        self.send(&greeting.hello, Kind::Hello).await?;
        self.send(&greeting.first, Kind::First).await?;
        Ok(greeting.position)
    }

    /// Tells what is new, if anything is.
    async fn tell(&mut self, position: &mut Position) -> Result<Option<Update>, End> {
        let Context { hub, metrics, .. } = self.context;
        loop {
            let mut newest = *position;
            let Some(update) = hub.news(&self.feeds, &mut newest) else {
                *position = newest;
                return Ok(None);
            };
            // A frame that has to wait for its first byte to leave is made anew: its ages are true, and its values the newest.
            if let Some(rest) = self.outlet.offer(&update.frame)? {
                metrics.sent(Kind::Set, update.frame.len());
                self.outlet.write(rest).await?;
                *position = newest;
                return Ok(Some(update));
            }
            self.outlet.room().await?;
        }
    }

    async fn beat(&mut self) -> Result<Instant, End> {
        let frame = self.context.hub.beat(&self.feeds);
        self.send(&frame, Kind::Beat).await?;
        Ok(Instant::now())
    }

    async fn send(&mut self, frame: &[u8], kind: Kind) -> Result<(), End> {
        self.context.metrics.sent(kind, frame.len());
        Ok(self.outlet.write(frame).await?)
    }
}
