//! Pushes feeds to browsers: WebSocket /ws.
