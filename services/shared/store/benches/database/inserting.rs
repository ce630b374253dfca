//! Insert throughput of `pgbench` into tables with feeds, against a table of the same form without one.

use std::{
    iter::zip,
    time::{Duration, Instant},
};

use prometheus::Registry;
use store::{ReaderConfig, TextWriter, WriterConfig, WriterMetrics};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{
    ROUNDS, load, median,
    pgbench::{Isolation, Outcome, PgBench, Run},
    ratio,
    test_bed::{ALL_ROWS, BARE, FILTERED, ROW, RunningReader, TEXTS, TestBed},
};

/// Long enough for thousands of commits, short enough for many runs in turn.
const RUN: Duration = Duration::from_secs(2);
const CLIENTS: [usize; 3] = [1, 8, 32];
const TABLES: [&str; 4] = [BARE, TEXTS, ALL_ROWS, FILTERED];

pub async fn without_fsync(pgbench: &PgBench, bed: &mut TestBed) {
    for isolation in [Isolation::ReadCommitted, Isolation::Serializable] {
        table(pgbench, bed, isolation, Duration::ZERO).await;
    }
    println!("target of the ratios: >= 0.5 without fsync; refused: as many as without a feed, +- 0.1 %");
    batching(pgbench, bed).await;
}

pub async fn with_fsync(pgbench: &PgBench, bed: &mut TestBed) {
    for isolation in [Isolation::ReadCommitted, Isolation::Serializable] {
        table(pgbench, bed, isolation, Duration::ZERO).await;
    }
    println!("target of the ratios: >= 0.65 with fsync");
    table(pgbench, bed, Isolation::ReadCommitted, Duration::from_millis(1)).await;
    println!("target of the ratios: >= 0.85 where a flush takes 1 ms longer");
}

async fn table(pgbench: &PgBench, bed: &mut TestBed, isolation: Isolation, flush_delay: Duration) {
    let fsync: String = sqlx::query_scalar("SHOW fsync").fetch_one(&mut bed.admin).await.unwrap();
    println!(
        "\nInserting one row per transaction by pgbench, {}, fsync {fsync}, each flush {flush_delay:?} longer (rows/s, median of \
         {ROUNDS} runs of {RUN:?} in turn; one reader)",
        isolation.as_sql()
    );
    println!(
        "{:>8} {:>8} {:>9} {:>10} {:>6} {:>10} {:>6} {:>10} {:>6} {:>16}",
        "clients", "bare", "commit ms", "texts", "ratio", "all rows", "ratio", "filtered", "ratio", "refused %"
    );
    for clients in CLIENTS {
        let reader = RunningReader::start(ReaderConfig::new(bed.database.clone(), "bench"));
        let mut outcomes: [Vec<Outcome>; TABLES.len()] = Default::default();
        for _ in 0..ROUNDS {
            for (outcomes, table) in zip(&mut outcomes, TABLES) {
                let statement = format!("INSERT INTO {table} {ROW}");
                let run = Run { url: &bed.url, statement: &statement, clients, isolation, flush_delay, duration: RUN };
                outcomes.push(pgbench.run(run).await);
            }
            bed.truncate().await;
        }
        reader.stop().await;
        let refused = outcomes.each_ref().map(|outcomes| {
            let refused: u64 = outcomes.iter().map(|outcome| outcome.refused).sum();
            let committed: u64 = outcomes.iter().map(|outcome| outcome.committed).sum();
            format!("{:.1}", refused as f64 / (refused + committed) as f64 * 100.0)
        });
        let rates = outcomes.map(|outcomes| outcomes.iter().map(|outcome| outcome.rate).collect::<Vec<_>>());
        let [bare, texts, all_rows, filtered] = &rates;
        println!(
            "{clients:>8} {:>8.0} {:>9.2} {:>10.0} {:>6.2} {:>10.0} {:>6.2} {:>10.0} {:>6.2} {:>16} {}",
            median(bare),
            clients as f64 / median(bare) * 1e3,
            median(texts),
            ratio(texts, bare),
            median(all_rows),
            ratio(all_rows, bare),
            median(filtered),
            ratio(filtered, bare),
            refused.join(" "),
            load()
        );
    }
}

/// The `app`'s writer, called one row at a time by several callers.
async fn batching(pgbench: &PgBench, bed: &mut TestBed) {
    println!("\nThe app's batching writer, against one row per transaction by pgbench (rows/s, in turn)");
    println!("{:>8} {:>8} {:>10} {:>6}", "callers", "bare", "batching", "ratio");
    let (tracker, token) = (TaskTracker::new(), CancellationToken::new());
    let config = WriterConfig { database: bed.database.clone(), application_name: "bench".into() };
    let metrics = WriterMetrics::register(&Registry::new()).unwrap();
    let writer = TextWriter::start(config, metrics, &tracker, token.clone());
    let reader = RunningReader::start(ReaderConfig::new(bed.database.clone(), "bench"));
    let statement = format!("INSERT INTO {BARE} {ROW}");
    for clients in CLIENTS {
        let (mut bare, mut batched) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (isolation, flush_delay) = (Isolation::ReadCommitted, Duration::ZERO);
            let run = Run { url: &bed.url, statement: &statement, clients, isolation, flush_delay, duration: RUN };
            bare.push(pgbench.run(run).await.rate);
            batched.push(through_writer(&writer, clients).await);
            bed.truncate().await;
        }
        let (rate, batching_rate) = (median(&bare), median(&batched));
        println!("{clients:>8} {rate:>8.0} {batching_rate:>10.0} {:>6.2} {}", ratio(&batched, &bare), load());
    }
    reader.stop().await;
    token.cancel();
    tracker.close();
    tracker.wait().await;
}

async fn through_writer(writer: &TextWriter, callers: usize) -> f64 {
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let writer = writer.clone();
            tokio::spawn(async move {
                let (began, mut rows) = (Instant::now(), 0_u64);
                while began.elapsed() < RUN {
                    writer.save(Uuid::new_v4(), "a text of the usual length".into(), None).await.unwrap();
                    rows += 1;
                }
                rows
            })
        })
        .collect();
    let mut rows = 0;
    for task in tasks {
        rows += task.await.unwrap();
    }
    rows as f64 / RUN.as_secs_f64()
}
