//! A rolling update from version 0.1: its programs beside those of today on today's schema, and the
//! way back.
//!
//! `make old-programs` builds those of version 0.1, and `make services` those of today.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use common::{
    Client, LONG,
    follower::{Follower, Ledger, Order},
};
use serde_json::{Value, json};
use sqlx::{
    AssertSqlSafe, Executor, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use test_support::{Program, command, through, wait_until, with_database};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// A dashboard of version 0.1 reads every 200 ms on the new schema. Notifications take
/// milliseconds, a poll would take up to 2 s. One change in ten may take longer, on a machine that
/// compiles at the same time.
const SOON: Duration = Duration::from_secs(1);

const FEEDS: &str = "texts,visitors,orders,open";

/// Where the programs of a version are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Old,
    New,
}

impl Version {
    fn program(self, name: &str) -> PathBuf {
        let (program, target) = match self {
            Self::Old => {
                let home = || std::env::var("HOME").map(|home| format!("{home}/.cache/tidemark/0.1"));
                (Path::new(&std::env::var("VERSION_0_1_DIR").or_else(|_| home()).unwrap()).join(name), "old-programs")
            }
            Self::New => (Path::new(env!("CARGO_BIN_EXE_dashboard")).with_file_name(name), "services"),
        };
        assert!(program.is_file(), "no {}: make {target}", program.display());
        program
    }
}

/// A database, its programs of both versions, and what the clients should see.
struct Rollout {
    pool: PgPool,
    url: String,
    page: String,
    ledger: Ledger,
    /// Of the next client.
    seed: u64,
    texts: i64,
    orders: i64,
    /// How long each change took to all clients.
    times: Vec<Duration>,
}

/// Clients that go to the same dashboards.
struct Group {
    dashboards: watch::Sender<Vec<SocketAddr>>,
    followers: Vec<Follower>,
}

impl Group {
    fn go_to(&self, dashboards: &[&Program]) {
        self.dashboards.send_replace(dashboards.iter().map(|dashboard| dashboard.users).collect());
    }

    /// Breaks all connections: the clients come back with their cursors to any of the dashboards.
    fn scatter(&self) {
        for follower in &self.followers {
            follower.orders.send(Order::Break).unwrap();
        }
    }

    fn show(&self, item: &str, value: &Value) -> bool {
        self.followers.iter().all(|follower| {
            assert!(!follower.has_failed(), "a client was shown something wrong");
            follower.shown.borrow().1.items.get(item).is_some_and(|known| known.value == *value)
        })
    }

    /// Waits until all show this value; gives the time that it took.
    async fn until(&self, item: &str, value: &Value) -> Duration {
        wait_until(LONG, &format!("all clients show {item} {value}"), async || self.show(item, value)).await
    }

    async fn stop(self) {
        for follower in self.followers {
            follower.stop().await;
        }
    }
}

impl Rollout {
    /// A database with the schema of version 0.1, which its app has made, and a table that its
    /// command line counts.
    async fn start(options: &PgConnectOptions) -> (Self, Program, Program) {
        let server = std::env::var("DATABASE_URL").unwrap();
        let here = SocketAddr::from(([127, 0, 0, 1], options.get_port()));
        let url = through(&with_database(&server, options.get_database().unwrap()), here);
        let page = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("rollout-page");
        std::fs::create_dir_all(&page).unwrap();
        std::fs::write(page.join("index.html"), "<!doctype html>").unwrap();
        let pool = PgPoolOptions::new().max_connections(5).connect_lazy_with(options.clone());
        let page = page.to_str().unwrap().to_owned();
        let mut rollout =
            Self { pool, url, page, ledger: Ledger::default(), seed: 1, texts: 0, orders: 0, times: Vec::new() };

        let app = rollout.program(Version::Old, "app").await;
        let create = "CREATE TYPE status AS ENUM ('open', 'closed'); CREATE TABLE orders (id serial, status status);
            INSERT INTO orders (status) VALUES ('open'), ('closed')";
        rollout.pool.execute(create).await.unwrap();
        rollout.orders = 2;
        rollout.feed(Version::Old, &["add", "orders", "--table", "public.orders"]).await;
        rollout.feed(Version::Old, &["add", "open", "--table", "public.orders", "--where", "status = 'open'"]).await;
        let dashboard = rollout.program(Version::Old, "dashboard").await;
        (rollout, app, dashboard)
    }

    /// A service that is ready.
    async fn program(&self, version: Version, service: &str) -> Program {
        let environment = [
            ("DATABASE_URL", self.url.as_str()),
            ("PAGE_DIR", &self.page),
            ("DRAIN_SECONDS", "1"),
            ("LOG_FORMAT", "text"),
        ];
        let program = Program::start(&version.program(service), &environment).await;
        program.ready().await;
        program
    }

    async fn run(&self, version: Version, program: &str, arguments: &[&str]) -> Output {
        let mut command = command(&version.program(program), &[("DATABASE_URL", &self.url)]);
        timeout(LONG, command.args(arguments).output()).await.unwrap().unwrap()
    }

    /// Runs `tidemark feed`, which has to succeed; gives what it prints.
    async fn feed(&self, version: Version, arguments: &[&str]) -> String {
        let output = self.run(version, "tidemark", &[&["feed"], arguments].concat()).await;
        let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert!(output.status.success() && err.is_empty(), "{arguments:?}: {out}{err}");
        out
    }

    /// Name, count and state of each feed of a table.
    async fn feeds(&self, version: Version) -> Vec<(String, i64, String)> {
        let list: Vec<Value> = serde_json::from_str(&self.feed(version, &["list", "--json"]).await).unwrap();
        let text = |feed: &Value, field: &str| feed[field].as_str().unwrap().to_owned();
        list.iter().map(|feed| (text(feed, "name"), feed["count"].as_i64().unwrap(), text(feed, "state"))).collect()
    }

    fn group(&mut self, dashboards: &[&Program], clients: u64) -> Group {
        let addresses = dashboards.iter().map(|dashboard| dashboard.users).collect();
        let (sender, receiver) = watch::channel(addresses);
        let seeds = self.seed..self.seed + clients;
        self.seed = seeds.end;
        let follow = |seed| Follower::start(receiver.clone(), FEEDS, seed, self.ledger.clone());
        Group { dashboards: sender, followers: seeds.map(follow).collect() }
    }

    /// Stores a text through an app.
    async fn save(&mut self, app: &Program) {
        save(app.users).await;
        self.texts += 1;
    }

    /// Writes by SQL.
    async fn write(&mut self, statement: &'static str) {
        self.pool.execute(statement).await.unwrap();
        self.texts += i64::from(statement.contains("tidemark.texts"));
        self.orders += i64::from(statement.contains("INTO orders"));
    }

    /// Waits until all clients have what the tables have.
    async fn arrives(&mut self, groups: &[&Group], what: &str) {
        let began = Instant::now();
        for group in groups {
            self.agrees(group).await;
        }
        println!("{what}: {:?}", began.elapsed());
        self.times.push(began.elapsed());
    }

    /// The same, without a measurement: some clients may have to connect first.
    async fn agrees(&self, group: &Group) {
        for (item, count) in [("texts:", self.texts), ("orders:", self.orders)] {
            group.until(item, &json!({ "count": count })).await;
        }
    }

    /// Waits until all clients show as many visitors as there are clients.
    async fn visitors(&self, groups: &[&Group], ever: usize) {
        let online: usize = groups.iter().map(|group| group.followers.len()).sum();
        for group in groups {
            group.until("visitors:", &json!({ "online": online, "total": ever })).await;
        }
    }

    fn were_soon(&self) {
        let late = self.times.iter().filter(|time| **time > SOON).count();
        assert!(late * 10 <= self.times.len(), "{:?}", self.times);
    }
}

async fn save(app: SocketAddr) {
    let mut stream = TcpStream::connect(app).await.unwrap();
    let body = r#"{"text":"a text"}"#;
    let head = format!("POST /save HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all((head + body).as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

/// No program had a reason to complain, but for the limits of a machine that compiles at the same
/// time.
fn quiet(programs: &[&Program]) {
    const MACHINE: [&str; 3] = ["the limit of open files is too low", "within 1s", "pool timed out"];
    for program in programs {
        let mut complaints = [program.said(" WARN "), program.said(" ERROR ")].concat();
        complaints.retain(|line| !MACHINE.iter().any(|part| line.contains(part)));
        assert!(complaints.is_empty(), "{complaints:#?}");
    }
}

#[sqlx::test(migrations = false)]
async fn programs_of_both_versions_serve_beside_each_other_and_a_rollback_works(
    _: PgPoolOptions,
    options: PgConnectOptions,
) {
    let (mut rollout, old_app, old_dashboard) = Rollout::start(&options).await;
    let old = rollout.group(&[&old_dashboard], 3);
    let moving = rollout.group(&[&old_dashboard], 3);
    for _ in 0..3 {
        rollout.save(&old_app).await;
        rollout.write("INSERT INTO orders (status) VALUES ('open')").await;
        rollout.arrives(&[&old, &moving], "before").await;
    }
    rollout.visitors(&[&old, &moving], 6).await;

    // Users save while the schema is migrated.
    let token = CancellationToken::new();
    let (stop, app, pool) = (token.clone(), old_app.users, rollout.pool.clone());
    let (count, mut saves) = watch::channel(0);
    let saving = tokio::spawn(async move {
        while !stop.is_cancelled() {
            save(app).await;
            let order = "INSERT INTO orders (status) VALUES ('closed')";
            pool.execute(order).await.unwrap();
            count.send_modify(|saves| *saves += 1);
        }
    });
    timeout(LONG, saves.wait_for(|saves| *saves > 0)).await.unwrap().unwrap();
    let migrated = rollout.run(Version::New, "app", &["migrate"]).await;
    assert!(migrated.status.success(), "{migrated:?}");
    let before = *saves.borrow();
    timeout(LONG, saves.wait_for(|saves| *saves > before + 1)).await.unwrap().unwrap();
    token.cancel();
    saving.await.unwrap();
    let saves = *saves.borrow();
    println!("{saves} saves while the schema was migrated");
    rollout.texts += saves;
    rollout.orders += saves;
    rollout.arrives(&[&old, &moving], "after the migration").await;

    let mut new_app = rollout.program(Version::New, "app").await;
    let mut new_dashboard = rollout.program(Version::New, "dashboard").await;
    let new = rollout.group(&[&new_dashboard], 3);
    moving.go_to(&[&old_dashboard, &new_dashboard]);
    let all = [&old, &new, &moving];
    rollout.visitors(&all, 9).await;
    for round in 0..6 {
        // Readers sleep, or have just read.
        sleep(Duration::from_millis(500 * (round % 2))).await;
        rollout.save(&old_app).await;
        rollout.arrives(&[&old, &new], "by the old app").await;
        rollout.save(&new_app).await;
        rollout.arrives(&[&old, &new], "by the new app").await;
        moving.scatter();
        rollout.write("INSERT INTO tidemark.texts (body) VALUES ('a text')").await;
        rollout.write("INSERT INTO orders (status) VALUES ('open')").await;
        rollout.arrives(&[&old, &new], "by SQL").await;
        rollout.agrees(&moving).await;
    }
    rollout.visitors(&all, 9).await;

    // The command line of version 0.1, whose feeds the dashboards of both versions show.
    rollout.pool.execute("CREATE TABLE items (status text); INSERT INTO items VALUES ('open')").await.unwrap();
    rollout.feed(Version::Old, &["add", "items", "--table", "public.items"]).await;
    rollout.feed(Version::Old, &["add", "late", "--table", "public.items", "--where", "status = 'open'"]).await;
    rollout
        .pool
        .execute("INSERT INTO items VALUES ('open'), ('closed'); UPDATE items SET status = 'open'")
        .await
        .unwrap();
    rollout.pool.execute("DELETE FROM items WHERE ctid IN (SELECT ctid FROM items LIMIT 1)").await.unwrap();
    for dashboard in [&old_dashboard, &new_dashboard] {
        wait_until(LONG, "the feeds of the table are served", async || {
            let Ok(mut client) = Client::connect(dashboard.users, "feeds=items,late", &[]).await else { return false };
            let common::Got::Json(_hello) = client.next().await else { return false };
            let common::Got::Json(set) = client.next().await else { return false };
            let counts = set["items"].as_array().unwrap().iter().map(|item| &item["value"]["count"]);
            counts.eq([2, 2])
        })
        .await;
    }
    let state = |name: &str, count| (name.to_owned(), count, "ok".to_owned());
    let open: i64 =
        sqlx::query_scalar("SELECT count(*) FROM orders WHERE status = 'open'").fetch_one(&rollout.pool).await.unwrap();
    let expected = [state("items", 2), state("late", 2), state("open", open), state("orders", rollout.orders)];
    for version in [Version::Old, Version::New] {
        assert_eq!(rollout.feeds(version).await, expected);
    }
    // One that version 0.1 has removed can be added again, although today's has a function more.
    rollout.feed(Version::Old, &["remove", "late"]).await;
    for _ in 0..2 {
        rollout.feed(Version::New, &["add", "late", "--table", "public.items", "--where", "status = 'open'"]).await;
        rollout.feed(Version::Old, &["remove", "late"]).await;
    }
    rollout.feed(Version::Old, &["remove", "items"]).await;
    assert_eq!(rollout.feeds(Version::Old).await, expected[2..]);

    // The way back.
    for group in [&new, &moving] {
        group.go_to(&[&old_dashboard]);
    }
    assert_eq!((new_dashboard.stop().await, new_app.stop().await), (Some(0), Some(0)));
    wait_until(LONG, "all clients have moved", async || {
        let owners = "SELECT count(DISTINCT instance) FROM tidemark.connections";
        sqlx::query_scalar::<_, i64>(owners).fetch_one(&rollout.pool).await.unwrap() == 1
    })
    .await;
    rollout.save(&old_app).await;
    rollout.arrives(&all, "by the old app alone").await;
    rollout.visitors(&all, 9).await;

    // And programs of version 0.1 that start on the new schema.
    let (app, dashboard) =
        (rollout.program(Version::Old, "app").await, rollout.program(Version::Old, "dashboard").await);
    for group in all {
        group.go_to(&[&dashboard]);
    }
    let (mut old_app, mut old_dashboard) = (old_app, old_dashboard);
    assert_eq!((old_dashboard.stop().await, old_app.stop().await), (Some(0), Some(0)));
    wait_until(LONG, "all clients have moved", async || {
        let owners = "SELECT count(DISTINCT instance) FROM tidemark.connections";
        sqlx::query_scalar::<_, i64>(owners).fetch_one(&rollout.pool).await.unwrap() == 1
    })
    .await;
    for _ in 0..3 {
        rollout.save(&app).await;
        rollout.write("INSERT INTO orders (status) VALUES ('closed')").await;
        rollout.arrives(&all, "by a restarted old app").await;
    }
    rollout.visitors(&all, 9).await;
    let many =
        "DO $$ BEGIN FOR i IN 1..3000 LOOP INSERT INTO tidemark.texts (body) VALUES ('one of many'); END LOOP; END $$";
    rollout.pool.execute(many).await.unwrap();
    rollout.texts += 3_000;
    for group in all {
        rollout.agrees(group).await;
    }
    wait_until(LONG, "the deltas are folded", async || {
        let pending = "SELECT max(pending) FROM tidemark.feed_values()";
        sqlx::query_scalar::<_, i64>(pending).fetch_one(&rollout.pool).await.unwrap() < 1_000
    })
    .await;
    rollout.were_soon();
    quiet(&[&old_app, &old_dashboard, &new_app, &new_dashboard, &app, &dashboard]);

    let [texts, orders] = ["tidemark.texts", "public.orders"].map(|table| format!("SELECT count(*) FROM {table}"));
    let count = async |query: String| -> i64 {
        sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&rollout.pool).await.unwrap()
    };
    assert_eq!((count(texts).await, count(orders).await), (rollout.texts, rollout.orders));
    for group in [old, new, moving] {
        group.stop().await;
    }
}

#[sqlx::test(migrations = false)]
async fn a_dashboard_of_version_0_1_that_sleeps_learns_of_the_migration(_: PgPoolOptions, options: PgConnectOptions) {
    let (mut rollout, app, dashboard) = Rollout::start(&options).await;
    let group = rollout.group(&[&dashboard], 1);
    rollout.save(&app).await;
    rollout.arrives(&[&group], "before").await;
    // It reads on until nothing moves, and then waits for a notification: it has armed all slots.
    let armed = "SELECT NOT EXISTS (SELECT FROM tidemark.feed_slots WHERE NOT armed)";
    let waits = async || sqlx::query_scalar(armed).fetch_one(&rollout.pool).await.unwrap();
    wait_until(LONG, "the dashboard waits for a notification", waits).await;
    let migrated = rollout.run(Version::New, "app", &["migrate"]).await;
    assert!(migrated.status.success(), "{migrated:?}");
    for _ in 0..3 {
        sleep(Duration::from_millis(700)).await;
        rollout.write("INSERT INTO tidemark.texts (body) VALUES ('a text')").await;
        rollout.arrives(&[&group], "after").await;
    }
    // It would complain of a notification that did not come.
    sleep(Duration::from_millis(1_500)).await;
    rollout.were_soon();
    quiet(&[&app, &dashboard]);
    group.stop().await;
}
