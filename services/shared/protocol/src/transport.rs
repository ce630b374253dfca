//! The two ways in which frames travel.

/// What carries a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// A WebSocket, `/ws`.
    WebSocket,
    /// Server-sent events, `/events`.
    Sse,
}

impl Transport {
    /// The word of the protocol.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "ws",
            Self::Sse => "sse",
        }
    }
}
