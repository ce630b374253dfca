//! Where faults happen: the cluster, the crowd that watches it, and the writer that saves. One fault after the other, each after a quiet stretch.

use std::{
    path::Path,
    time::{Duration, Instant},
};

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
    /// Who saves.
    pub writer: Writer,
    target: Target,
    clients: usize,
    /// The count before the first save.
    base: u64,
    /// The start of the clock that all times are measured with.
    began: Instant,
}

/// Something that is done to the system, and what its rules are.
#[derive(Debug, Clone)]
pub struct Fault {
    /// What is done.
    pub name: String,
    /// What is expected.
    pub kind: Kind,
    /// Whether it takes connections away, so that it shows nothing unless some client changes its replica.
    pub hits: bool,
}

/// A fault, measured.
#[derive(Debug, Clone)]
pub struct Measured {
    /// What was done.
    pub fault: Fault,
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
    /// Reads the count and starts to save.
    ///
    /// # Errors
    /// When the address or the authority cannot be used, or nobody tells the count in time.
    pub async fn open(kubectl: Kubectl, url: &Uri, authority: &Path, clients: usize, rate: u32) -> Result<Self> {
        let (trust, url, began) = (Trust::with_ca(authority)?, url.to_string(), Instant::now());
        let target = Target::parse(&url, FEED)?.with_trust(trust.clone());
        let saver = Saver::new(&url, &trust)?;
        let first = Crowd::connect(1, &target, FEED, began);
        first.all_know(0, SETTLE).await?;
        let base = first.newest().context("nobody knows a count")?;
        first.leave().await;
        Ok(Self { kubectl, writer: Writer::start(saver, rate, began), target, clients, base, began })
    }

    /// Ends the saves.
    pub async fn close(&self) {
        self.writer.finish().await;
    }

    /// Measures what clients see while something is done. They are new ones, so that they are spread over all replicas.
    ///
    /// # Errors
    /// When the deed fails, or somebody does not recover.
    pub async fn fault(&self, fault: Fault, deed: impl AsyncFnOnce(&Crowd) -> Result<()>) -> Result<Measured> {
        let crowd = Crowd::connect(self.clients, &self.target, FEED, self.began);
        self.settle(&crowd).await.with_context(|| format!("before {}", fault.name))?;
        let from = crowd.now();
        sleep(QUIET).await;
        let start = crowd.now();
        deed(&crowd).await.with_context(|| fault.name.clone())?;
        self.settle(&crowd).await.with_context(|| format!("after {}", fault.name))?;
        let end = crowd.now();
        let (clients, saves) = (crowd.seen(), self.writer.saves());
        let verdict = |from, to| judge(&clients, &saves, self.base, Span { from, to }, end);
        let measured = Measured { fault, quiet: verdict(from, start), during: verdict(start, end), ms: end - start };
        crowd.leave().await;
        Ok(measured)
    }

    /// Waits until every client is live and knows every text that was acknowledged until now.
    ///
    /// # Errors
    /// When that takes longer than a minute.
    pub async fn settle(&self, crowd: &Crowd) -> Result<Duration> {
        crowd.all_know(self.base + self.writer.saves().acknowledged.len() as u64, SETTLE).await
    }

    /// Waits until a text that was saved after now is acknowledged, and every client knows it; gives how long that took.
    ///
    /// # Errors
    /// When that takes longer than a minute.
    pub async fn fresh(&self, crowd: &Crowd) -> Result<Duration> {
        let (from, stored) = (Instant::now(), self.writer.saves().acknowledged.len() as u64);
        crowd.all_know(self.base + stored + 1, SETTLE).await?;
        Ok(from.elapsed())
    }
}

impl Measured {
    /// What was broken, in words; empty if everything held.
    pub fn broken(&self) -> Vec<String> {
        let Self { fault, quiet, during, ms: _ } = self;
        let mut broken = Vec::new();
        let mut rule = |holds: bool, text: String| {
            if !holds {
                broken.push(text);
            }
        };
        rule(during.backwards == 0, format!("{} values ran backwards", during.backwards));
        rule(during.doubled == 0, format!("{} values came twice", during.doubled));
        rule(!fault.hits || during.moves + during.reconnects > 0, "nobody was connected to what was hit".to_owned());
        match fault.kind {
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
