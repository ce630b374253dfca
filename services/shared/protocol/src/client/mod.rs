//! The client's state machine, sans I/O: an [`Event`] and the time go in, [`Effect`]s come out. `docs/protocol.md` section 3 has the rules,
//! `tests/vectors/` the cases; `frontend/client` is its twin.

mod machine;
mod rounds;
mod values;

pub use machine::{Machine, Status};
pub use values::{Known, Values};

use crate::{Frame, Transport};

/// How long a connection attempt may take to say `hello`, and again to send its first `set` or `beat`, ms.
pub const ANSWER_MS: u64 = 1_000;
/// After a silence one more connection joins the round each time this has passed without a `hello`, ms: the delay between attempts of RFC 8305, section 8.
pub const JOIN_MS: u64 = 250;
/// So many connections join at most, within the two seconds that a client of a frozen replica may take. With the two of the beginning one of ten has to meet a
/// live replica: with one of two frozen, 1023 clients of 1024 do.
pub const JOINS: u32 = 8;
/// Longest first wait after a loss, ms; it doubles with each failure.
pub const BACKOFF_BASE_MS: u64 = 250;
/// Longest wait between rounds, ms.
pub const BACKOFF_CAP_MS: u64 = 10_000;
/// How long a connection must have lived before earlier failures are forgotten, ms.
pub const STABLE_MS: u64 = 10_000;
/// So many WebSockets that failed in a row are a way that lets none through: then SSE is used. One may be a replica that dies, two a race for it.
pub const FALLBACK: u32 = 3;
/// Longest time on SSE before a WebSocket is probed for the first time, ms. Replicas that restarted are back by then, so a client that fell back for
/// their sake returns; behind a proxy that refuses WebSockets it costs one request.
pub const PROBE_FIRST_MS: u64 = 15_000;
/// Longest time between later probes, ms: a request a minute is nothing beside the frames.
pub const PROBE_MS: u64 = 60_000;

/// Number of a connection, from 1 upwards for the life of a machine.
pub type Conn = u32;

/// Something happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The page wants values.
    Start,
    /// A frame arrived. `None`: it was not a frame of ours, and only proves life.
    Frame {
        /// On which connection.
        conn: Conn,
        /// What it says.
        frame: Option<Frame>,
    },
    /// A connection ended, or could not be opened.
    Closed {
        /// Which.
        conn: Conn,
        /// Close code; [`crate::close::ABNORMAL`] without one.
        code: u16,
        /// Close reason.
        reason: String,
    },
    /// [`Machine::wake_at`] has come.
    Tick,
    /// The network came back, or somebody looks again.
    Nudge,
    /// The page goes away; [`Event::Start`] takes up again.
    Stop,
}

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Open this connection with this cursor.
    Open {
        /// Its number.
        conn: Conn,
        /// The cursor to send.
        since: Option<String>,
        /// What shall carry it.
        transport: Transport,
    },
    /// Close it with 1000; nothing of it counts any more.
    Close {
        /// Its number.
        conn: Conn,
    },
    /// These items changed, as `feed:key`, sorted.
    Items {
        /// Their names.
        keys: Vec<String>,
    },
    /// Another connection took over.
    Handover {
        /// Name of the replica that served before.
        from: String,
        /// Name of the replica that serves now.
        to: String,
        /// Since the `move` if planned, else since the loss, ms.
        ms: u64,
        /// Whether the old connection lived until the new one answered.
        planned: bool,
    },
}
