//! Many statements in one transaction, and statements that change many rows.

use std::{
    iter::zip,
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::time::sleep;
use uuid::Uuid;

use crate::{
    load, median, ratio,
    test_bed::{ALL_ROWS, BARE, FILTERED, ROW, TEXTS, TestBed},
};

const ROUNDS: usize = 3;

/// Each statement costs as much as the one before it, or the time is not linear.
pub async fn in_one_transaction(bed: &mut TestBed) {
    const TABLES: [&str; 4] = [BARE, TEXTS, ALL_ROWS, FILTERED];
    println!("\nINSERTs in one transaction (us per statement, median of {ROUNDS} in turn, ratio to the bare table)");
    println!(
        "{:>20} {:>8} {:>8} {:>6} {:>9} {:>6} {:>9} {:>6}",
        "", "bare", "texts", "ratio", "all rows", "ratio", "filtered", "ratio"
    );
    for (sender, statements) in [("client", 40_000), ("loop in the server", 40_000), ("loop in the server", 400_000)] {
        let mut times: [Vec<f64>; TABLES.len()] = Default::default();
        for _ in 0..ROUNDS {
            for (times, table) in zip(&mut times, TABLES) {
                let mut connection = bed.connect().await;
                let insert = format!("INSERT INTO {table} {ROW}");
                let began = Instant::now();
                let mut transaction = connection.begin().await.unwrap();
                if sender == "client" {
                    for _ in 0..statements {
                        let insert = sqlx::query(AssertSqlSafe(insert.as_str()));
                        insert.execute(&mut *transaction).await.unwrap();
                    }
                } else {
                    let all = format!("DO $$ BEGIN FOR i IN 1..{statements} LOOP {insert}; END LOOP; END $$");
                    transaction.execute(AssertSqlSafe(all)).await.unwrap();
                }
                transaction.commit().await.unwrap();
                times.push(began.elapsed().as_secs_f64() * 1e6 / f64::from(statements));
                connection.close().await.unwrap();
            }
            bed.truncate().await;
            bed.fold().await;
        }
        let [bare, texts, all_rows, filtered] = &times;
        println!(
            "{:>20} {:>8.1} {:>8.1} {:>6.2} {:>9.1} {:>6.2} {:>9.1} {:>6.2} {}",
            format!("{sender} {statements}"),
            median(bare),
            median(texts),
            ratio(texts, bare),
            median(all_rows),
            ratio(all_rows, bare),
            median(filtered),
            ratio(filtered, bare),
            load()
        );
    }
    println!("target of the ratios: <= 3, and 400,000 cost as much each as 40,000");
}

/// A trigger with a transition table makes the server keep the changed rows: in memory up to `work_mem`, then in temporary
/// files.
pub async fn large(bed: &mut TestBed) {
    const ROWS: u32 = 1_000_000;
    const TABLES: [&str; 3] = [BARE, ALL_ROWS, FILTERED];
    const STATEMENTS: [&str; 3] = ["COPY", "UPDATE", "DELETE"];
    let text = "a text of a hundred and fifty characters ".repeat(4);
    let lines: String = (0..ROWS).map(|_| format!("{}\t{}\n", Uuid::new_v4(), &text[..150])).collect();
    println!(
        "\nStatements that change {ROWS} rows, {} MB as text (s, median of {ROUNDS} in turn; temporary files, MB; {})",
        lines.len() / 1_000_000,
        load()
    );
    println!(
        "{:>8} {:>8} {:>10} {:>6} {:>6} {:>10} {:>6} {:>6}",
        "", "bare", "all rows", "ratio", "files", "filtered", "ratio", "files"
    );
    let mut times: [[Vec<f64>; TABLES.len()]; STATEMENTS.len()] = Default::default();
    let mut files: [[u64; TABLES.len()]; STATEMENTS.len()] = Default::default();
    for _ in 0..ROUNDS {
        for (column, table) in TABLES.into_iter().enumerate() {
            for (line, statement) in STATEMENTS.into_iter().enumerate() {
                let before = temporary_bytes(bed).await;
                let mut connection = bed.connect().await;
                let began = Instant::now();
                match statement {
                    "COPY" => copy(&mut connection, table, &lines).await,
                    "UPDATE" => change(&mut connection, format!("UPDATE {table} SET created_at = now()")).await,
                    _ => change(&mut connection, format!("DELETE FROM {table}")).await,
                }
                times[line][column].push(began.elapsed().as_secs_f64());
                // What a session wrote is in the statistics when it has ended.
                connection.close().await.unwrap();
                sleep(Duration::from_millis(200)).await;
                files[line][column] = temporary_bytes(bed).await - before;
            }
        }
        bed.truncate().await;
        bed.execute("CHECKPOINT".into()).await;
    }
    for (line, statement) in STATEMENTS.into_iter().enumerate() {
        let [bare, all_rows, filtered] = &times[line];
        assert_eq!(files[line][0], 0, "the bare table needs no temporary files");
        println!(
            "{statement:>8} {:>8.2} {:>10.2} {:>6.2} {:>6} {:>10.2} {:>6.2} {:>6}",
            median(bare),
            median(all_rows),
            ratio(all_rows, bare),
            files[line][1] / 1_000_000,
            median(filtered),
            ratio(filtered, bare),
            files[line][2] / 1_000_000
        );
    }
}

async fn copy(connection: &mut PgConnection, table: &str, lines: &str) {
    let mut copy = connection.copy_in_raw(&format!("COPY {table} (id, body) FROM STDIN")).await.unwrap();
    copy.send(lines.as_bytes()).await.unwrap();
    copy.finish().await.unwrap();
}

async fn change(connection: &mut PgConnection, statement: String) {
    connection.execute(AssertSqlSafe(statement)).await.unwrap();
}

async fn temporary_bytes(bed: &mut TestBed) -> u64 {
    let bytes = "SELECT temp_bytes FROM pg_stat_database WHERE datname = current_database()";
    let bytes: i64 = sqlx::query_scalar(bytes).fetch_one(&mut bed.admin).await.unwrap();
    bytes.unsigned_abs()
}
