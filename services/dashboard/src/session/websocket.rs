//! Frames over a WebSocket: written to the bare socket, as the hub has encoded them.

use std::{
    io,
    pin::{Pin, pin},
    sync::Arc,
};

use bytes::{Buf as _, Bytes};
use protocol::{Cursor, Feeds, Transport, close};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    time::timeout,
};

use super::{CLOSING, Context, Delivery, End, Heard, Session};
use crate::{
    inbound::{self, Ended},
    outlet::{Cut, Outlet},
    wire,
};

/// What is still read from a client that was closed, bytes.
const CLOSING_BYTES: usize = 1 << 20;

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
    let (answers, pongs) = mpsc::channel(1);
    let end = {
        let inbound = pin!(inbound(&mut read, socket.ahead, answers));
        let outlet = Outlet::new(&write, &context.token, context.stall);
        let mut delivery = WebSocket { outlet, inbound, pongs };
        let mut session = Session { context, delivery: &mut delivery, feeds };
        session.serve(cursor).await.unwrap_or_else(|end| end)
    };
    let code = match end {
        End::Gone => finish(&mut read, &mut write, close::DONE, "").await,
        End::Close(code, reason) => finish(&mut read, &mut write, code, reason).await,
        End::Cut(cut) => {
            context.count(cut);
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
    let stream: Pin<&mut (dyn AsyncRead + Send)> = pin!(AsyncReadExt::chain(ahead.as_ref(), read));
    inbound::read(stream, pongs).await
}

struct WebSocket<'a, I> {
    outlet: Outlet<'a>,
    /// Reads what the client sends, until its end.
    inbound: Pin<&'a mut I>,
    /// The answers that `inbound` asks for.
    pongs: mpsc::Receiver<Bytes>,
}

impl<I: Future<Output = Ended> + Send> Delivery for WebSocket<'_, I> {
    const TRANSPORT: Transport = Transport::WebSocket;

    fn offer(&mut self, frame: &mut Bytes) -> Result<bool, Cut> {
        let Some(rest) = self.outlet.offer(frame)?.map(<[u8]>::len) else { return Ok(false) };
        frame.advance(frame.len() - rest);
        Ok(true)
    }

    async fn room(&mut self) -> Result<(), Cut> {
        self.outlet.room().await
    }

    async fn heard(&mut self) -> Heard {
        tokio::select! {
            biased;
            ended = &mut self.inbound => Heard::End(match ended {
                Ended::Gone => End::Gone,
                Ended::Silent => End::Cut(Cut::Stalled),
                Ended::Broken(code, reason) => End::Close(code, reason),
            }),
            Some(pong) = self.pongs.recv() => Heard::Ping(pong),
        }
    }
}
