//! A table in Markdown, and the verdict in words.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};

use super::{Measurement, Report, Total};
use crate::drill::measure::{AT_ONCE_MS, Spread};

const HEADER: [&str; 14] = [
    "fault",
    "runs",
    "took",
    "blackout p50 / p90 / p99 / max",
    "longest gap",
    "moves (each)",
    "reconnects (each)",
    "close codes",
    "handshakes/s",
    "latency p50 / p99",
    "fresh after",
    "oldest value",
    "saves (retried)",
    "missed / lost / backwards / doubled / failed",
];

impl Report {
    /// For people, and for documents.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(ASCII_MARKDOWN).set_header(HEADER);
        let totals = self.totals();
        let overall = self.overall();
        let (all, quiet) = overall.as_ref().map_or((None, None), |[all, quiet]| (Some(all), Some(quiet)));
        // With one fault the last row would repeat it.
        let all = all.filter(|_| totals.len() > 1);
        for total in quiet.into_iter().chain(&totals).chain(all) {
            table.add_row(row(total));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let mut text = format!("{}\n\n{table}\n", self.words());
        for run in &self.runs {
            for broken in self.broken(run) {
                let _ = write!(text, "\nBROKEN  {} run {}: {broken}", run.fault, run.number);
            }
        }
        let budgets: Vec<_> = self.budgets.iter().map(ToString::to_string).collect();
        let verdict = if self.held() { "every budget held" } else { "not every budget held" };
        let _ = write!(text, "\n{verdict}: {}", budgets.join(", "));
        text
    }

    fn words(&self) -> String {
        let warm_up = self.runs.iter().map(|run| run.measured.warm_up).max().unwrap_or(0);
        let saves = match self.saves_per_second {
            0 => "nothing is saved; a blackout is the longest time without a connection that could deliver".to_owned(),
            rate => format!(
                "{rate} saves a second; a blackout is the longest time in which the newest acknowledged save was unseen, \
                 0 if that was never more than {AT_ONCE_MS} ms"
            ),
        };
        format!(
            "{} clients of {}, new ones for each run; {saves}. Warm-up: {warm_up} ms at most, not counted. \
             Gap: a time without a connection.",
            self.clients, self.url
        )
    }
}

fn row(total: &Total<'_>) -> [String; 14] {
    let Measurement { blackout, gap, moves, reconnects, closes, handshakes_peak, .. } = &total.measured;
    let measured = &total.measured;
    let saves = measured.saves.as_ref();
    let each = |spread: &Spread| format!("{} (<= {})", spread.sum(), spread.max().unwrap_or(0));
    let codes: Vec<_> = closes.iter().map(|(code, times)| format!("{code} x {times}")).collect();
    let quantiles = |spread: &Spread, shares: &[f64]| {
        let numbers = shares.iter().map(|share| shown(spread.quantile(*share)));
        numbers.collect::<Vec<_>>().join(" / ")
    };
    let count = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let never = [
        Some(measured.missed),
        saves.map(|saves| saves.lost),
        Some(measured.backwards + measured.duplicates),
        saves.map(|saves| saves.doubled),
        saves.map(|saves| saves.failed),
    ];
    [
        total.fault.to_owned(),
        total.runs.to_string(),
        format!("{:.1} s", measured.ms as f64 / 1e3 / total.runs as f64),
        format!("{} ms", quantiles(blackout, &[0.5, 0.9, 0.99, 1.0])),
        format!("{} ms", shown(gap.max())),
        each(moves),
        each(reconnects),
        if codes.is_empty() { "-".to_owned() } else { codes.join(", ") },
        handshakes_peak.to_string(),
        saves.map_or_else(|| "-".to_owned(), |saves| format!("{} ms", quantiles(&saves.latency, &[0.5, 0.99]))),
        measured.fresh.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms")),
        format!("{} ms", measured.age_max),
        saves.map_or_else(|| "-".to_owned(), |saves| format!("{} ({})", saves.stored, saves.retried)),
        never.map(count).join(" / "),
    ]
}

fn shown(ms: Option<u64>) -> String {
    ms.map_or_else(|| "-".to_owned(), |ms| ms.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;

    #[test]
    fn quiet_comes_first_then_each_fault_and_what_was_broken_is_said() {
        let text = report(&["blackout-p99=100ms"], &[("sigterm", 0), ("sigkill", 400)]).table();
        let rows: Vec<_> = text.lines().filter(|line| line.starts_with("| ")).map(|line| line[2..9].trim()).collect();
        assert_eq!(rows, ["fault", "quiet", "sigterm", "sigkill", "all"], "{text}");
        assert!(text.contains(" 0 / 400 / 400 / 400 ms |"), "{text}");
        assert!(text.contains("BROKEN  sigkill run 2: blackout-p99 400ms, at most 100ms"), "{text}");
        assert!(text.contains("20 saves a second") && text.contains("Warm-up: 900 ms"), "{text}");
        assert!(text.contains("not every budget held: blackout-p99=100ms"), "{text}");
    }
}
