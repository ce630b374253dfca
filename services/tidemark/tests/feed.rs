//! `tidemark feed` as a program: what it prints, and how it ends.
#![expect(clippy::unwrap_used, reason = "a test that panics has said what it found")]

mod common;

use std::fs;

use common::Place;
use sqlx::{
    Executor, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use test_support::with_database;
use tokio::io::AsyncWriteExt;

/// A place with a database that has three orders.
struct Shop {
    place: Place,
    url: String,
    pool: PgPool,
}

/// Exit code, standard output, standard error.
type Ended = (Option<i32>, String, String);

impl Shop {
    async fn open(pool: PgPoolOptions, options: PgConnectOptions) -> Self {
        let url = with_database(&std::env::var("DATABASE_URL").unwrap(), options.get_database().unwrap());
        let pool = pool.connect_lazy_with(options);
        pool.execute("CREATE TABLE orders (status text); INSERT INTO orders VALUES ('open'), ('open'), ('closed')")
            .await
            .unwrap();
        Self { place: Place::new(), url, pool }
    }

    async fn feed(&self, arguments: &[&str]) -> Ended {
        self.feed_with(arguments, "").await
    }

    async fn feed_with(&self, arguments: &[&str], input: &str) -> Ended {
        let mut run = self.place.start(&[&["feed"], arguments, &["--database-url", &self.url]].concat());
        run.input.as_mut().unwrap().write_all(input.as_bytes()).await.unwrap();
        let code = run.end().await;
        (code, run.out.text(), run.err.text())
    }
}

fn done(out: &str) -> Ended {
    (Some(0), out.to_owned(), String::new())
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_feed_is_added_listed_and_removed(pool: PgPoolOptions, options: PgConnectOptions) {
    let shop = Shop::open(pool, options).await;
    assert_eq!(shop.feed(&["list", "--json"]).await, done("[]"));
    assert_eq!(
        shop.feed(&["add", "orders", "--table", "public.orders"]).await,
        done("orders: added, 3 rows of public.orders")
    );
    let open = ["add", "open", "--table", "public.orders", "--where", "status = 'open'"];
    assert_eq!(shop.feed(&open).await, done("open: added, 2 rows of public.orders"));
    shop.pool.execute("INSERT INTO orders VALUES ('open')").await.unwrap();
    let (_, table, _) = shop.feed(&["list"]).await;
    let cells: Vec<Vec<&str>> =
        table.lines().map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect();
    assert_eq!(
        cells,
        [
            vec!["NAME", "TABLE", "WHERE", "OWNER", "COUNT", "STATE"],
            vec!["open", "public.orders", "status = 'open'", "3", "ok"],
            vec!["orders", "public.orders", "4", "ok"],
        ],
        "{table}"
    );
    let (_, json, _) = shop.feed(&["list", "--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let expected = serde_json::json!([
        {"name": "open", "table": "public.orders", "where": "status = 'open'", "owner": null, "count": 3, "state": "ok"},
        {"name": "orders", "table": "public.orders", "where": null, "owner": null, "count": 4, "state": "ok"},
    ]);
    assert_eq!(json, expected);
    for name in ["open", "orders"] {
        assert_eq!(shop.feed(&["remove", name]).await, done(&format!("{name}: removed")));
    }
    assert_eq!(shop.feed(&["list", "--json"]).await, done("[]"));
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn what_is_wrong_is_said_and_told_by_the_exit_code(pool: PgPoolOptions, options: PgConnectOptions) {
    let shop = Shop::open(pool, options).await;
    fs::write(shop.place.work.join("object.json"), "{}").unwrap();
    fs::write(shop.place.work.join("twice.json"), r#"[{"name":"a","table":"b.c"},{"name":"a","table":"b.d"}]"#)
        .unwrap();
    fs::write(shop.place.work.join("more.json"), r#"[{"name":"a","table":"b.c","filter":"x"}]"#).unwrap();
    for (code, arguments, words) in [
        (2, ["add", "Orders", "--table", "public.orders"], "cannot be the name of a feed"),
        (2, ["add", "orders", "--table", "orders"], "write it as in SQL with its schema"),
        (1, ["add", "orders", "--table", "public.none"], "there is no table public.none"),
        (1, ["add", "texts", "--table", "public.orders"], "the name texts is in use"),
        (2, ["sync", "--file", "missing.json", "--owner=me"], "failed to read the list missing.json: "),
        (2, ["sync", "--file", "object.json", "--owner=me"], "is no JSON array of {\"name\",\"table\",\"where\"?}: "),
        (2, ["sync", "--file", "more.json", "--owner=me"], "unknown field `filter`"),
        (2, ["sync", "--file", "twice.json", "--owner=me"], "the list has the name a twice"),
        (2, ["sync", "--file", "-", "--owner=me"], "the list - is no JSON array"),
    ] {
        let (ended, out, err) = shop.feed(&arguments).await;
        assert_eq!((ended, out.as_str()), (Some(code), ""), "{arguments:?}: {err}");
        assert!(err.starts_with("error: ") && err.contains(words), "{arguments:?}: {err}");
    }
    let (ended, _, err) = shop.feed(&["remove", "orders"]).await;
    assert_eq!(ended, Some(1));
    assert!(err.contains("there is no feed of your own called orders"), "{err}");

    for (arguments, code, words) in [
        (vec!["feed", "list"], 2, "DATABASE_URL: it is missing"),
        (vec!["feed", "list", "--database-url", "mysql://me:s3cret@db/x"], 2, "it must start with postgres://"),
        (vec!["feed", "list", "--database-url", "postgres://me:s3cret@127.0.0.1:1/x"], 1, "failed to connect"),
    ] {
        let mut run = shop.place.start(&arguments);
        assert_eq!(run.end().await, Some(code), "{}", run.err.text());
        assert!(run.err.text().contains(words) && !run.err.text().contains("s3cret"), "{}", run.err.text());
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_list_from_a_file_or_standard_input_is_brought_about(pool: PgPoolOptions, options: PgConnectOptions) {
    let shop = Shop::open(pool, options).await;
    let list = r#"[{"name":"orders","table":"public.orders"},{"name":"open","table":"public.orders","where":"status = 'open'"}]"#;
    fs::write(shop.place.work.join("feeds.json"), list).unwrap();
    assert_eq!(shop.feed(&["sync", "--file", "feeds.json"]).await, done("orders: added\nopen: added"));
    assert_eq!(shop.feed_with(&["sync", "--file", "-"], list).await, done("orders: as listed\nopen: as listed"));
    let changed = r#"[{"name":"open","table":"public.orders","where":"status <> 'open'"},{"name":"bad","table":"public.orders","where":"("},
        {"name":"all","table":"public.orders","where":null}]"#;
    let (code, out, err) = shop.feed_with(&["sync", "--file", "-"], changed).await;
    assert_eq!((code, out.as_str()), (Some(1), "orders: removed\nopen: replaced\nall: added"), "{err}");
    let lines: Vec<&str> = err.lines().collect();
    assert!(lines[0].starts_with("error: bad: the filter cannot be used: syntax error"), "{err}");
    assert_eq!(lines[1], "error: 1 of 3 feeds are not as they are listed");
    assert_eq!(shop.feed_with(&["sync", "--file", "-", "--owner", "another"], "[]").await, done(""));
    assert_eq!(shop.feed_with(&["sync", "--file", "-"], "[]").await, done("all: removed\nopen: removed"));
}
