//! What counting costs: time to read a count, insert throughput with and without the counter, and the same for a user's own table. Ratios within one run; `make bench`.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a bench that panics has said what it found")]

use std::time::{Duration, Instant};

use prometheus::Registry;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use store::{DatabaseUrl, OwnFeed, Reader, ReaderConfig, ReaderMetrics, TextWriter, WriterConfig, WriterMetrics};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

/// Long enough for thousands of commits, short enough for many runs in turn.
const RUN: Duration = Duration::from_secs(2);
/// Variants are measured in turn, so that the machine's drift hits all alike; medians are printed.
const ROUNDS: usize = 5;
const READS: usize = 200;
/// Tables of the same form: without a feed, with one, and with one that has a filter.
const OWN: [(Option<&str>, &str); 3] =
    [(None, "public.bare"), (None, "public.own"), (Some("body LIKE 'a %'"), "public.filtered")];

#[tokio::main]
async fn main() {
    let url = std::env::var("DATABASE_URL").expect("DATABASE_URL, as `make bench` sets it");
    let database = DatabaseUrl::parse(&url).unwrap();
    store::migrate(&database).await.unwrap();
    let mut admin = PgConnection::connect(&url).await.unwrap();
    for (_, table) in OWN {
        let create = format!(
            "CREATE TABLE IF NOT EXISTS {table} (seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id uuid NOT NULL UNIQUE,
               body text NOT NULL CHECK (char_length(body) BETWEEN 1 AND 10000), created_at timestamptz NOT NULL DEFAULT now())"
        );
        sqlx::query(AssertSqlSafe(create)).execute(&mut admin).await.unwrap();
    }

    reading(&database, &mut admin).await;
    inserting(&url, &database, &mut admin).await;
    own(&url, &database, &mut admin).await;
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn reading(database: &DatabaseUrl, admin: &mut PgConnection) {
    const ROWS: [i64; 2] = [1_000, 1_000_000];
    let (mut feed, mut scans) = ([vec![], vec![]], [vec![], vec![]]);
    for _ in 0..ROUNDS {
        for (size, rows) in ROWS.into_iter().enumerate() {
            sqlx::query("TRUNCATE tidemark.texts").execute(&mut *admin).await.unwrap();
            let fill =
                "INSERT INTO tidemark.texts (id, body) SELECT gen_random_uuid(), 'text' FROM generate_series(1, $1)";
            sqlx::query(fill).bind(rows).execute(&mut *admin).await.unwrap();
            // Done here, so that the server does not do it in the background while reads are measured.
            sqlx::query("VACUUM ANALYZE tidemark.texts").execute(&mut *admin).await.unwrap();
            sqlx::query("CHECKPOINT").execute(&mut *admin).await.unwrap();
            feed[size].push(through_reader(database, rows).await);
            for _ in 0..READS / 40 {
                let began = Instant::now();
                let n: i64 =
                    sqlx::query_scalar("SELECT count(*) FROM tidemark.texts").fetch_one(&mut *admin).await.unwrap();
                assert_eq!(n, rows);
                scans[size].push(began.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    // Where the scheduler puts the two processes makes a factor of three between rounds, whatever is read; the best round is without it.
    println!("\nTime to read a count (ms, median of {READS} reads, best of {ROUNDS} rounds in turn)");
    println!("{:>10} {:>12} {:>12}", "rows", "feed", "count(*)");
    let best = |rounds: Vec<f64>| rounds.into_iter().fold(f64::INFINITY, f64::min);
    let feed = feed.map(best);
    for (size, scan) in scans.map(best).into_iter().enumerate() {
        println!("{:>10} {:>12.3} {:>12.3}", ROWS[size], feed[size], scan);
    }
    println!("ratio of the feed's reads, 1e6 / 1e3 rows: {:.2} (target <= 1.2)", feed[1] / feed[0]);
    sqlx::query("TRUNCATE tidemark.texts").execute(admin).await.unwrap();
}

/// The service's own reader, asked again and again.
async fn through_reader(database: &DatabaseUrl, rows: i64) -> f64 {
    let (tracker, token) = (TaskTracker::new(), CancellationToken::new());
    let mut config = ReaderConfig::new(database.clone(), "bench");
    config.intervals.asked = Duration::ZERO;
    let reader = Reader::start(config, ReaderMetrics::register(&Registry::new()).unwrap(), &tracker, token.clone());
    while reader.reread().await.is_err() {}
    let mut times = Vec::new();
    for read in 0..2 * READS {
        let began = Instant::now();
        let reading = reader.reread().await.unwrap();
        // The first half warms up connection, plan and caches.
        if read >= READS {
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
        assert_eq!(reading.feeds.iter().find(|feed| feed.name == "texts").unwrap().fields[0].1, rows);
    }
    token.cancel();
    tracker.close();
    tracker.wait().await;
    median(times)
}

async fn inserting(url: &str, database: &DatabaseUrl, admin: &mut PgConnection) {
    println!(
        "\nInsert throughput, one row per transaction (rows/s, median of {ROUNDS} runs in turn; one reader listens)"
    );
    println!("{:>8} {:>10} {:>14} {:>8} {:>16}", "writers", "bare", "with counter", "ratio", "batching writer");
    let (tracker, token) = (TaskTracker::new(), CancellationToken::new());
    let registry = Registry::new();
    let _reader = Reader::start(
        ReaderConfig::new(database.clone(), "bench"),
        ReaderMetrics::register(&registry).unwrap(),
        &tracker,
        token.clone(),
    );
    let config = WriterConfig { database: database.clone(), application_name: "bench".into() };
    let writer = TextWriter::start(config, WriterMetrics::register(&registry).unwrap(), &tracker, token.clone());
    for writers in [1, 8, 32] {
        let (mut bare, mut counted, mut batched, mut ratios) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            bare.push(singly(url, "public.bare", writers).await);
            counted.push(singly(url, "tidemark.texts", writers).await);
            batched.push(through_writer(&writer, writers).await);
            ratios.push(counted[counted.len() - 1] / bare[bare.len() - 1]);
            sqlx::query("TRUNCATE public.bare, tidemark.texts").execute(&mut *admin).await.unwrap();
        }
        println!(
            "{writers:>8} {:>10.0} {:>14.0} {:>8.2} {:>16.0}",
            median(bare),
            median(counted),
            median(ratios),
            median(batched)
        );
    }
    println!("target of the ratio: >= 0.5 on a fast disk (this server runs without fsync)");
    token.cancel();
    tracker.close();
    tracker.wait().await;
}

/// Feeds of a user's own tables: how long adding one holds writers up, and what it costs them afterwards.
async fn own(url: &str, database: &DatabaseUrl, admin: &mut PgConnection) {
    const ROWS: u64 = 1_000_000;
    const COPY: usize = 100_000;
    println!("\nAdding a feed of a table of {ROWS} rows (ms, median of {ROUNDS})");
    for (filter, table) in &OWN[1..] {
        let fill = format!(
            "INSERT INTO {table} (id, body) SELECT gen_random_uuid(), 'a text of the usual length' FROM generate_series(1, {ROWS})"
        );
        sqlx::query(AssertSqlSafe(fill)).execute(&mut *admin).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("VACUUM ANALYZE {table}"))).execute(&mut *admin).await.unwrap();
        let name = table.trim_start_matches("public.");
        let feed = OwnFeed::new(name, table, *filter, store::Follow::Table).unwrap();
        let mut times = Vec::new();
        for round in 0..ROUNDS {
            let began = Instant::now();
            assert_eq!(store::add_own_feed(database, &feed).await.unwrap().count, ROWS);
            times.push(began.elapsed().as_secs_f64() * 1e3);
            if round + 1 < ROUNDS {
                store::remove_own_feed(database, name).await.unwrap();
            }
        }
        println!("{name:>10} {:>8.0}", median(times));
    }

    println!(
        "\nInserting into a table of the user's own (rows/s, median of {ROUNDS} runs in turn; one reader listens)"
    );
    println!("{:>10} {:>10} {:>10} {:>8} {:>12} {:>8}", "", "bare", "feed", "ratio", "with filter", "ratio");
    let (tracker, token) = (TaskTracker::new(), CancellationToken::new());
    let metrics = ReaderMetrics::register(&Registry::new()).unwrap();
    let _reader = Reader::start(ReaderConfig::new(database.clone(), "bench"), metrics, &tracker, token.clone());
    for writers in [Some(1), Some(8), Some(32), None] {
        let mut rates = [vec![], vec![], vec![]];
        for _ in 0..ROUNDS {
            for (rates, (_, table)) in rates.iter_mut().zip(OWN) {
                sqlx::query(AssertSqlSafe(format!("TRUNCATE {table}"))).execute(&mut *admin).await.unwrap();
                rates.push(match writers {
                    Some(writers) => singly(url, table, writers).await,
                    None => copied(admin, table, COPY).await,
                });
            }
        }
        let ratio = |with: &[f64]| median(with.iter().zip(&rates[0]).map(|(with, bare)| with / bare).collect());
        let ratios = [ratio(&rates[1]), ratio(&rates[2])];
        let [bare, feed, filtered] = rates.map(median);
        let what = writers.map_or("COPY".to_owned(), |writers| format!("{writers} writers"));
        println!("{what:>10} {bare:>10.0} {feed:>10.0} {:>8.2} {filtered:>12.0} {:>8.2}", ratios[0], ratios[1]);
    }
    token.cancel();
    tracker.close();
    tracker.wait().await;
}

/// Rows per second of one COPY.
async fn copied(admin: &mut PgConnection, table: &str, rows: usize) -> f64 {
    let lines: String = (0..rows).map(|_| format!("{}\ta text of the usual length\n", Uuid::new_v4())).collect();
    let began = Instant::now();
    let mut copy = admin.copy_in_raw(&format!("COPY {table} (id, body) FROM STDIN")).await.unwrap();
    copy.send(lines.into_bytes()).await.unwrap();
    assert_eq!(copy.finish().await.unwrap(), rows as u64);
    rows as f64 / began.elapsed().as_secs_f64()
}

async fn singly(url: &str, table: &str, writers: usize) -> f64 {
    let statement = format!("INSERT INTO {table} (id, body) VALUES (gen_random_uuid(), 'a text of the usual length')");
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            let (url, statement) = (url.to_owned(), statement.clone());
            tokio::spawn(async move {
                let mut connection = PgConnection::connect(&url).await.unwrap();
                let (began, mut rows) = (Instant::now(), 0_u64);
                while began.elapsed() < RUN {
                    sqlx::query(AssertSqlSafe(statement.as_str())).execute(&mut connection).await.unwrap();
                    rows += 1;
                }
                rows
            })
        })
        .collect();
    rate(tasks).await
}

async fn through_writer(writer: &TextWriter, writers: usize) -> f64 {
    let tasks: Vec<_> = (0..writers)
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
    rate(tasks).await
}

async fn rate(tasks: Vec<tokio::task::JoinHandle<u64>>) -> f64 {
    let mut rows = 0;
    for task in tasks {
        rows += task.await.unwrap();
    }
    rows as f64 / RUN.as_secs_f64()
}
