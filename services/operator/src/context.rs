//! What every reconcile shares.

use kube::Client;

use crate::{backoff::Backoff, dashboards::Dashboards, events::Events, metrics::Metrics};

/// One for the whole controller.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// Events on Boards.
    pub events: Events,
    /// What is counted.
    pub metrics: Metrics,
    /// What the dashboards report.
    pub dashboards: Dashboards,
    /// Failures in a row.
    pub backoff: Backoff,
}

impl Context {
    /// With nothing known yet.
    pub fn new(client: Client, metrics: Metrics) -> Self {
        let events = Events::new(client.clone());
        Self { client, events, metrics, dashboards: Dashboards::default(), backoff: Backoff::default() }
    }
}
