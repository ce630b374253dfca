//! What was found: printed line by line as it comes, and at the end as the tables of `docs/performance.md`.

use std::{future::Future, time::Instant};

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};

use crate::stage::{Kind, Measured};

/// Everything that was found.
#[derive(Debug, Default)]
pub struct Report {
    faults: Vec<Measured>,
    checks: usize,
    broken: usize,
}

impl Report {
    /// Runs one check, and tells what came of it. A check that fails does not end the run.
    pub async fn check(&mut self, name: &str, check: impl Future<Output = Result<String>>) {
        let began = Instant::now();
        let outcome = check.await;
        self.tell(name, began.elapsed().as_secs_f64(), outcome);
    }

    /// Takes a measured fault.
    pub fn fault(&mut self, measured: Measured) {
        let broken = measured.broken();
        let during = &measured.during;
        let outcome = if broken.is_empty() {
            Ok(format!(
                "late {} ms at most (quiet {} ms), gap {} ms",
                during.late_max, measured.quiet.late_max, during.gap
            ))
        } else {
            Err(anyhow::anyhow!("{}", broken.join("; ")))
        };
        self.tell(&measured.fault.name, measured.ms as f64 / 1e3, outcome);
        self.faults.push(measured);
    }

    /// Whether everything held.
    pub fn held(&self) -> bool {
        self.broken == 0
    }

    /// The last lines.
    pub fn summary(&self) -> String {
        format!("{} checks, {} broken", self.checks, self.broken)
    }

    /// The faults as a table in Markdown.
    pub fn table(&self) -> Option<String> {
        if self.faults.is_empty() {
            return None;
        }
        let mut table = Table::new();
        table.load_style(ASCII_MARKDOWN).set_header([
            "fault",
            "kind",
            "took",
            "clients interrupted",
            "longest gap",
            "late p50 / max",
            "quiet p50 / max",
            "moves / reconnects",
            "saves",
            "retried",
            "failed",
            "backwards",
            "doubled",
        ]);
        for Measured { fault, quiet, during, ms } in &self.faults {
            table.add_row([
                fault.name.clone(),
                match fault.kind {
                    Kind::Planned => "planned",
                    Kind::Hard => "hard",
                    Kind::Database => "database",
                }
                .to_owned(),
                format!("{:.1} s", *ms as f64 / 1e3),
                during.interrupted.to_string(),
                format!("{} ms", during.gap),
                format!("{} / {} ms", during.late_p50, during.late_max),
                format!("{} / {} ms", quiet.late_p50, quiet.late_max),
                format!("{} / {}", during.moves, during.reconnects),
                during.saves.to_string(),
                during.retried.to_string(),
                during.failed.to_string(),
                during.backwards.to_string(),
                during.doubled.to_string(),
            ]);
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        Some(table.to_string())
    }

    fn tell(&mut self, name: &str, seconds: f64, outcome: Result<String>) {
        self.checks += 1;
        match outcome {
            Ok(note) => println!("ok   {seconds:6.1} s  {name}{}{note}", if note.is_empty() { "" } else { ": " }),
            Err(error) => {
                self.broken += 1;
                println!("FAIL {seconds:6.1} s  {name}: {error:#}");
            }
        }
    }
}
