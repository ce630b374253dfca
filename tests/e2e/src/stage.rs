//! Where faults happen: the cluster, the crowd that watches it, and the writer that saves. One fault after the other, each after a quiet stretch.

use std::{future::Future, path::Path, time::Duration};

use anyhow::{Context, Result};
use http::Uri;
use tidemark::{
    client::{Target, Trust},
    save::Saver,
};
use tokio::time::sleep;

use crate::{
    crowd::Crowd,
    kubectl::Kubectl,
    record::{Span, Verdict, judge},
    writer::Writer,
};

/// What a fault is compared with: a stretch in which nothing is done, right before it.
const QUIET: Duration = Duration::from_secs(5);

/// How long everybody may take to be live and up to date again before the wait is given up.
const SETTLE: Duration = Duration::from_secs(60);

/// The feed that is watched; its value is the number of texts.
const FEED: &str = "texts";

/// The cluster under load.
#[derive(Debug)]
pub struct Stage {
    /// The Board's namespace.
    pub kubectl: Kubectl,
    /// Who watches.
    pub crowd: Crowd,
    /// Who saves.
    pub writer: Writer,
    /// The count before the first save.
    pub base: u64,
}

/// A fault, measured.
#[derive(Debug, Clone)]
pub struct Measured {
    /// What was done.
    pub fault: String,
    /// What its rules are.
    pub kind: Kind,
    /// The stretch before it.
    pub quiet: Verdict,
    /// From its start until everybody was live and up to date again.
    pub during: Verdict,
    /// How long that was, ms.
    pub ms: u64,
}

/// What is expected of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Announced: nobody may notice.
    Planned,
    /// Unannounced: live again within a second.
    Hard,
    /// The database is away for a while: sockets stay, nothing that was acknowledged is lost.
    Database,
}

impl Stage {
    /// Connects the clients, waits until all of them know the count, and starts to save.
    ///
    /// # Errors
    /// When the address or the authority cannot be used, or not all clients connect in time.
    pub async fn open(kubectl: Kubectl, url: &Uri, authority: &Path, clients: usize, rate: u32) -> Result<Self> {
        let (trust, url) = (Trust::with_ca(authority)?, url.to_string());
        let target = Target::parse(&url, FEED)?.with_trust(trust.clone());
        let saver = Saver::new(&url, &trust)?;
        let crowd = Crowd::connect(clients, &target, FEED);
        crowd.all_know(0, SETTLE).await?;
        let base = crowd.newest().context("nobody knows a count")?;
        crowd.all_know(base, SETTLE).await?;
        let writer = Writer::start(saver, rate, crowd.began());
        Ok(Self { kubectl, crowd, writer, base })
    }

    /// Ends the saves, then the connections.
    pub async fn close(&self) {
        self.writer.finish().await;
        self.crowd.leave().await;
    }

    /// Measures what the crowd sees while something is done.
    ///
    /// # Errors
    /// When the deed fails, or somebody does not recover.
    pub async fn fault(&self, name: &str, kind: Kind, deed: impl Future<Output = Result<()>>) -> Result<Measured> {
        self.settle().await?;
        let from = self.crowd.now();
        sleep(QUIET).await;
        let start = self.crowd.now();
        deed.await.with_context(|| name.to_owned())?;
        self.settle().await.with_context(|| format!("after {name}"))?;
        let end = self.crowd.now();
        let (clients, saves) = (self.crowd.seen(), self.writer.saves());
        let verdict = |from, to| judge(&clients, &saves, self.base, Span { from, to }, end);
        Ok(Measured {
            fault: name.to_owned(),
            kind,
            quiet: verdict(from, start),
            during: verdict(start, end),
            ms: end - start,
        })
    }

    /// Waits until every client is live and knows every text that was acknowledged until now.
    ///
    /// # Errors
    /// When that takes longer than a minute.
    pub async fn settle(&self) -> Result<Duration> {
        let due = self.base + self.writer.saves().acknowledged.len() as u64;
        self.crowd.all_know(due, SETTLE).await
    }
}

impl Measured {
    /// What was broken, in words; empty if everything held.
    pub fn broken(&self) -> Vec<String> {
        let Self { fault: _, kind, quiet, during, ms: _ } = self;
        let mut broken = Vec::new();
        let mut rule = |holds: bool, text: String| {
            if !holds {
                broken.push(text);
            }
        };
        rule(during.backwards == 0, format!("{} values ran backwards", during.backwards));
        rule(during.doubled == 0, format!("{} values came twice", during.doubled));
        match kind {
            Kind::Planned => {
                let limit = quiet.late_max + 250;
                rule(
                    during.interrupted == 0,
                    format!("{} clients had no connection, up to {} ms", during.interrupted, during.gap),
                );
                rule(
                    during.late_max <= limit,
                    format!("a value was {} ms late, more than {limit} ms", during.late_max),
                );
                rule(during.failed == 0, format!("{} saves failed", during.failed));
                rule(during.saves > 0, "nothing was saved meanwhile".to_owned());
            }
            Kind::Hard => {
                rule(
                    during.gap <= 1_000,
                    format!("a client had no connection for {} ms, more than 1000 ms", during.gap),
                );
                rule(during.failed == 0, format!("{} saves failed", during.failed));
            }
            Kind::Database => {
                rule(during.interrupted == 0, format!("{} clients lost their connection", during.interrupted));
            }
        }
        broken
    }
}
