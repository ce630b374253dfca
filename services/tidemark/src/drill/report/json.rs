//! Everything, for programs: every metric of every run under the name that budgets use.

use serde_json::{Map, Value, json};

use super::{Measurement, Protocol, Report, Total};
use crate::drill::{measure::AT_ONCE_MS, metric::METRICS};

impl Report {
    /// One JSON object.
    pub fn json(&self) -> String {
        let runs: Vec<Value> = self
            .runs
            .iter()
            .map(|run| {
                let measured = &run.measured;
                json!({
                    "fault": run.fault,
                    "run": run.number,
                    "warmUpMs": measured.warm_up,
                    "unsettledClients": measured.unsettled,
                    "quiet": numbers(&measured.quiet.1),
                    "during": numbers(&measured.during.1),
                    "broken": self.broken(run),
                })
            })
            .collect();
        let total = |total: &Total<'_>| (total.fault.to_owned(), numbers(&total.measured));
        let totals: Map<String, Value> =
            self.totals().iter().map(total).chain(self.overall().iter().flatten().map(total)).collect();
        let report = json!({
            "drill": env!("CARGO_PKG_VERSION"),
            "url": self.url,
            "protocol": match self.protocol {
                Protocol::Tidemark => "tidemark.v1",
                Protocol::Generic => "websocket",
            },
            "clients": self.clients,
            "savesPerSecond": self.saves_per_second,
            "seenAtOnceMs": AT_ONCE_MS,
            "budgets": self.budgets.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "held": self.held(),
            "totals": totals,
            "runs": runs,
        });
        format!("{report:#}")
    }
}

/// Times are milliseconds. A number that was not measured is null.
fn numbers(measured: &Measurement) -> Value {
    let mut numbers: Map<String, Value> =
        METRICS.iter().map(|metric| (metric.name.to_owned(), json!((metric.get)(measured)))).collect();
    let counts = json!({
        "ms": measured.ms,
        "moves": measured.moves.sum(),
        "reconnects": measured.reconnects.sum(),
        "handshakes": measured.handshakes,
        "closeCodes": measured.closes,
        "saves": measured.saves.as_ref().map(|saves| saves.stored),
        "failures": measured.saves.as_ref().map(|saves| &saves.failures),
    });
    if let Value::Object(counts) = counts {
        numbers.extend(counts);
    }
    Value::Object(numbers)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::tests::report;

    #[test]
    fn every_metric_of_every_run_is_there_under_the_name_of_its_budget() {
        let text = report(&["blackout-p99=100ms"], &[("sigkill", 400)]).json();
        let json: Value = serde_json::from_str(&text).unwrap();
        let run = &json["runs"][0];
        assert_eq!(
            (&json["held"], &run["during"]["blackout-p99"], &run["quiet"]["lost"]),
            (&false.into(), &400.into(), &0.into())
        );
        assert_eq!(run["broken"][0], "blackout-p99 400ms, at most 100ms");
        assert_eq!((&run["during"]["closeCodes"]["1006"], &run["during"]["fresh"]), (&1.into(), &Value::Null));
        assert_eq!(json["totals"]["all"]["blackout-max"], 400);
        assert!(json["totals"]["quiet"].is_object() && json["totals"]["sigkill"].is_object());
    }
}
