//! Where faults happen: a crowd that watches and a writer that saves. One fault after the other, each after a quiet stretch.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{
    args::Args,
    crowd::{Clock, Crowd, Kind},
    fault::Returned,
    measure::{Measurement, measure},
    readback::Found,
    record::{Save, Seen, Span},
    report::Report,
    writer::Writer,
};
use crate::{
    client::{TargetError, Trust},
    list::{ListError, Lister},
    save::Saver,
};

/// How long everybody may take to be live and up to date again before the wait is given up.
const SETTLE: Duration = Duration::from_secs(60);

/// Without saves nobody sees that a value is missing. After so long a client has noticed what it can notice at once: two pings without an answer.
const NOTICE: Duration = Duration::from_millis(500);

/// Why there is nothing to measure.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The address.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The texts.
    #[error(transparent)]
    List(#[from] ListError),
    /// Before a fault everybody has to be connected.
    #[error("{missing} of {clients} clients were not live and up to date after {} s, before anything was done", SETTLE.as_secs())]
    NotSettled {
        /// How many.
        missing: usize,
        /// Of how many.
        clients: u32,
    },
    /// Without a count, nobody can tell what was seen.
    #[error("the feed texts has no count: saves cannot be followed")]
    NoCount,
}

/// The clients and the writer of a drill.
#[derive(Debug)]
pub struct Stage {
    kind: Kind,
    clients: u32,
    clock: Clock,
    saves: Option<Saves>,
}

/// The saves, and what has to be known to judge them.
#[derive(Debug)]
struct Saves {
    writer: Writer,
    lister: Lister,
    /// The count before the first one.
    base: u64,
    /// The newest text before the first one.
    newest: Option<Uuid>,
}

/// A fault, measured.
#[derive(Debug, Clone)]
pub struct Measured {
    /// From the first connection until everybody was live and up to date, ms. It counts for nothing.
    pub warm_up: u64,
    /// The stretch before the fault.
    pub quiet: (Span, Measurement),
    /// From the fault until everybody was live and up to date again.
    pub during: (Span, Measurement),
    /// Clients that were not, after a minute.
    pub unsettled: usize,
}

impl Stage {
    /// Starts to save, if so many texts per second are any.
    ///
    /// # Errors
    /// [`StageError`].
    pub async fn open(kind: Kind, args: &Args, url: &str, trust: &Trust, per_second: u32) -> Result<Self, StageError> {
        let (clock, clients, machine) = (Clock::start(), args.clients, args.connect_to);
        let mut stage = Self { kind, clients, clock, saves: None };
        if per_second > 0 {
            let (saver, lister) = (Saver::at(machine, url, trust)?, Lister::at(machine, url, trust));
            let newest = lister.page(None).await?.texts.first().map(|text| text.id);
            let first = Crowd::connect(1, &stage.kind, clock);
            let settled = stage.settled(&first, None).await;
            let base = first.newest();
            first.leave().await;
            settled.map_err(|missing| StageError::NotSettled { missing, clients: 1 })?;
            let base = base.ok_or(StageError::NoCount)?;
            stage.saves = Some(Saves { writer: Writer::start(saver, per_second, clock), lister, base, newest });
        }
        Ok(stage)
    }

    /// Measures what clients see while something is done. They are new ones, so that they are spread over all replicas.
    ///
    /// # Errors
    /// When clients cannot connect before, or the deed fails.
    pub async fn measure<E: From<StageError>>(
        &self,
        quiet: Duration,
        deed: impl Future<Output = Result<Returned, E>>,
    ) -> Result<Measured, E> {
        let crowd = Crowd::connect(self.clients, &self.kind, self.clock);
        let connected = self.clock.now();
        if let Err(missing) = self.settled(&crowd, self.count()).await {
            crowd.leave().await;
            return Err(StageError::NotSettled { missing, clients: self.clients }.into());
        }
        let from = self.clock.now();
        sleep(quiet).await;
        let start = self.clock.now();
        let returned = deed.await;
        let fresh = match (&returned, &self.saves) {
            (Ok(returned), Some(saves)) => self.fresh(&crowd, saves, self.clock.at(returned.at)).await,
            (Ok(_), None) => {
                sleep(NOTICE).await;
                None
            }
            (Err(_), _) => None,
        };
        let unsettled = self.settled(&crowd, self.count()).await.err().unwrap_or(0);
        let end = self.clock.now();
        crowd.leave().await;
        returned?;
        let (clients, saves) = (crowd.seen(), self.saves());
        let base = self.saves.as_ref().map(|saves| saves.base);
        let of = |span| (span, measure(&clients, &saves, base, span, end));
        let (quiet, during) = spans(from, start, end);
        let mut measured = Measured { warm_up: from - connected, quiet: of(quiet), during: of(during), unsettled };
        measured.during.1.fresh = fresh;
        measured.during.1.missed = missed(&clients, end);
        Ok(measured)
    }

    /// Saves no more, and tells the report which texts are there.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn close(self, report: &mut Report) -> Result<(), ListError> {
        let Some(Saves { writer, lister, newest, .. }) = self.saves else { return Ok(()) };
        writer.finish().await;
        let found = Found::read(&lister, &writer, newest).await?;
        report.read_back(&found, &writer.saves());
        Ok(())
    }

    fn saves(&self) -> Vec<Save> {
        self.saves.as_ref().map_or_else(Vec::new, |saves| saves.writer.saves())
    }

    /// What everybody should know now.
    fn count(&self) -> Option<u64> {
        self.saves.as_ref().map(|saves| saves.base + saves.writer.stored())
    }

    /// From a moment until every client knows a text that was acknowledged after it, ms.
    async fn fresh(&self, crowd: &Crowd, saves: &Saves, moment: u64) -> Option<u64> {
        let deadline = Instant::now() + SETTLE;
        let known = saves.writer.next(moment, deadline).await && crowd.all_know(self.count(), deadline).await;
        known.then(|| self.clock.now().saturating_sub(moment))
    }

    /// Waits until every client is live and knows this count; else how many are not.
    async fn settled(&self, crowd: &Crowd, count: Option<u64>) -> Result<(), usize> {
        if crowd.all_know(count, Instant::now() + SETTLE).await { Ok(()) } else { Err(crowd.behind(count)) }
    }
}

/// The stretch before the fault, and that of the fault. The last client may have come back in the very millisecond `end`, which is in it.
fn spans(from: u64, start: u64, end: u64) -> (Span, Span) {
    (Span { from, to: start }, Span { from: start, to: end + 1 })
}

/// By how many versions clients are behind at the end. What came in the last second may still be on its way to others.
fn missed(clients: &[Seen], end: u64) -> u64 {
    let until = |client: &Seen, end: u64| {
        client.values.iter().rev().find(|value| value.at <= end).map_or(0, |value| value.version)
    };
    let told = clients.iter().map(|client| until(client, end.saturating_sub(1_000))).max().unwrap_or(0);
    clients.iter().map(|client| told.saturating_sub(until(client, end))).sum()
}

#[cfg(test)]
mod tests {
    use super::{super::record::Value, *};

    #[test]
    fn what_happens_in_the_first_and_the_last_millisecond_of_a_fault_is_of_the_fault() {
        let client = Seen {
            live: vec![(50, true), (200, false), (900, true)],
            closes: vec![(200, 1006)],
            opens: vec![200, 900],
            handovers: vec![(900, false)],
            ..Seen::default()
        };
        let (quiet, during) = spans(100, 200, 900);
        let of = |span| measure(std::slice::from_ref(&client), &[], None, span, 900);
        let (before, during) = (of(quiet), of(during));
        assert_eq!((before.closes.len(), before.handshakes, before.reconnects.sum()), (0, 0, 0));
        assert_eq!((during.closes.len(), during.handshakes, during.reconnects.sum()), (1, 2, 1));
        assert_eq!(during.blackout.max(), Some(700));
    }

    #[test]
    fn who_has_not_what_another_had_a_second_ago_has_missed_it() {
        let client = |values: &[(u64, u64)]| {
            let values = values.iter().map(|(at, version)| Value { at: *at, version: *version, count: 0 }).collect();
            Seen { values, ..Seen::default() }
        };
        let newest = client(&[(0, 1), (1_000, 5), (1_900, 6)]);
        assert_eq!(missed(&[newest.clone(), client(&[(0, 1), (1_400, 5)])], 2_000), 0);
        assert_eq!(missed(&[newest.clone(), client(&[(0, 1)])], 2_000), 4);
        assert_eq!(missed(&[newest, client(&[])], 2_000), 5, "never had any");
    }
}
