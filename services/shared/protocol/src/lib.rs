//! `tidemark.v1`: frames, feeds, cursor, close codes, and the client's state machine. Pure: no I/O, no clock, no async runtime.
//!
//! The description is `docs/protocol.md`; the numbers of its rules stand in the comments here.

pub mod client;
pub mod close;
mod cursor;
pub mod events;
mod feeds;
mod frame;
mod transport;

pub use cursor::{Cursor, CursorError, History, MAX_CURSOR_BYTES};
pub use feeds::{Feeds, FeedsError, is_feed_name};
pub use frame::{Beat, Database, Frame, Hello, Item, Move, Set};
pub use transport::Transport;

/// The WebSocket sub-protocol, and the `protocol` of a `hello`.
pub const PROTOCOL: &str = "tidemark.v1";

/// How long a server may be silent before it sends a `beat`, ms, until its `hello` says otherwise.
pub const DEFAULT_BEAT_MS: u64 = 5_000;
