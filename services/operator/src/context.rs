//! What every reconcile shares.

use kube::Client;

use crate::{backoff::Backoff, connections::Connections, events::Events, metrics::Metrics};

/// One for the whole controller.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// Events on Boards.
    pub events: Events,
    /// What is counted.
    pub metrics: Metrics,
    /// Open live connections.
    pub connections: Connections,
    /// Failures in a row.
    pub backoff: Backoff,
}

impl Context {
    /// With nothing known yet.
    pub fn new(client: Client, metrics: Metrics) -> Self {
        let events = Events::new(client.clone());
        Self { client, events, metrics, connections: Connections::default(), backoff: Backoff::default() }
    }
}
