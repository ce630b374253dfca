//! Time to read all feeds: with few and many rows counted, and with deltas that no reader has folded, or that are deleted but
//! not vacuumed.

use std::time::{Duration, Instant};

use sqlx::{Connection, Executor, PgConnection};
use store::ReaderConfig;

use crate::{
    ROUNDS, load, median,
    test_bed::{RunningReader, TEXTS, TestBed},
};

const READS: usize = 200;

pub async fn counts(bed: &mut TestBed) {
    const ROWS: [i64; 2] = [1_000, 1_000_000];
    let (mut feed, mut scans) = ([vec![], vec![]], [vec![], vec![]]);
    for _ in 0..ROUNDS {
        for (size, rows) in ROWS.into_iter().enumerate() {
            bed.execute(format!("TRUNCATE {TEXTS}")).await;
            bed.execute(format!(
                "INSERT INTO {TEXTS} (id, body) SELECT gen_random_uuid(), 'text' FROM generate_series(1, {rows})"
            ))
            .await;
            // Done here, so that the server does not do it in the background while reads are measured.
            bed.execute(format!("VACUUM ANALYZE {TEXTS}")).await;
            bed.execute("CHECKPOINT".into()).await;
            feed[size].push(through_reader(bed, rows).await);
            for _ in 0..READS / 40 {
                let began = Instant::now();
                let count = sqlx::query_scalar("SELECT count(*) FROM tidemark.texts");
                let n: i64 = count.fetch_one(&mut bed.admin).await.unwrap();
                assert_eq!(n, rows);
                scans[size].push(began.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    // Where the scheduler puts the two processes makes a factor of three between rounds, whatever is read; the best round is without it.
    println!("\nTime to read a count (ms, median of {READS} reads, best of {ROUNDS} rounds in turn; {})", load());
    println!("{:>10} {:>12} {:>12}", "rows", "all feeds", "count(*)");
    let best = |rounds: Vec<f64>| rounds.into_iter().fold(f64::INFINITY, f64::min);
    let feed = feed.map(best);
    for (size, scan) in scans.map(best).into_iter().enumerate() {
        println!("{:>10} {:>12.3} {:>12.3}", ROWS[size], feed[size], scan);
    }
    println!("ratio of the feed's reads, 1e6 / 1e3 rows: {:.2} (target <= 1.2)", feed[1] / feed[0]);
    bed.execute(format!("TRUNCATE {TEXTS}")).await;
}

/// The service's own reader, asked again and again.
async fn through_reader(bed: &TestBed, rows: i64) -> f64 {
    let mut config = ReaderConfig::new(bed.database.clone(), "bench");
    config.intervals.asked = Duration::ZERO;
    let running = RunningReader::start(config);
    while running.reader.reread().await.is_err() {}
    let mut times = Vec::new();
    for read in 0..2 * READS {
        let began = Instant::now();
        let reading = running.reader.reread().await.unwrap();
        // The first half warms up connection, plan and caches.
        if read >= READS {
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
        assert_eq!(reading.feeds.iter().find(|feed| feed.name == "texts").unwrap().fields[0].1, rows);
    }
    running.stop().await;
    median(&times)
}

/// No reader runs, so that nothing is folded meanwhile.
pub async fn deltas(bed: &mut TestBed) {
    println!("\nTime to read all feeds with deltas (ms; {})", load());
    println!("{:>44} {:>10} {:>10}", "", "read", "fold");
    bed.execute("ALTER TABLE tidemark.deltas SET (autovacuum_enabled = false)".into()).await;
    for deltas in [0, 1_000, 100_000] {
        bed.fold().await;
        bed.execute("VACUUM tidemark.deltas, tidemark.bases".into()).await;
        write_deltas(bed, deltas).await;
        let read = read(&mut bed.admin, if deltas > 10_000 { 5 } else { READS }).await;
        let began = Instant::now();
        bed.fold().await;
        println!("{:>44} {read:>10.3} {:>10.1}", format!("{deltas} deltas"), began.elapsed().as_secs_f64() * 1e3);
    }
    bed.execute("VACUUM tidemark.deltas, tidemark.bases".into()).await;
    let base = read(&mut bed.admin, READS).await;
    let mut holder = bed.connect().await;
    let mut transaction = holder.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    transaction.execute("SELECT count(*) FROM tidemark.bases").await.unwrap();
    for _ in 0..3 {
        write_deltas(bed, 100_000).await;
        bed.fold().await;
    }
    bed.execute("VACUUM tidemark.deltas, tidemark.bases".into()).await;
    let dead = sqlx::query_scalar("SELECT pg_stat_get_dead_tuples('tidemark.deltas'::regclass)");
    let dead: i64 = dead.fetch_one(&mut bed.admin).await.unwrap();
    let held = read(&mut bed.admin, READS).await;
    println!("{:>44} {held:>10.3}", format!("an old snapshot, {dead} dead deltas"));
    println!("ratio to a vacuumed table: {:.2} (target <= 2)", held / base);
    transaction.rollback().await.unwrap();

    let mut transaction = holder.begin().await.unwrap();
    transaction
        .execute(
            "DO $$ BEGIN FOR i IN 1..100000 LOOP INSERT INTO tidemark.texts (body) VALUES ('a text'); END LOOP; END $$",
        )
        .await
        .unwrap();
    let open = read(&mut bed.admin, 20).await;
    println!("{:>44} {open:>10.3}", "an open transaction with 100000 statements");
    transaction.rollback().await.unwrap();
    bed.execute("ALTER TABLE tidemark.deltas RESET (autovacuum_enabled)".into()).await;
    bed.execute("VACUUM tidemark.deltas, tidemark.bases".into()).await;
}

/// Each in a transaction of its own.
async fn write_deltas(bed: &mut TestBed, deltas: u32) {
    bed.execute(format!(
        "DO $$ BEGIN FOR i IN 1..{deltas} LOOP PERFORM tidemark.count_change('texts', 1, 1); COMMIT; END LOOP; END $$"
    ))
    .await;
}

/// The median time of a reader's query.
pub async fn read(connection: &mut PgConnection, reads: usize) -> f64 {
    let mut times = Vec::new();
    for _ in 0..reads {
        let began = Instant::now();
        sqlx::raw_sql("SELECT * FROM tidemark.read_feeds(false)").fetch_all(&mut *connection).await.unwrap();
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    median(&times)
}
