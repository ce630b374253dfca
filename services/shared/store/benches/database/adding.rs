//! For how long adding a feed holds up the table's writers.

use std::time::Instant;

use crate::{
    ROUNDS, load, median,
    test_bed::{FEEDS, TestBed, feed},
};

const ROWS: u64 = 1_000_000;

pub async fn feeds(bed: &mut TestBed) {
    println!("\nAdding a feed of a table of {ROWS} rows (ms, median of {ROUNDS}; {})", load());
    for (table, filter) in FEEDS {
        bed.execute(format!(
            "INSERT INTO {table} (id, body) SELECT gen_random_uuid(), 'a text of the usual length' FROM generate_series(1, {ROWS})"
        ))
        .await;
        bed.execute(format!("VACUUM ANALYZE {table}")).await;
        let feed = feed(table, filter);
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let began = Instant::now();
            assert_eq!(store::add_own_feed(&bed.database, &feed).await.unwrap().count, ROWS);
            times.push(began.elapsed().as_secs_f64() * 1e3);
            store::remove_own_feed(&bed.database, feed.name()).await.unwrap();
        }
        println!("{:>10} {:>8.0}", feed.name(), median(&times));
        bed.execute(format!("TRUNCATE {table}")).await;
    }
}
