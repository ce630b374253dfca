//! Inserting and reading while a transaction is open for long, so that vacuum removes nothing: does either become slower?

use std::{
    env,
    time::{Duration, Instant},
};

use sqlx::{Connection, Executor, PgConnection};
use store::ReaderConfig;

use crate::{
    load, median,
    pgbench::{Isolation, PgBench, Run},
    reading,
    test_bed::{BARE, ROW, RunningReader, TEXTS, TestBed},
};

const CLIENTS: usize = 8;
const READS: usize = 100;
/// How long each window inserts into the counted table, and into the bare one.
const COUNTED: Duration = Duration::from_secs(8);
const UNCOUNTED: Duration = Duration::from_secs(2);

/// What is open meanwhile.
#[derive(Debug, Clone, Copy)]
enum Holder {
    Nothing,
    /// A transaction with a snapshot from before.
    Snapshot,
    /// A transaction that has inserted a counted row.
    Writer,
    /// The same, prepared.
    Prepared,
}

impl Holder {
    const ALL: [Self; 4] = [Self::Nothing, Self::Snapshot, Self::Writer, Self::Prepared];

    fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Snapshot => "an old snapshot",
            Self::Writer => "a transaction that has written",
            Self::Prepared => "a prepared transaction",
        }
    }

    async fn open(self, connection: &mut PgConnection) {
        let insert = "INSERT INTO tidemark.texts (body) VALUES ('of a long transaction')";
        let statements: &[&'static str] = match self {
            Self::Nothing => &[],
            Self::Snapshot => &["BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM tidemark.bases"],
            Self::Writer => &["BEGIN", insert],
            Self::Prepared => &["BEGIN", "SET LOCAL max_parallel_workers = 0", insert, "PREPARE TRANSACTION 'bench'"],
        };
        for statement in statements {
            connection.execute(*statement).await.unwrap();
        }
    }

    async fn close(self, mut connection: PgConnection) {
        if matches!(self, Self::Prepared) {
            connection.execute("ROLLBACK PREPARED 'bench'").await.unwrap();
        }
        connection.close().await.unwrap();
    }
}

/// One stretch of time.
struct Window {
    /// Rows/s against those of the bare table.
    ratio: f64,
    rate: f64,
    /// ms, while nothing is written, all deltas folded.
    read: f64,
}

pub async fn all(pgbench: &PgBench, bed: &mut TestBed) {
    let seconds = env::var("SNAPSHOT_SECONDS").map_or(60, |seconds| seconds.parse().unwrap());
    println!(
        "\n{CLIENTS} writers for {seconds} s, one reader, while a transaction is open (rows/s with the counter, ratio to the bare \
         table in turn, ms to read all feeds; medians of the first and the last windows of {:?})",
        COUNTED + UNCOUNTED
    );
    println!(
        "{:>32} {:>9} {:>8} {:>8} {:>7} {:>8} {:>8} {:>7} {:>8} {:>8} {:>7}",
        "open", "deltas", "rows/s", "last", "change", "ratio", "last", "change", "read ms", "last", "change"
    );
    for holder in Holder::ALL {
        run(pgbench, bed, holder, Duration::from_secs(seconds)).await;
    }
    println!("targets: rows/s and ratio >= 0.9 of the first, reads <= 2 times the first");
}

async fn run(pgbench: &PgBench, bed: &mut TestBed, holder: Holder, duration: Duration) {
    bed.truncate().await;
    bed.fold().await;
    bed.execute("VACUUM tidemark.deltas, tidemark.bases".into()).await;
    let mut connection = bed.connect().await;
    holder.open(&mut connection).await;
    let reader = RunningReader::start(ReaderConfig::new(bed.database.clone(), "bench"));
    let (mut windows, mut deltas) = (Vec::new(), 0);
    let began = Instant::now();
    while began.elapsed() < duration {
        let bare = insert(pgbench, bed, BARE, UNCOUNTED).await;
        let counted = insert(pgbench, bed, TEXTS, COUNTED).await;
        deltas += counted.committed;
        bed.fold().await;
        let read = reading::read(&mut bed.admin, READS).await;
        windows.push(Window { ratio: counted.rate / bare.rate, rate: counted.rate, read });
    }
    reader.stop().await;
    holder.close(connection).await;
    // A tenth of them, or two of a short run.
    let several = (windows.len() / 10).max(2).min(windows.len());
    let (first, last) = (&windows[..several], &windows[windows.len() - several..]);
    let compare = |value: fn(&Window) -> f64, decimals: usize| {
        let [first, last] = [first, last].map(|windows| median(&windows.iter().map(value).collect::<Vec<_>>()));
        format!("{first:>8.decimals$} {last:>8.decimals$} {:>7.2}", last / first)
    };
    println!(
        "{:>32} {deltas:>9} {} {} {} {}",
        holder.as_str(),
        compare(|window| window.rate, 0),
        compare(|window| window.ratio, 2),
        compare(|window| window.read, 3),
        load()
    );
}

async fn insert(pgbench: &PgBench, bed: &TestBed, table: &str, duration: Duration) -> crate::pgbench::Outcome {
    let statement = format!("INSERT INTO {table} {ROW}");
    let (isolation, flush_delay) = (Isolation::ReadCommitted, Duration::ZERO);
    pgbench.run(Run { url: &bed.url, statement: &statement, clients: CLIENTS, isolation, flush_delay, duration }).await
}
