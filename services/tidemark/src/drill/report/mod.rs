//! What was measured, and whether it may be: as a table for people, as JSON and JUnit for programs.

mod json;
mod junit;
mod table;

use super::{
    args::{Args, Plan, Protocol},
    measure::Measurement,
    metric::Budget,
    readback::Found,
    record::{Save, Span},
    stage::Measured,
};

/// All runs of a drill.
#[derive(Debug)]
pub struct Report {
    url: String,
    protocol: Protocol,
    clients: u32,
    saves_per_second: u32,
    budgets: Vec<Budget>,
    runs: Vec<Run>,
}

/// One fault, done once.
#[derive(Debug)]
struct Run {
    fault: String,
    number: u32,
    measured: Measured,
}

/// All runs of one fault, or of all.
#[derive(Debug)]
struct Total<'a> {
    fault: &'a str,
    runs: usize,
    measured: Measurement,
}

impl Report {
    /// An empty one.
    pub fn new(args: &Args, plan: &Plan, url: &str) -> Self {
        let (protocol, clients, saves_per_second) = (args.protocol, args.clients, plan.saves);
        Self {
            url: url.to_owned(),
            protocol,
            clients,
            saves_per_second,
            budgets: plan.budgets.clone(),
            runs: Vec::new(),
        }
    }

    /// One more run.
    pub fn add(&mut self, fault: &str, number: u32, measured: Measured) {
        self.runs.push(Run { fault: fault.to_owned(), number, measured });
    }

    /// Adds which of the saves are there.
    pub fn read_back(&mut self, found: &Found, saves: &[Save]) {
        let tell = |(span, measured): &mut (Span, Measurement)| {
            if let Some(measured) = &mut measured.saves {
                (measured.lost, measured.doubled) = found.lost_and_doubled(saves, *span);
            }
        };
        for run in &mut self.runs {
            tell(&mut run.measured.quiet);
            tell(&mut run.measured.during);
        }
    }

    /// Whether every budget held in every run.
    pub fn held(&self) -> bool {
        self.runs.iter().all(|run| self.broken(run).is_empty())
    }

    /// What is wrong with a run.
    fn broken(&self, run: &Run) -> Vec<String> {
        let Measured { quiet: (_, quiet), during: (_, during), unsettled, .. } = &run.measured;
        let of_fault = self.budgets.iter().filter_map(|budget| budget.broken(&run.fault, during));
        // What must never happen must not happen in quiet times either.
        let of_quiet =
            Budget::never().filter_map(|budget| budget.broken("", quiet)).map(|text| format!("before: {text}"));
        let stayed =
            (*unsettled > 0).then(|| format!("{unsettled} clients were not live and up to date a minute later"));
        of_fault.chain(of_quiet).chain(stayed).collect()
    }

    /// The faults, each with all of its runs, in the order in which they were first done.
    fn totals(&self) -> Vec<Total<'_>> {
        let mut totals: Vec<Total<'_>> = Vec::new();
        for run in &self.runs {
            match totals.iter_mut().find(|total| total.fault == run.fault) {
                Some(total) => total.add(&run.measured.during.1),
                None => totals.push(Total::new(&run.fault, &run.measured.during.1)),
            }
        }
        totals
    }

    /// All faults together, and all quiet stretches together.
    fn overall(&self) -> Option<[Total<'_>; 2]> {
        let (first, rest) = self.runs.split_first()?;
        let mut all = Total::new("all", &first.measured.during.1);
        let mut quiet = Total::new("quiet", &first.measured.quiet.1);
        for run in rest {
            all.add(&run.measured.during.1);
            quiet.add(&run.measured.quiet.1);
        }
        Some([all, quiet])
    }
}

impl<'a> Total<'a> {
    fn new(fault: &'a str, measured: &Measurement) -> Self {
        Self { fault, runs: 1, measured: measured.clone() }
    }

    fn add(&mut self, measured: &Measurement) {
        self.runs += 1;
        self.measured.merge(measured);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::measure::SavesMeasured, *};

    fn measurement(blackout: u64, lost: u64) -> Measurement {
        let mut measured = Measurement { clients: 2, ms: 3_000, ..Measurement::default() };
        measured.blackout.add(0);
        measured.blackout.add(blackout);
        measured.closes.insert(1006, 1);
        let mut saves = SavesMeasured { stored: 60, lost, ..SavesMeasured::default() };
        saves.latency.add(12);
        measured.saves = Some(saves);
        measured
    }

    pub(super) fn report(budgets: &[&str], runs: &[(&str, u64)]) -> Report {
        let span = Span { from: 0, to: 3_000 };
        let budgets = budgets.iter().map(|text| text.parse().unwrap()).collect();
        let run = |(number, (fault, blackout)): (u32, &(&str, u64))| Run {
            fault: (*fault).to_owned(),
            number,
            measured: Measured {
                warm_up: 900,
                quiet: (span, measurement(0, 0)),
                during: (span, measurement(*blackout, 0)),
                unsettled: 0,
            },
        };
        Report {
            url: "http://localhost:3000".into(),
            protocol: Protocol::Tidemark,
            clients: 2,
            saves_per_second: 20,
            budgets,
            runs: (1..).zip(runs).map(run).collect(),
        }
    }

    #[test]
    fn a_budget_must_hold_in_every_run() {
        assert!(report(&["blackout-max=1s"], &[("sigkill", 900), ("sigkill", 1_000)]).held());
        let broken = report(&["blackout-max=1s"], &[("sigkill", 900), ("sigkill", 1_001)]);
        assert!(!broken.held());
        assert_eq!(broken.broken(&broken.runs[1]), ["blackout-max 1s 1ms, at most 1s"]);
        assert!(report(&["sigterm:blackout-max=0s"], &[("sigkill", 900)]).held(), "of another fault");
    }

    #[test]
    fn what_never_may_happen_counts_in_quiet_times_too_and_clients_have_to_come_back() {
        let mut quiet = report(&[], &[("sigkill", 0)]);
        quiet.runs[0].measured.quiet.1.backwards = 1;
        assert_eq!(quiet.broken(&quiet.runs[0]), ["before: backwards 1, at most 0"]);
        let mut away = report(&[], &[("sigkill", 0)]);
        away.runs[0].measured.unsettled = 2;
        assert!(!away.held());
    }

    #[test]
    fn runs_of_one_fault_are_told_together() {
        let report = report(&[], &[("sigterm", 0), ("sigkill", 400), ("sigkill", 600)]);
        let totals: Vec<_> =
            report.totals().iter().map(|total| (total.fault, total.runs, total.measured.blackout.max())).collect();
        assert_eq!(totals, [("sigterm", 1, Some(0)), ("sigkill", 2, Some(600))]);
        let [all, quiet] = report.overall().unwrap();
        assert_eq!((all.runs, all.measured.ms, quiet.measured.blackout.max()), (3, 9_000, Some(0)));
    }
}
