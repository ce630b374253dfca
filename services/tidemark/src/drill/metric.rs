//! The numbers of a [`Measurement`] by name: for budgets, for tables and for programs.

use std::{fmt, str::FromStr, time::Duration};

use super::measure::Measurement;

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds.
    Time,
    /// Things.
    Count,
}

/// A number that a budget can bound.
#[derive(Debug)]
pub struct Metric {
    /// Its name on the command line and in JSON.
    pub name: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// Whether it says something only if texts are saved.
    pub of_saves: bool,
    /// Takes it out.
    pub get: fn(&Measurement) -> Option<u64>,
}

const fn metric(name: &'static str, unit: Unit, of_saves: bool, get: fn(&Measurement) -> Option<u64>) -> Metric {
    Metric { name, unit, of_saves, get }
}

/// All of them.
pub const METRICS: &[Metric] = &[
    metric("blackout-p50", Unit::Time, false, |m| m.blackout.quantile(0.5)),
    metric("blackout-p90", Unit::Time, false, |m| m.blackout.quantile(0.9)),
    metric("blackout-p99", Unit::Time, false, |m| m.blackout.quantile(0.99)),
    metric("blackout-max", Unit::Time, false, |m| m.blackout.max()),
    metric("gap-p99", Unit::Time, false, |m| m.gap.quantile(0.99)),
    metric("gap-max", Unit::Time, false, |m| m.gap.max()),
    metric("moves-max", Unit::Count, false, |m| m.moves.max()),
    metric("reconnects-max", Unit::Count, false, |m| m.reconnects.max()),
    metric("closed", Unit::Count, false, |m| Some(m.closes.values().sum())),
    metric("handshakes-peak", Unit::Count, false, |m| Some(m.handshakes_peak)),
    metric("missed", Unit::Count, false, |m| Some(m.missed)),
    metric("backwards", Unit::Count, false, |m| Some(m.backwards)),
    metric("duplicates", Unit::Count, false, |m| Some(m.duplicates)),
    metric("age-max", Unit::Time, false, |m| Some(m.age_max)),
    metric("latency-p50", Unit::Time, true, |m| m.saves.as_ref()?.latency.quantile(0.5)),
    metric("latency-p99", Unit::Time, true, |m| m.saves.as_ref()?.latency.quantile(0.99)),
    metric("fresh", Unit::Time, true, |m| m.fresh),
    metric("lost", Unit::Count, true, |m| Some(m.saves.as_ref()?.lost)),
    metric("doubled", Unit::Count, true, |m| Some(m.saves.as_ref()?.doubled)),
    metric("failed", Unit::Count, true, |m| Some(m.saves.as_ref()?.failed)),
    metric("retried", Unit::Count, true, |m| Some(m.saves.as_ref()?.retried)),
    metric("failure-max", Unit::Time, true, |m| Some(m.saves.as_ref()?.slowest_failure)),
];

/// The names of all metrics.
fn names() -> String {
    METRICS.iter().map(|metric| metric.name).collect::<Vec<_>>().join(", ")
}

/// What must never happen, so that it is a budget also if nobody says so.
const NEVER: [&str; 6] = ["missed", "backwards", "duplicates", "lost", "doubled", "failed"];

/// The most that a metric may be: in every run, of one fault or of all.
#[derive(Debug, Clone)]
pub struct Budget {
    /// Of which fault; `None`: of each.
    pub fault: Option<String>,
    /// Of what.
    pub metric: &'static Metric,
    /// The limit, in the metric's unit.
    pub most: u64,
}

/// Why a budget cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BudgetError {
    /// No `=`.
    #[error("write a budget as METRIC=VALUE or FAULT:METRIC=VALUE, as in blackout-p99=0ms or sigkill:lost=0")]
    Form,
    /// No such metric.
    #[error("there is no metric {:?}; there are {}", .0, names())]
    Metric(String),
    /// A time without its unit, or the like.
    #[error("{value:?} is no {expected} for {metric}")]
    Value {
        /// Whose.
        metric: String,
        /// What stands there.
        value: String,
        /// What could stand there.
        expected: &'static str,
    },
}

impl FromStr for Budget {
    type Err = BudgetError;

    fn from_str(text: &str) -> Result<Self, BudgetError> {
        let (left, value) = text.split_once('=').ok_or(BudgetError::Form)?;
        let (fault, name) = left.split_once(':').map_or((None, left), |(fault, name)| (Some(fault.to_owned()), name));
        let metric =
            METRICS.iter().find(|metric| metric.name == name).ok_or_else(|| BudgetError::Metric(name.to_owned()))?;
        let most = match metric.unit {
            Unit::Time => humantime::parse_duration(value).ok().map(|time| time.as_millis() as u64),
            Unit::Count => value.parse().ok(),
        };
        let expected = match metric.unit {
            Unit::Time => "time like 0ms, 1s or 14s 500ms",
            Unit::Count => "number",
        };
        let wrong = || BudgetError::Value { metric: name.to_owned(), value: value.to_owned(), expected };
        Ok(Self { fault, metric, most: most.ok_or_else(wrong)? })
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(fault) = &self.fault {
            write!(f, "{fault}:")?;
        }
        write!(f, "{}={}", self.metric.name, self.metric.shown(self.most))
    }
}

impl Budget {
    /// The budgets that hold always.
    pub fn never() -> impl Iterator<Item = Self> {
        METRICS.iter().filter(|metric| NEVER.contains(&metric.name)).map(|metric| Self { fault: None, metric, most: 0 })
    }

    /// What is wrong with a run of this fault, if it is.
    pub fn broken(&self, fault: &str, measured: &Measurement) -> Option<String> {
        if self.fault.as_deref().is_some_and(|own| own != fault) {
            return None;
        }
        let metric = self.metric;
        let (found, most) = ((metric.get)(measured)?, self.most);
        (found > most).then(|| format!("{} {}, at most {}", metric.name, metric.shown(found), metric.shown(most)))
    }
}

impl Metric {
    /// The number with its unit.
    pub fn shown(&self, value: u64) -> String {
        match self.unit {
            Unit::Time => humantime::format_duration(Duration::from_millis(value)).to_string(),
            Unit::Count => value.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::measure::SavesMeasured;

    #[test]
    fn a_budget_is_read_and_written() {
        for text in ["blackout-p99=0s", "sigkill:blackout-max=2s", "lost=0", "freeze:blackout-p99=14s 500ms"] {
            assert_eq!(text.parse::<Budget>().unwrap().to_string(), text);
        }
        assert_eq!("blackout-p99=0ms".parse::<Budget>().unwrap().most, 0);
    }

    #[test]
    fn what_is_no_budget_is_refused_with_words() {
        for (text, part) in [
            ("blackout-p99", "METRIC=VALUE"),
            ("blackout=1s", "there are blackout-p50, "),
            ("blackout-p99=1", "time like 0ms"),
            ("lost=1s", "no number for lost"),
            ("lost=-1", "no number for lost"),
        ] {
            let error = text.parse::<Budget>().expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_budget_bounds_its_own_fault_only_and_its_limit_is_allowed() {
        let saves = Some(SavesMeasured { lost: 2, ..SavesMeasured::default() });
        let measured = Measurement { saves, ..Measurement::default() };
        let broken = |text: &str, fault| text.parse::<Budget>().unwrap().broken(fault, &measured);
        assert_eq!(broken("lost=1", "sigkill").as_deref(), Some("lost 2, at most 1"));
        assert_eq!(broken("lost=2", "sigkill"), None);
        assert_eq!(broken("sigterm:lost=1", "sigkill"), None);
        assert!(broken("sigkill:lost=1", "sigkill").is_some());
    }

    #[test]
    fn a_number_that_there_is_not_breaks_nothing() {
        let broken: Vec<_> = Budget::never().filter_map(|budget| budget.broken("x", &Measurement::default())).collect();
        assert_eq!(broken, [""; 0]);
    }
}
