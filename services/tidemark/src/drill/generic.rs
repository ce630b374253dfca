//! A plain WebSocket client, for any server: it pings, notes whether a pong comes back, and connects again when its connection ends.
//! It does not give up a connection that is silent: a plain client waits until it is told.

use std::{collections::VecDeque, pin::pin, time::Duration};

use fastwebsockets::{Frame, OpCode, Payload, WebSocketError, WebSocketWrite};
use protocol::{
    client::{BACKOFF_BASE_MS, BACKOFF_CAP_MS},
    close,
};
use tokio::{
    io::AsyncWrite,
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    crowd::{Clock, Record, lock},
    record::Seen,
};
use crate::client::{Address, Socket, close_code, open};

/// Between two pings.
const PING: Duration = Duration::from_millis(200);

/// A ping that was not answered for so long is a connection that does not deliver, ms: a ping, and as long as a save may be on its way at once.
const LATE: u64 = 250;

/// How long opening, and closing at the end, may take.
const OPEN: Duration = Duration::from_secs(5);
const CLOSE: Duration = Duration::from_millis(500);

/// The pings of one connection, and what their answers tell. Pure.
#[derive(Debug, Default)]
struct Pulse {
    next: u64,
    /// Until the first answer, if there was a connection before.
    again: bool,
    /// (number, when it was sent) of those without an answer.
    waiting: VecDeque<(u64, u64)>,
}

impl Pulse {
    /// The payload of the next ping.
    fn ping(&mut self, seen: &mut Seen, now: u64) -> [u8; 8] {
        self.judge(seen, now);
        self.waiting.push_back((self.next, now));
        self.next += 1;
        (self.next - 1).to_be_bytes()
    }

    /// An answer. One to a later ping answers for the earlier ones.
    fn pong(&mut self, seen: &mut Seen, payload: &[u8], now: u64) {
        let Ok(number) = payload.try_into().map(u64::from_be_bytes) else { return };
        self.judge(seen, now);
        self.waiting.retain(|(waiting, _)| *waiting > number);
        if std::mem::take(&mut self.again) {
            seen.handovers.push((now, false));
        }
        seen.set_live(now, true);
    }

    /// The connection ended: it has delivered nothing since the oldest ping without an answer.
    fn end(&self, seen: &mut Seen, now: u64) {
        seen.set_live(self.waiting.front().map_or(now, |(_, sent)| *sent), false);
    }

    fn judge(&self, seen: &mut Seen, now: u64) {
        if let Some((_, sent)) = self.waiting.front().filter(|(_, sent)| now - sent > LATE) {
            seen.set_live(*sent, false);
        }
    }
}

/// Connects, and stays connected until the token is cancelled.
pub async fn run(address: &Address, token: &CancellationToken, record: &Record, clock: Clock) {
    let (mut failures, mut again) = (0, false);
    loop {
        lock(record).opens.push(clock.now());
        let Some(opened) = token.run_until_cancelled(timeout(OPEN, open(address, None))).await else { return };
        let code = match opened {
            Ok(Ok(socket)) => {
                let pulse = Pulse { again: std::mem::replace(&mut again, true), ..Pulse::default() };
                failures = 0;
                match serve(socket, pulse, token, record, clock).await {
                    Some(code) => code,
                    None => return,
                }
            }
            Ok(Err(_)) | Err(_) => close::ABNORMAL,
        };
        lock(record).closes.push((clock.now(), code));
        let ceiling = (BACKOFF_BASE_MS << failures.min(16)).min(BACKOFF_CAP_MS);
        failures += 1;
        let wait = Duration::from_millis(ceiling).mul_f64(rand::random());
        if token.run_until_cancelled(sleep(wait)).await.is_none() {
            return;
        }
    }
}

/// One connection. Gives its close code, or nothing if we closed it.
async fn serve(
    socket: Socket,
    mut pulse: Pulse,
    token: &CancellationToken,
    record: &Record,
    clock: Clock,
) -> Option<u16> {
    let (mut read, mut write) = socket.split(tokio::io::split);
    let (answers, mut to_send) = mpsc::channel::<Vec<u8>>(4);
    let (pongs, mut answered) = mpsc::channel::<Vec<u8>>(4);
    let reading = async move {
        // What has to be sent in answer (pongs, the echo of a close) goes to the one who writes.
        let mut answer = |frame: Frame<'_>| {
            let (answers, payload) = (answers.clone(), frame.payload.to_vec());
            async move {
                // Nobody is there only when the connection ends anyway.
                let _ = answers.send(payload).await;
                Ok::<_, WebSocketError>(())
            }
        };
        loop {
            match read.read_frame(&mut answer).await {
                Ok(frame) if frame.opcode == OpCode::Pong => {
                    if pongs.send(frame.payload.to_vec()).await.is_err() {
                        return close::ABNORMAL;
                    }
                }
                Ok(frame) if frame.opcode == OpCode::Close => return close_code(&frame.payload),
                Ok(_) => {}
                Err(_) => return close::ABNORMAL,
            }
        }
    };
    let mut reading = pin!(reading);
    let mut ticks = interval(PING);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let code = loop {
        tokio::select! {
            code = &mut reading => break Some(code),
            () = token.cancelled() => break None,
            Some(payload) = answered.recv() => pulse.pong(&mut lock(record), &payload, clock.now()),
            Some(payload) = to_send.recv() => {
                if !say(&mut write, Frame::pong(Payload::Owned(payload))).await {
                    break Some(close::ABNORMAL);
                }
            }
            _ = ticks.tick() => {
                let ping = pulse.ping(&mut lock(record), clock.now());
                if !say(&mut write, Frame::new(true, OpCode::Ping, None, Payload::Owned(ping.to_vec()))).await {
                    break Some(close::ABNORMAL);
                }
            }
        }
    };
    if code.is_some() {
        pulse.end(&mut lock(record), clock.now());
    }
    say(&mut write, Frame::close(close::DONE, b"")).await;
    code
}

/// Whether it could be written in time.
async fn say(write: &mut WebSocketWrite<impl AsyncWrite + Unpin>, frame: Frame<'_>) -> bool {
    matches!(timeout(CLOSE, write.write_frame(frame)).await, Ok(Ok(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_that_are_answered_in_time_leave_no_gap() {
        let (mut pulse, mut seen) = (Pulse::default(), Seen::default());
        for now in [0, 200, 400] {
            let payload = pulse.ping(&mut seen, now);
            pulse.pong(&mut seen, &payload, now + 150);
        }
        assert_eq!((seen.live.as_slice(), seen.handovers.len()), ([(150, true)].as_slice(), 0));
    }

    #[test]
    fn a_gap_begins_with_the_first_ping_that_was_not_answered() {
        let (mut pulse, mut seen) = (Pulse { again: true, ..Pulse::default() }, Seen::default());
        let payload = pulse.ping(&mut seen, 0);
        pulse.pong(&mut seen, &payload, 10);
        pulse.ping(&mut seen, 200);
        pulse.ping(&mut seen, 400);
        let last = pulse.ping(&mut seen, 600);
        assert_eq!(seen.live.last(), Some(&(200, false)), "noticed at 600");
        pulse.pong(&mut seen, &last, 700);
        assert_eq!(seen.live, [(10, true), (200, false), (700, true)], "the last answers for all");
        pulse.ping(&mut seen, 800);
        pulse.end(&mut seen, 900);
        assert_eq!((seen.live.last(), seen.handovers.as_slice()), (Some(&(800, false)), [(10, false)].as_slice()));
    }
}
