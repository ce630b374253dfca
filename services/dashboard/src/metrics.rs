//! What the dashboard counts. Labels are values that can be listed: kinds of frames, outcomes, close codes that we send.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use protocol::close;

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
    /// No WebSocket of ours, or the upgrade failed.
    Failed,
}

/// All counters of the dashboard.
#[derive(Debug, Clone)]
pub struct Metrics {
    connections: IntGauge,
    handshakes: IntCounterVec,
    closes: IntCounterVec,
    /// By kind, looked up once: this is counted for every frame.
    frames: [IntCounter; Kind::LABELS.len()],
    bytes: IntCounter,
    stalls: IntCounter,
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
        let frames = IntCounterVec::new(Opts::new("tidemark_frames_total", "Frames sent by type"), &["type"])?;
        registry.register(Box::new(frames.clone()))?;
        let metrics = Self {
            connections: IntGauge::new("tidemark_connections", "Open WebSocket connections")?,
            handshakes: IntCounterVec::new(
                Opts::new("tidemark_handshakes_total", "WebSocket handshakes by outcome"),
                &["outcome"],
            )?,
            closes: IntCounterVec::new(
                Opts::new("tidemark_closes_total", "Ended connections by close code"),
                &["code"],
            )?,
            frames: Kind::LABELS.map(|label| frames.with_label_values(&[label])),
            bytes: IntCounter::new("tidemark_sent_bytes_total", "Bytes of frames sent to clients")?,
            stalls: IntCounter::new("tidemark_stalled_total", "Connections cut because a write made no progress")?,
        };
        registry.register(Box::new(metrics.connections.clone()))?;
        registry.register(Box::new(metrics.handshakes.clone()))?;
        registry.register(Box::new(metrics.closes.clone()))?;
        registry.register(Box::new(metrics.bytes.clone()))?;
        registry.register(Box::new(metrics.stalls.clone()))?;
        Ok(metrics)
    }

    /// One more connection, until the guard is dropped.
    pub fn open(&self) -> OpenConnection {
        self.connections.inc();
        OpenConnection(self.connections.clone())
    }

    /// A handshake ended so.
    pub fn handshake(&self, outcome: Handshake) {
        let outcome = match outcome {
            Handshake::Accepted => "accepted",
            Handshake::Origin => "origin",
            Handshake::Query => "query",
            Handshake::NotReady => "not_ready",
            Handshake::Failed => "failed",
        };
        self.handshakes.with_label_values(&[outcome]).inc();
    }

    /// A connection ended with this code.
    pub fn closed(&self, code: u16) {
        let code = match code {
            close::DONE => "1000",
            close::PROTOCOL_ERROR => "1002",
            close::POLICY => "1008",
            close::RESTART => "1012",
            close::TRY_LATER => "1013",
            _ => "none",
        };
        self.closes.with_label_values(&[code]).inc();
    }

    /// A frame was handed to the socket.
    pub fn sent(&self, kind: Kind, bytes: usize) {
        self.frames[kind as usize].inc();
        self.bytes.inc_by(bytes as u64);
    }

    /// A client was cut because it took nothing for too long.
    pub fn stalled(&self) {
        self.stalls.inc();
    }
}
