//! What counting costs: reading a count, inserting against a table without a feed, large statements, and old snapshots.
//! Ratios within one run.
//!
//! `make bench` runs all parts; an argument names one of them. `SNAPSHOT_SECONDS` is the length of each run of the part
//! `snapshots` (60).
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a bench that panics has said what it found")]

mod adding;
mod inserting;
mod pgbench;
mod reading;
mod snapshots;
mod statements;
mod test_bed;

use std::fs;

use test_bed::TestBed;
use test_support::ServerFiles;

/// Variants are measured in turn, so that the machine's drift affects all of them; medians are printed.
const ROUNDS: usize = 5;

const PARTS: [&str; 5] = ["reading", "adding", "inserting", "statements", "snapshots"];

#[tokio::main]
async fn main() {
    // Cargo adds `--bench`.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if let Some(unknown) = wanted.iter().find(|part| !PARTS.contains(&part.as_str())) {
        panic!("no part is called {unknown}: {PARTS:?}");
    }
    let runs = |part: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == part);
    let url = std::env::var("DATABASE_URL").expect("DATABASE_URL, as `make bench` sets it");
    let mut bed = TestBed::prepare(url).await;

    if runs("reading") {
        reading::counts(&mut bed).await;
        reading::deltas(&mut bed).await;
    }
    if runs("adding") {
        adding::feeds(&mut bed).await;
    }
    bed.add_feeds().await;
    if runs("statements") {
        statements::in_one_transaction(&mut bed).await;
        statements::large(&mut bed).await;
    }
    let pgbench = pgbench::PgBench::find(&mut bed).await;
    match &pgbench {
        Some(pgbench) if runs("inserting") => inserting::without_fsync(pgbench, &mut bed).await,
        None if runs("inserting") || runs("snapshots") => {
            println!(
                "\nInserting, and old snapshots: NOT RUN, because there is no pgbench. Debian: apt-get install postgresql-contrib"
            );
        }
        _ => {}
    }
    let Some(pgbench) = pgbench else { return };
    // Settings that need a server of the bench's own.
    let files = ServerFiles::find().await.unwrap();
    let directory = files.root.join("data");
    files.initialise(&directory).await;
    if runs("inserting") {
        let server = files.serve(&directory, &[("fsync", "on"), ("wal_keep_size", "0")]).await;
        let mut durable = TestBed::of(&files, &server).await;
        durable.add_feeds().await;
        inserting::with_fsync(&pgbench, &mut durable).await;
        durable.close().await;
        server.stop().await;
    }
    if runs("snapshots") {
        let settings = [("max_prepared_transactions", "4"), ("wal_keep_size", "0")];
        let server = files.serve(&directory, &settings).await;
        let mut prepared = TestBed::of(&files, &server).await;
        snapshots::all(&pgbench, &mut prepared).await;
        prepared.close().await;
        server.stop().await;
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The median of the quotients of values that were measured in turn.
fn ratio(with: &[f64], without: &[f64]) -> f64 {
    let quotients: Vec<f64> = with.iter().zip(without).map(|(with, without)| with / without).collect();
    median(&quotients)
}

/// Load averages of the machine. Above the number of its cores, other work was going on.
fn load() -> String {
    let averages = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    averages.split_whitespace().next().map_or_else(|| "load unknown".into(), |minute| format!("load {minute}"))
}
