//! What the dashboard counts. Labels are values that can be listed: kinds of frames, outcomes, close codes that we send.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, core::Collector,
};
use protocol::{Transport, close};
use tokio::time::Instant;

/// Kinds of frames, as the label `type`.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// `hello`.
    Hello,
    /// The `set` or `beat` that follows `hello`.
    First,
    /// `set`.
    Set,
    /// `beat`.
    Beat,
    /// `move`.
    Move,
    /// The answer to a ping.
    Pong,
}

impl Kind {
    /// The labels, in the order of the variants.
    const LABELS: [&'static str; 6] = ["hello", "first", "set", "beat", "move", "pong"];
}

/// How a handshake ended, as the label `outcome`.
#[derive(Debug, Clone, Copy)]
pub enum Handshake {
    /// A session began.
    Accepted,
    /// A page of another site.
    Origin,
    /// A query that cannot be served.
    Query,
    /// Nothing was read yet.
    NotReady,
    /// Too many handshakes a second.
    Rate,
    /// Too many connections.
    Full,
    /// So many sockets that only a plain answer was given.
    Flood,
    /// No WebSocket of ours, or the upgrade failed.
    Failed,
}

impl Handshake {
    /// The labels, in the order of the variants.
    const LABELS: [&'static str; 8] = ["accepted", "origin", "query", "not_ready", "rate", "full", "flood", "failed"];
}

/// Close codes as labels. The last one stands for an end without any.
const CODES: [&str; 6] = ["1000", "1002", "1008", "1012", "1013", "none"];

/// A bell is answered within 2 to 3 ms on an idle system; a reader awake looks every 20 ms, a session sends every 50 ms, a reader without a bell
/// looks every 200 ms, the poll every 2 s. Above is an outage.
const PUSH_BUCKETS: [f64; 13] = [0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 10.0];

/// All counters of the dashboard.
#[derive(Debug, Clone)]
pub struct Metrics {
    connections: IntGaugeVec,
    handshakes: IntCounterVec,
    closes: IntCounterVec,
    /// By kind, looked up once: this is counted for every frame.
    frames: [IntCounter; Kind::LABELS.len()],
    bytes: IntCounter,
    stalls: IntCounter,
    moves: IntCounter,
    push_latency: Histogram,
}

/// Counts one open connection for as long as it lives.
#[derive(Debug)]
pub struct OpenConnection(IntGauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Makes the counters and registers them.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let frames = IntCounterVec::new(Opts::new("tidemark_frames_total", "Frames sent by type."), &["type"])?;
        let connections = Opts::new("tidemark_connections", "Open connections by what carries them.");
        let handshakes = Opts::new("tidemark_handshakes_total", "Handshakes by outcome.");
        let closes = Opts::new(
            "tidemark_closes_total",
            "Ended connections by the close code that we sent or agreed to; none: lost without one.",
        );
        let latency = HistogramOpts::new(
            "tidemark_push_latency_seconds",
            "Age of the newest value in a set frame when its last byte was given to the kernel, once for each frame and socket: from the database's \
             clock when the writing transaction counted the change (just before its commit) to that of the reading, and on this process's clock from \
             there. The way to the browser is not in it.",
        );
        let metrics = Self {
            connections: IntGaugeVec::new(connections, &["transport"])?,
            handshakes: IntCounterVec::new(handshakes, &["outcome"])?,
            closes: IntCounterVec::new(closes, &["code"])?,
            frames: Kind::LABELS.map(|label| frames.with_label_values(&[label])),
            bytes: IntCounter::new("tidemark_sent_bytes_total", "Bytes of frames sent to clients.")?,
            stalls: IntCounter::new(
                "tidemark_stalled_total",
                "Connections cut because the client took or acknowledged nothing.",
            )?,
            moves: IntCounter::new("tidemark_moves_total", "Clients that were asked to move to another replica.")?,
            push_latency: Histogram::with_opts(latency.buckets(PUSH_BUCKETS.to_vec()))?,
        };
        let Self { connections, handshakes, closes, frames: _, bytes, stalls, moves, push_latency } = metrics.clone();
        let all: [Box<dyn Collector>; 8] = [
            Box::new(connections),
            Box::new(handshakes),
            Box::new(closes),
            Box::new(frames),
            Box::new(bytes),
            Box::new(stalls),
            Box::new(moves),
            Box::new(push_latency),
        ];
        all.into_iter().try_for_each(|collector| registry.register(collector))?;
        // A series that appears only with its first event hides that event from rate().
        for transport in [Transport::WebSocket, Transport::Sse] {
            metrics.connections.with_label_values(&[transport.as_str()]);
        }
        for outcome in Handshake::LABELS {
            metrics.handshakes.with_label_values(&[outcome]).inc_by(0);
        }
        for code in CODES {
            metrics.closes.with_label_values(&[code]).inc_by(0);
        }
        Ok(metrics)
    }

    /// One more connection, until the guard is dropped.
    pub fn open(&self, transport: Transport) -> OpenConnection {
        let connections = self.connections.with_label_values(&[transport.as_str()]);
        connections.inc();
        OpenConnection(connections)
    }

    /// A handshake ended so.
    pub fn handshake(&self, outcome: Handshake) {
        self.handshakes.with_label_values(&[Handshake::LABELS[outcome as usize]]).inc();
    }

    /// A connection ended with this code.
    pub fn closed(&self, code: u16) {
        let known = match code {
            close::DONE => 0,
            close::PROTOCOL_ERROR => 1,
            close::POLICY => 2,
            close::RESTART => 3,
            close::TRY_LATER => 4,
            _ => 5,
        };
        self.closes.with_label_values(&[CODES[known]]).inc();
    }

    /// A frame was handed to the socket.
    pub fn sent(&self, kind: Kind, bytes: usize) {
        self.frames[kind as usize].inc();
        self.bytes.inc_by(bytes as u64);
    }

    /// A set frame was handed to the socket; its newest value was written at `changed`.
    pub fn pushed(&self, changed: Option<Instant>, now: Instant) {
        if let Some(changed) = changed {
            self.push_latency.observe(now.saturating_duration_since(changed).as_secs_f64());
        }
    }

    /// A client was asked to move.
    pub fn moved(&self) {
        self.moves.inc();
    }

    /// A client was cut because it took or acknowledged nothing for too long.
    pub fn stalled(&self) {
        self.stalls.inc();
    }
}
