//! What was found, printed line by line as it comes.

use std::{future::Future, time::Instant};

use anyhow::Result;

/// Everything that was found.
#[derive(Debug, Default)]
pub struct Report {
    checks: usize,
    broken: usize,
}

impl Report {
    /// Runs one check, and tells what came of it. A check that fails does not end the run.
    pub async fn check(&mut self, name: &str, check: impl Future<Output = Result<String>>) {
        let began = Instant::now();
        let outcome = check.await;
        let seconds = began.elapsed().as_secs_f64();
        self.checks += 1;
        match outcome {
            Ok(note) => println!("ok   {seconds:6.1} s  {name}{}{note}", if note.is_empty() { "" } else { ": " }),
            Err(error) => {
                self.broken += 1;
                println!("FAIL {seconds:6.1} s  {name}: {error:#}");
            }
        }
    }

    /// Whether everything held.
    pub fn held(&self) -> bool {
        self.broken == 0
    }

    /// The last lines.
    pub fn summary(&self) -> String {
        format!("{} checks, {} broken", self.checks, self.broken)
    }
}
