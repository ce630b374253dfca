//! The demo's own database: kept running, as a replica is.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    Error, RESTART, pause,
    roster::{Entry, Roster},
};
use crate::{
    postgres::{self, Cluster, Server},
    process::{Household, StartLimit, Tail, describe},
    say,
};

const NAME: &str = "postgres";

/// A running server and what it takes to start the next one.
pub(super) struct Database {
    cluster: Cluster,
    server: Server,
    start_timeout: Duration,
    roster: Arc<Roster>,
}

impl Database {
    pub async fn start(
        options: postgres::Options,
        limit: &StartLimit,
        roster: &Arc<Roster>,
        household: &Household,
    ) -> Result<Self, Error> {
        let start_timeout = options.start_timeout;
        let mut cluster = Cluster::prepare(options, None, limit, household).await?;
        let server = cluster.start(limit).await?;
        roster.set(Entry::database(NAME, server.pid(), cluster.url()))?;
        Ok(Self { cluster, server, start_timeout, roster: Arc::clone(roster) })
    }

    pub fn url(&self) -> String {
        self.cluster.url()
    }

    /// The last lines that the first server wrote.
    pub fn tail_handle(&self) -> Tail {
        self.server.tail_handle()
    }

    /// Starts a new server on the same data and port whenever one has died, until the token is cancelled.
    pub async fn keep(mut self, token: CancellationToken, hurry: CancellationToken) {
        loop {
            let ended = tokio::select! {
                ended = self.server.wait() => ended,
                () = token.cancelled() => return self.server.stop(&hurry).await,
            };
            let how = ended.map_or_else(|error| error.to_string(), describe);
            self.roster.unset(NAME);
            say::line(format_args!(
                "{NAME} (pid {}) {how}; it is started again in {} s",
                self.server.pid(),
                RESTART.as_secs()
            ));
            self.server = loop {
                if !pause(&token).await {
                    return;
                }
                // Processes of a server that was killed may still be leaving: then the next attempt succeeds.
                let limit = StartLimit::new(self.start_timeout);
                match token.run_until_cancelled(self.cluster.start(&limit)).await {
                    Some(Ok(server)) => break server,
                    Some(Err(error)) => say::line(error),
                    None => return, // a server that was about to start is ended by the guard
                }
            };
            let pid = self.server.pid();
            if let Err(error) = self.roster.set(Entry::database(NAME, pid, self.cluster.url())) {
                say::note(error);
            }
            say::line(format_args!("{NAME} (pid {pid}) takes connections again"));
        }
    }
}
