//! What the programs print when the database refuses: the server's message once in a line, and no position in the server's
//! source code. Needs the programs of the services beside `tidemark`: `make services`.
#![expect(clippy::unwrap_used, reason = "a test that panics has said what it found")]

mod common;

use std::path::{Path, PathBuf};

use common::{LONG, Place, demo, request};
use futures_util::future::join_all;
use sqlx::{
    AssertSqlSafe, Executor, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use test_support::{Program, command, wait_for, with_database};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    time::timeout,
};

/// A database that refuses, and a part of the reason.
struct Refusal {
    url: String,
    message: &'static str,
    /// Lines with the message that each program prints at least: `app`, `app migrate`, `dashboard`, `metric-generator`.
    least: [usize; 4],
}

/// An account without any right.
struct Account {
    name: String,
    url: String,
}

impl Account {
    async fn create(pool: &PgPool, url: &str) -> Self {
        let database = pool.connect_options().get_database().unwrap().to_ascii_lowercase();
        let name = format!("nobody{}", &database[database.len() - 20..]);
        let create = format!("CREATE ROLE \"{name}\" LOGIN PASSWORD 'secret'");
        pool.execute(AssertSqlSafe(create)).await.unwrap();
        let url = as_account(url, &format!("{name}:secret"));
        Self { name, url }
    }

    async fn drop(self, pool: &PgPool) {
        pool.execute(AssertSqlSafe(format!("DROP ROLE \"{}\"", self.name))).await.unwrap();
    }
}

/// The address of a test's own database.
fn own(options: &PgConnectOptions) -> String {
    with_database(&std::env::var("DATABASE_URL").unwrap(), options.get_database().unwrap())
}

/// The same address with other credentials.
fn as_account(url: &str, credentials: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    format!("{scheme}://{credentials}@{}", rest.rsplit_once('@').unwrap().1)
}

fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_tidemark")).with_file_name(name)
}

#[track_caller]
fn assert_plain(line: &str, message: &str) {
    assert_eq!(line.matches(message).count(), 1, "{message:?} once: {line}");
    let of_source_code =
        line.match_indices(".c:").any(|(at, _)| line[at + 3..].starts_with(|c: char| c.is_ascii_digit()));
    assert!(!of_source_code && !line.contains(" at line "), "a position in the server's source code: {line}");
    assert!(!line.contains("error returned from database"), "the driver's words: {line}");
}

/// Starts a program, and reads its log until `least` lines have the message.
async fn lines(
    name: &str,
    arguments: &[&str],
    environment: &[(&str, &str)],
    message: &str,
    least: usize,
) -> Vec<String> {
    let mut child = command(&program(name), environment).args(arguments).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut lines: Vec<String> = Vec::new();
    // On a busy machine the first attempt may take too long; then that is what is logged, once.
    let is_meant = |line: &String| line.contains(message) || line.contains("failed to connect to the database within");
    let reading = async {
        while lines.iter().filter(|line| is_meant(line)).count() < least {
            let Some(line) = log.next_line().await.unwrap() else { break };
            lines.push(line);
        }
    };
    let read = timeout(LONG, reading).await;
    lines.retain(is_meant);
    assert!(read.is_ok() && lines.len() >= least, "{name} {arguments:?} {environment:?}: {lines:#?}");
    lines.retain(|line| line.contains(message));
    lines
}

#[sqlx::test(migrations = false)]
async fn the_services_log_each_refusal_once(pool: PgPoolOptions, options: PgConnectOptions) {
    let place = demo::place();
    let page = place.work.join("page");
    let url = own(&options);
    let pool = pool.connect_lazy_with(options);
    let nobody = Account::create(&pool, &url).await;
    let refusals = [
        Refusal { url: with_database(&url, "nosuchdatabase"), message: "does not exist", least: [1, 1, 3, 2] },
        Refusal { url: as_account(&url, "nobody-knows-me:s3cret"), message: "nobody-knows-me", least: [1, 1, 3, 2] },
        Refusal { url: "postgres://me:s3cret@127.0.0.1:1/db".into(), message: "refused", least: [1, 1, 2, 2] },
        Refusal { url: nobody.url.clone(), message: "permission denied", least: [1, 1, 0, 0] },
    ];
    for Refusal { url, message, least } in &refusals {
        for format in ["text", "json"] {
            let environment =
                [("DATABASE_URL", url.as_str()), ("PAGE_DIR", page.to_str().unwrap()), ("LOG_FORMAT", format)];
            let programs: [(&str, &[&str]); 4] =
                [("app", &[]), ("app", &["migrate"]), ("dashboard", &[]), ("metric-generator", &[])];
            let running = programs.iter().zip(least);
            let running =
                running.map(|((name, arguments), least)| lines(name, arguments, &environment, message, *least));
            for line in join_all(running).await.concat() {
                assert_plain(&line, message);
            }
        }
    }
    nobody.drop(&pool).await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_statement_that_is_refused_is_logged_once(pool: PgPoolOptions, options: PgConnectOptions) {
    const MESSAGE: &str = "permission denied";
    let place = demo::place();
    let url = own(&options);
    let pool = pool.connect_lazy_with(options);
    let nobody = Account::create(&pool, &url).await;
    let page = place.work.join("page");
    let environment =
        [("DATABASE_URL", nobody.url.as_str()), ("PAGE_DIR", page.to_str().unwrap()), ("MIGRATE", "false")];
    let mut app = Program::start(&program("app"), &environment).await;
    let mut dashboard = Program::start(&program("dashboard"), &environment[..1]).await;
    let mut generator = Program::start(&program("metric-generator"), &environment[..1]).await;
    assert_eq!(request(app.users, "GET /all", "").await.unwrap().status, 503);
    assert_eq!(request(app.users, "POST /save", r#"{"text":"hello"}"#).await.unwrap().status, 503);
    assert_eq!(request(generator.users, "GET /metrics?limit=10", "").await.unwrap().status, 503);
    // The schema, the list, the batch; the reader, the visitors; the samples, the newest of them, the list.
    for (name, service, least) in
        [("app", &mut app, 3), ("dashboard", &mut dashboard, 2), ("generator", &mut generator, 3)]
    {
        let said = async || Some(service.said(MESSAGE)).filter(|said| said.len() >= least);
        let (said, _) = wait_for(LONG, &format!("{name} logs what is refused"), said).await;
        for line in said {
            assert_plain(&line, MESSAGE);
        }
        service.stop().await;
    }
    nobody.drop(&pool).await;
}

#[sqlx::test(migrations = false)]
async fn a_migration_that_fails_is_logged_once(pool: PgPoolOptions, options: PgConnectOptions) {
    const MESSAGE: &str = "relation \"feeds\" already exists";
    let url = own(&options);
    let pool = pool.connect_lazy_with(options);
    pool.execute("CREATE SCHEMA tidemark; CREATE TABLE tidemark.feeds (other text)").await.unwrap();
    for line in lines("app", &["migrate"], &[("DATABASE_URL", &url)], MESSAGE, 1).await {
        assert_plain(&line, MESSAGE);
        assert!(line.contains("migration 1"), "{line}");
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn the_command_line_prints_each_refusal_once(pool: PgPoolOptions, options: PgConnectOptions) {
    let place = Place::new();
    let url = own(&options);
    let pool = pool.connect_lazy_with(options);
    pool.execute("CREATE TABLE orders (status text)").await.unwrap();
    let nobody = Account::create(&pool, &url).await;
    let add = |filter: &'static str| ["add", "orders", "--table", "public.orders", "--where", filter];
    for (arguments, url, message) in [
        (["list"].as_slice(), with_database(&url, "nosuchdatabase"), "database \"nosuchdatabase\" does not exist"),
        (&["list"], as_account(&url, "nobody-knows-me:s3cret"), "nobody-knows-me"),
        (&["list"], "postgres://me:s3cret@127.0.0.1:1/db".into(), "refused"),
        (&["list"], nobody.url.clone(), "permission denied for schema tidemark"),
        (&["remove", "orders"], nobody.url.clone(), "permission denied for schema tidemark"),
        (&add("stat = 'open'"), url.clone(), "column \"stat\" does not exist"),
        (&add("status ="), url.clone(), "syntax error"),
        (&add("1 / 0 = 1"), url.clone(), "division by zero"),
    ] {
        let mut run = place.start(&[&["feed"], arguments, &["--database-url", &url]].concat());
        assert_eq!(run.end().await, Some(1), "{arguments:?}: {}", run.err.text());
        let lines = run.err.all();
        assert_eq!(lines.len(), 1, "{arguments:?}: {lines:#?}");
        assert_plain(&lines[0], message);
        assert!(!lines[0].contains("s3cret"), "{lines:#?}");
    }
    nobody.drop(&pool).await;
}
