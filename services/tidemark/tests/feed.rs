//! `tidemark feed` as a program: what it prints, and how it ends.
#![expect(clippy::unwrap_used, reason = "a test that panics has said what it found")]

mod common;

use std::fs;

use common::{LONG, Place};
use sqlx::{
    AssertSqlSafe, Executor, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use test_support::{ServerFiles, wait_until, with_database};
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
        {"name": "open", "table": "public.orders", "where": "status = 'open'", "owner": null, "follow": "table", "count": 3, "problem": null, "state": "ok"},
        {"name": "orders", "table": "public.orders", "where": null, "owner": null, "follow": "table", "count": 4, "problem": null, "state": "ok"},
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
    fs::write(shop.place.work.join("follow.json"), r#"[{"name":"a","table":"b.c","follow":"me"}]"#).unwrap();
    fs::write(shop.place.work.join("more.json"), r#"[{"name":"a","table":"b.c","filter":"x"}]"#).unwrap();
    for (code, arguments, words) in [
        (2, ["add", "Orders", "--table", "public.orders"], "cannot be the name of a feed"),
        (2, ["add", "orders", "--table", "orders"], "write it as in SQL with its schema"),
        (1, ["add", "orders", "--table", "public.none"], "there is no table public.none"),
        (1, ["add", "texts", "--table", "public.orders"], "the name texts is in use"),
        (2, ["sync", "--file", "missing.json", "--owner=me"], "failed to read the list missing.json: "),
        (
            2,
            ["sync", "--file", "object.json", "--owner=me"],
            "is no JSON array of {\"name\",\"table\",\"where\"?,\"follow\"?}: ",
        ),
        (2, ["sync", "--file", "more.json", "--owner=me"], "unknown field `filter`"),
        (2, ["sync", "--file", "twice.json", "--owner=me"], "the list has the name a twice"),
        (2, ["sync", "--file", "follow.json", "--owner=me"], "unknown variant `me`, expected `table` or `name`"),
        (2, ["sync", "--file", "-", "--owner=me"], "the list - is no JSON array"),
    ] {
        let (ended, out, err) = shop.feed(&arguments).await;
        assert_eq!((ended, out.as_str()), (Some(code), ""), "{arguments:?}: {err}");
        assert!(err.starts_with("error: ") && err.contains(words), "{arguments:?}: {err}");
    }
    shop.pool.execute("CREATE TABLE \"User\" ()").await.unwrap();
    let (ended, _, err) = shop.feed(&["add", "users", "--table", "public.User"]).await;
    let hint = "error: there is no table public.User in this database, but there is public.\"User\": a name without quotes is read in small letters";
    assert_eq!((ended, err.as_str()), (Some(1), hint));
    let (ended, _, err) = shop.feed(&["add", "users", "--table", "public.orders", "--follow", "me"]).await;
    assert!(ended == Some(2) && err.contains("it is neither `table` nor `name`"), "{err}");
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

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_feed_that_is_not_right_is_listed_with_the_reason_and_exit_code_1(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let shop = Shop::open(pool, options).await;
    shop.feed(&["add", "by-table", "--table", "public.orders"]).await;
    shop.feed(&["add", "by-name", "--table", "public.orders", "--follow", "name"]).await;
    shop.feed(&["add", "short", "--table", "public.orders", "--where", "10 / length(status) > 1"]).await;
    let list = r#"[{"name":"listed","table":"public.orders"},{"name":"listed-table","table":"public.orders","follow":"table"}]"#;
    shop.feed_with(&["sync", "--file", "-"], list).await;
    let (code, _, err) = shop.feed(&["list"]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));

    shop.pool.execute("INSERT INTO orders VALUES ('')").await.unwrap();
    shop.pool.execute("ALTER TABLE orders RENAME TO old; CREATE TABLE orders (status text)").await.unwrap();
    let (code, out, err) = shop.feed(&["list", "--json"]).await;
    assert_eq!((code, err.as_str()), (Some(1), "error: 3 of 5 feeds are not right"));
    let listed: serde_json::Value = serde_json::from_str(&out).unwrap();
    let listed: Vec<serde_json::Value> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|feed| serde_json::json!([feed["name"], feed["table"], feed["follow"], feed["problem"], feed["state"]]))
        .collect();
    let swapped = "another table has its name now";
    assert_eq!(
        serde_json::json!(listed),
        serde_json::json!([
            ["by-name", "public.old", "name", "swapped", swapped],
            ["by-table", "public.old", "table", null, "ok"],
            ["listed", "public.old", "name", "swapped", swapped],
            ["listed-table", "public.old", "table", null, "ok"],
            ["short", "public.old", "table", "filter_failed", "the filter failed on a row (SQLSTATE 22012)"],
        ])
    );
    let (code, out, err) = shop.feed(&["list"]).await;
    assert_eq!((code, err.as_str()), (Some(1), "error: 3 of 5 feeds are not right"));
    assert!(out.contains("the filter failed on a row (SQLSTATE 22012)") && out.contains(swapped), "{out}");

    // Those of a list are replaced by the list, the others by hand.
    let list = list.replace(r#","follow":"table""#, "");
    let synced = shop.feed_with(&["sync", "--file", "-"], &list).await;
    assert_eq!(synced, done("listed: replaced\nlisted-table: replaced"));
    for name in ["by-name", "short"] {
        shop.feed(&["remove", name]).await;
    }
    let (code, out, err) = shop.feed(&["list"]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
}

/// What `add` and `list` say on standard error.
async fn notes(shop: &Shop) -> [String; 2] {
    let (code, _, added) = shop.feed(&["add", "orders", "--table", "public.orders"]).await;
    assert_eq!(code, Some(0), "{added}");
    let (code, _, listed) = shop.feed(&["list"]).await;
    assert_eq!(code, Some(0), "{listed}");
    shop.feed(&["remove", "orders"]).await;
    [added, listed]
}

const TEMPORARY_FILES: &str = "note: temp_file_limit is set on this server: large statements on this table (UPDATE only with a filter) write their rows to \
    temporary files too from now on, and fail above the limit (docs/operations.md, \"What is not covered\")";

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_limit_of_temporary_files_is_said(pool: PgPoolOptions, options: PgConnectOptions) {
    let name = options.get_database().unwrap().to_owned();
    let shop = Shop::open(pool, options).await;
    let none = ["", ""].map(str::to_owned);
    assert_eq!(notes(&shop).await, none);
    for (limit, back) in [
        ("ALTER DATABASE \"NAME\" SET temp_file_limit = '1GB'", "ALTER DATABASE \"NAME\" RESET temp_file_limit"),
        (
            "ALTER ROLE CURRENT_USER IN DATABASE \"NAME\" SET temp_file_limit = 0",
            "ALTER ROLE CURRENT_USER IN DATABASE \"NAME\" RESET temp_file_limit",
        ),
    ] {
        shop.pool.execute(AssertSqlSafe(limit.replace("NAME", &name))).await.unwrap();
        assert_eq!(notes(&shop).await, [TEMPORARY_FILES.to_owned(), String::new()], "{limit}");
        shop.pool.execute(AssertSqlSafe(back.replace("NAME", &name))).await.unwrap();
        assert_eq!(notes(&shop).await, none, "{back}");
    }
    // That there is none is no limit.
    let unlimited = "ALTER DATABASE \"NAME\" SET temp_file_limit = -1";
    shop.pool.execute(AssertSqlSafe(unlimited.replace("NAME", &name))).await.unwrap();
    assert_eq!(notes(&shop).await, none);
}

/// Settings of the whole server, on one of this test's own.
#[tokio::test]
async fn settings_of_the_server_that_matter_are_said() {
    let files = ServerFiles::find().await.unwrap();
    let directory = files.root.join("data");
    files.initialise(&directory).await;
    let server = files.serve(&directory, &[("max_prepared_transactions", "5")]).await;
    let pool = server.pool();
    store::MIGRATOR.run(&pool).await.unwrap();
    pool.execute("CREATE TABLE orders (status text); CREATE ROLE writer").await.unwrap();
    let url = format!("postgres://postgres:{}@{}/postgres", files.password, server.addr);
    let shop = Shop { place: Place::new(), url, pool };
    let prepares = "note: transactions can be prepared on this server (max_prepared_transactions): changes of these tables are seen within 200 ms, not immediately";
    assert_eq!(shop.feed(&["list", "--json"]).await, done("[]"), "there is no feed that it matters to");
    assert_eq!(notes(&shop).await, ["", prepares].map(str::to_owned));
    for (limit, back) in [
        ("ALTER SYSTEM SET temp_file_limit = '1GB'", "ALTER SYSTEM RESET temp_file_limit"),
        ("ALTER ROLE ALL SET temp_file_limit = '1GB'", "ALTER ROLE ALL RESET temp_file_limit"),
        ("ALTER ROLE writer SET temp_file_limit = '1GB'", "ALTER ROLE writer RESET temp_file_limit"),
    ] {
        shop.pool.execute(limit).await.unwrap();
        shop.pool.execute("SELECT pg_reload_conf()").await.unwrap();
        // The server reads its file a moment later.
        wait_until(LONG, limit, async || notes(&shop).await == [TEMPORARY_FILES, prepares]).await;
        shop.pool.execute(back).await.unwrap();
        shop.pool.execute("SELECT pg_reload_conf()").await.unwrap();
        wait_until(LONG, back, async || notes(&shop).await == ["", prepares]).await;
    }
    shop.pool.close().await;
    server.stop().await;
}
