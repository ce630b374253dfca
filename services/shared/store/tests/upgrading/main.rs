//! The migration from version 0.1 while everybody is at work: no change is lost or counted twice,
//! no number goes back, and nobody waits for long or gets an error.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

#[path = "../common/mod.rs"]
mod common;
mod log;
mod version_0_1;
mod writers;

use std::{sync::Arc, time::Duration};

use common::{
    LONG, Stage, migrated,
    own::{Account, says},
};
use rand::{SeedableRng, rngs::StdRng};
use sqlx::{
    AssertSqlSafe, Connection, Executor, PgConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use store::{DatabaseUrl, FeedProblem, Follow, MIGRATOR, own_feeds};
use test_support::wait_until;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use version_0_1::{Feed, LARGE, OPEN};
use writers::{Expected, Observed, Phase, Writer, check, check_once, measure_waits, read, visit};

const LEVELS: [&str; 3] = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];
const WRITERS: u64 = 8;

/// Writers wait for the migration for 0.1 s at a time, and for some milliseconds while it commits;
/// the rest is for a machine that compiles at the same time.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The database of version 0.1 with feeds of all kinds, and what they count.
struct Upgrade {
    stage: Stage,
    feeds: Vec<Expected>,
    /// All tables that are counted, for LOCK.
    tables: String,
    /// Writes to the users' tables, and has no right on anything of ours.
    clerk: Account,
    /// Writes texts, and has no other rights on the slots than that takes.
    editor: Account,
    /// Has added some of the feeds, with the documented rights.
    admin: Account,
}

impl Upgrade {
    async fn new(pool: PgPoolOptions, options: PgConnectOptions) -> Self {
        let stage = Stage::new(pool, options);
        stage.of_version_0_1().await;
        // Writers of version 0.1 that wait for each other's slots in a circle keep the migration
        // waiting.
        let resolve =
            format!("ALTER DATABASE \"{}\" SET deadlock_timeout = '50ms'", stage.options.get_database().unwrap());
        stage.pool.execute(AssertSqlSafe(resolve)).await.unwrap();
        let mut tables = vec![
            "tidemark.texts".to_owned(),
            "tidemark.visits".into(),
            "tidemark.connections".into(),
            "public.orders".into(),
        ];
        for writer in 0..WRITERS {
            let create = format!("CREATE TABLE public.items_{writer} (LIKE public.orders INCLUDING ALL)");
            stage.pool.execute(AssertSqlSafe(create)).await.unwrap();
            tables.push(format!("public.items_{writer}"));
        }
        let rights = "GRANT SELECT, TRIGGER ON ALL TABLES IN SCHEMA public TO ROLE";
        let admin = stage.account_of_version_0_1(rights).await;
        let rights = "GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA public TO ROLE";
        let clerk = Account::new(&stage, rights).await;
        let rights = "GRANT USAGE ON SCHEMA tidemark TO ROLE; GRANT SELECT, INSERT, DELETE ON tidemark.texts TO ROLE;
            GRANT SELECT, UPDATE ON tidemark.feed_slots TO ROLE";
        let editor = Account::new(&stage, rights).await;
        let expected =
            |name: &str, rows: &str| Expected { name: name.into(), n: format!("SELECT count(*) FROM {rows}") };
        let mut feeds = vec![expected("texts", "tidemark.texts"), expected("visitors", "tidemark.connections")];
        let (mut own, mut theirs) = (stage.session().await, PgConnection::connect_with(&admin.options).await.unwrap());
        let open = "public.orders WHERE status = 'open'";
        for (feed, rows) in [
            (Feed::new("orders", "public.orders", None).on_list("board"), "public.orders"),
            (Feed::new("open", "public.orders", Some(&OPEN)), open),
            (Feed::new("theirs", "public.orders", None).of_another_account(), "public.orders"),
            (Feed::new("open-theirs", "public.orders", Some(&OPEN)).of_another_account(), open),
        ] {
            feed.add(if feed.owned { &mut own } else { &mut theirs }).await.unwrap();
            feeds.push(expected(feed.name, rows));
        }
        for writer in 0..WRITERS {
            let (name, table) = (format!("items-{writer}"), format!("public.items_{writer}"));
            let filter = (writer % 2 == 0).then_some(&OPEN);
            Feed::new(&name, &table, filter).add(&mut own).await.unwrap();
            let condition = filter.map_or(String::new(), |filter| format!(" WHERE {}", filter.text));
            feeds.push(expected(&name, &format!("{table}{condition}")));
        }
        for session in [own, theirs] {
            session.close().await.unwrap();
        }
        Self { stage, feeds, tables: tables.join(", "), clerk, editor, admin }
    }

    async fn session(&self) -> PgConnection {
        self.stage.session().await
    }

    async fn end(self) {
        // What the account owns goes with it, and then it has no rights left that keep it.
        self.admin.drop(&self.stage).await;
        self.clerk.drop(&self.stage).await;
        self.editor.drop(&self.stage).await;
        self.stage.end().await;
    }
}

#[sqlx::test(migrations = false)]
async fn nothing_is_lost_and_nobody_fails_or_waits_for_long(pool: PgPoolOptions, options: PgConnectOptions) {
    let seed =
        std::env::var("UPGRADE_SEED").ok().and_then(|seed| seed.parse::<u64>().ok()).unwrap_or_else(rand::random);
    println!("UPGRADE_SEED={seed}");
    let upgrade = Arc::new(Upgrade::new(pool, options).await);
    let observed = Arc::new(Observed::new());
    let mut tasks = JoinSet::new();
    for number in 0..WRITERS {
        let level = LEVELS[usize::try_from(number % 3).unwrap()];
        let owner = number % 4 < 2;
        let session = if owner {
            upgrade.session().await
        } else {
            PgConnection::connect_with(&upgrade.clerk.options).await.unwrap()
        };
        let random = StdRng::seed_from_u64(seed ^ number);
        let (writer, observed) = (Writer { number, level, owner, session, random }, Arc::clone(&observed));
        tasks.spawn(async move { writer.run(&observed).await });
    }
    for _ in 0..2 {
        let (session, observed) = (upgrade.session().await, Arc::clone(&observed));
        tasks.spawn(async move { read(session, &observed).await });
    }
    let (session, seen) = (upgrade.session().await, Arc::clone(&observed));
    tasks.spawn(async move { measure_waits(session, &seen).await });
    let (session, random, seen) =
        (upgrade.session().await, StdRng::seed_from_u64(seed ^ WRITERS), Arc::clone(&observed));
    tasks.spawn(async move { visit(session, random, &seen).await });
    let (session, seen, checked) = (upgrade.session().await, Arc::clone(&observed), Arc::clone(&upgrade));
    tasks.spawn(async move { check(session, &checked.feeds, &checked.tables, &seen).await });

    // A task that ends before it is told to has failed.
    let work = async |tasks: &mut JoinSet<()>, phase| {
        while observed.commits(phase) < 500 || observed.checks(phase) < 20 {
            if let Ok(Some(ended)) = timeout(Duration::from_millis(100), tasks.join_next()).await {
                ended.unwrap();
                panic!("a task has ended");
            }
        }
    };
    work(&mut tasks, Phase::Before).await;
    observed.enter(Phase::Migrating);
    let database = upgrade.stage.database();
    let began = Instant::now();
    tokio::join!(migrated(&database), migrated(&database));
    println!("migrated in {:?}", began.elapsed());
    observed.enter(Phase::After);
    work(&mut tasks, Phase::After).await;
    observed.enter(Phase::End);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }

    println!("{}", observed.summary());
    assert!(observed.longest() < LONGEST_WAIT, "{}", observed.summary());
    let mut session = upgrade.session().await;
    let at_end = check_once(&mut session, &upgrade.feeds, &upgrade.tables).await;
    sqlx::query("SELECT tidemark.fold_feeds(1000000)").execute(&mut session).await.unwrap();
    assert_eq!(check_once(&mut session, &upgrade.feeds, &upgrade.tables).await, at_end, "after a fold");
    session.close().await.unwrap();

    let feeds = own_feeds(&database).await.unwrap().feeds;
    assert_eq!(feeds.len(), upgrade.feeds.len() - 2);
    for feed in feeds {
        assert_eq!(feed.problem, None, "{}", feed.name);
        // Lists name tables, and mean whichever has the name.
        assert_eq!(feed.follow, if feed.name == "orders" { Follow::Name } else { Follow::Table }, "{}", feed.name);
    }
    let Ok(upgrade) = Arc::try_unwrap(upgrade) else { panic!("all tasks have ended") };
    upgrade.end().await;
}

/// One transaction of a writer that waits for the switch.
struct Straddler {
    level: &'static str,
    writer: By,
    statement: String,
    /// Whether its snapshot is older than the switch.
    snapshot: bool,
}

/// The account that writes.
#[derive(Debug, Clone, Copy)]
enum By {
    Owner,
    Clerk,
    Editor,
}

/// Statements that are inside the functions of version 0.1 when the migration commits, at each
/// level.
fn straddlers() -> Vec<Straddler> {
    let mut all = Vec::new();
    for level in LEVELS {
        let statements = [
            (By::Owner, "INSERT INTO tidemark.texts (body) VALUES ('waits')".to_owned()),
            (By::Editor, "INSERT INTO tidemark.texts (body) VALUES ('waits'), ('waits')".into()),
            (By::Clerk, "INSERT INTO public.orders (status) VALUES ('open'), ('closed')".into()),
            (By::Clerk, "INSERT INTO public.orders (status) SELECT 'open' FROM generate_series(1, 4)".into()),
            (By::Owner, "WITH visit AS (INSERT INTO tidemark.visits (id) VALUES (gen_random_uuid()) RETURNING id)
                INSERT INTO tidemark.connections (visit, instance, n) SELECT id, '00000000-0000-0000-0000-000000000001', 1 FROM visit".into()),
        ];
        all.extend(statements.into_iter().flat_map(|(writer, statement)| {
            [false, true].map(|snapshot| Straddler { level, writer, statement: statement.clone(), snapshot })
        }));
    }
    // Each has a table of its own: items_0 to items_5. They have rows that the older snapshots do
    // not see.
    for (table, level) in [0, 1, 2].into_iter().zip(LEVELS) {
        let truncate = |table| format!("TRUNCATE public.items_{table}");
        all.push(Straddler { level, writer: By::Clerk, statement: truncate(table), snapshot: true });
        all.push(Straddler { level, writer: By::Owner, statement: truncate(table + 3), snapshot: false });
    }
    all.push(Straddler {
        level: LEVELS[0],
        writer: By::Clerk,
        statement: "UPDATE public.orders SET status = 'open' WHERE writer = -1".into(),
        snapshot: false,
    });
    all.push(Straddler {
        level: LEVELS[0],
        writer: By::Owner,
        statement: "DO $$ BEGIN IF tidemark.audit_visitors() <> 0 THEN RAISE 'visitors were miscounted'; END IF; END $$".into(),
        snapshot: false,
    });
    all
}

/// Waits until so many sessions wait for a lock of the slots.
async fn slots_are_awaited(stage: &Stage, sessions: usize) {
    let waiting = "SELECT count(*) FROM pg_locks WHERE relation = $1 AND NOT granted";
    let slots: sqlx::postgres::types::Oid =
        sqlx::query_scalar("SELECT 'tidemark.feed_slots'::regclass::oid").fetch_one(&stage.pool).await.unwrap();
    wait_until(LONG, "all wait for the slots", async || {
        let waiting: i64 = sqlx::query_scalar(waiting).bind(slots).fetch_one(&stage.pool).await.unwrap();
        waiting == i64::try_from(sessions).unwrap()
    })
    .await;
}

#[sqlx::test(migrations = false)]
async fn writers_inside_functions_of_version_0_1_at_the_switch_count_once(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let upgrade = Upgrade::new(pool, options).await;
    let (mut sessions, mut finished) = (Vec::new(), JoinSet::new());
    for straddler in straddlers() {
        let options = match straddler.writer {
            By::Owner => &upgrade.stage.options,
            By::Clerk => &upgrade.clerk.options,
            By::Editor => &upgrade.editor.options,
        };
        let mut session = PgConnection::connect_with(options).await.unwrap();
        session.execute(AssertSqlSafe(format!("BEGIN ISOLATION LEVEL {}", straddler.level))).await.unwrap();
        if straddler.snapshot {
            session.execute("SELECT count(*) FROM pg_class").await.unwrap();
        }
        sessions.push((straddler, session));
    }
    // A reader whose snapshot is older than the switch, too, and what it has to read.
    let mut old_reader = upgrade.session().await;
    old_reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class").await.unwrap();
    let mut other = upgrade.session().await;
    let before = version_0_1::values(&mut other).await.unwrap();
    for table in 0..6 {
        let insert = format!("INSERT INTO public.items_{table} (status) SELECT 'open' FROM generate_series(1, 5)");
        upgrade.stage.pool.execute(AssertSqlSafe(insert)).await.unwrap();
    }

    // The migration, up to its commit.
    let mut session = upgrade.session().await;
    let mut migration = session.begin().await.unwrap();
    migration.execute("SET LOCAL search_path = pg_catalog, pg_temp").await.unwrap();
    let last = MIGRATOR.iter().find(|migration| migration.version == 6).unwrap();
    sqlx::raw_sql(last.sql.clone()).execute(&mut *migration).await.unwrap();

    let writers = sessions.len();
    for (straddler, mut session) in sessions {
        finished.spawn(async move {
            let transaction = async |session: &mut PgConnection| {
                session.execute(AssertSqlSafe(straddler.statement.as_str())).await?;
                // The others have to go on although this transaction is open.
                session.execute("SELECT pg_sleep(0.2)").await?;
                session.execute("COMMIT").await
            };
            let mut result = transaction(&mut session).await;
            let code = |error: &sqlx::Error| {
                error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned()
            };
            // Version 0.1 made SERIALIZABLE writers fail: it read all slots of the feed. One that
            // is inside its function does so once more.
            while straddler.level == "SERIALIZABLE" && result.as_ref().is_err_and(|error| code(error) == "40001") {
                session.execute("ROLLBACK; BEGIN ISOLATION LEVEL SERIALIZABLE").await.unwrap();
                result = transaction(&mut session).await;
            }
            if let Err(error) = result {
                panic!("{:?} {} {}: {error}", straddler.writer, straddler.level, straddler.statement);
            }
            session.close().await.unwrap();
        });
    }
    let mut adding = upgrade.session().await;
    finished.spawn(async move {
        Feed::new("late", "public.items_6", Some(&OPEN)).add(&mut adding).await.unwrap();
        adding.close().await.unwrap();
    });
    let now = tokio::spawn(async move {
        let values = version_0_1::values(&mut other).await.unwrap();
        other.close().await.unwrap();
        values
    });
    let then = tokio::spawn(async move {
        let values = version_0_1::values(&mut old_reader).await.unwrap();
        old_reader.execute("COMMIT").await.unwrap();
        old_reader.close().await.unwrap();
        values
    });
    slots_are_awaited(&upgrade.stage, writers + 3).await;
    let insert = "INSERT INTO tidemark._sqlx_migrations (version, description, success, checksum, execution_time) VALUES ($1, $2, true, $3, 0)";
    sqlx::query(insert)
        .bind(last.version)
        .bind(&*last.description)
        .bind(&*last.checksum)
        .execute(&mut *migration)
        .await
        .unwrap();
    migration.commit().await.unwrap();
    session.close().await.unwrap();

    let unarmed = |values: &[version_0_1::Value]| -> Vec<_> {
        values.iter().cloned().map(|value| version_0_1::Value { armed: false, ..value }).collect()
    };
    assert_eq!(then.await.unwrap(), unarmed(&before), "an older snapshot");
    let now = now.await.unwrap();
    for before in before {
        assert!(
            now.iter().any(|value| value.name == before.name && value.version >= before.version),
            "{before:?} {now:?}"
        );
    }
    while let Some(ended) = finished.join_next().await {
        ended.unwrap();
    }
    // The trigger functions.
    migrated(&upgrade.stage.database()).await;
    let mut session = upgrade.session().await;
    check_once(&mut session, &upgrade.feeds, &upgrade.tables).await;
    upgrade.stage.pool.execute("INSERT INTO public.items_6 (status) VALUES ('open'), ('closed')").await.unwrap();
    let values = check_once(&mut session, &upgrade.feeds, &upgrade.tables).await;
    assert_eq!(values.iter().find(|value| value.name == "late").unwrap().n, 1);
    session.close().await.unwrap();
    upgrade.end().await;
}

#[sqlx::test(migrations = false)]
async fn a_long_transaction_lets_the_migration_wait_and_nobody_else(pool: PgPoolOptions, options: PgConnectOptions) {
    let upgrade = Upgrade::new(pool, options).await;
    let mut long = upgrade.session().await;
    long.execute("BEGIN; INSERT INTO public.orders (status) VALUES ('open')").await.unwrap();
    let database = upgrade.stage.database();
    let migration = tokio::spawn(async move { migrated(&database).await });

    let mut writers = JoinSet::new();
    let until = Instant::now() + Duration::from_secs(3);
    for _ in 0..4 {
        let mut session = PgConnection::connect_with(&upgrade.clerk.options).await.unwrap();
        writers.spawn(async move {
            let (mut longest, mut commits) = (Duration::ZERO, 0);
            while Instant::now() < until {
                let began = Instant::now();
                session.execute("INSERT INTO public.orders (status) VALUES ('closed')").await.unwrap();
                (longest, commits) = (longest.max(began.elapsed()), commits + 1);
                sleep(Duration::from_millis(1)).await;
            }
            session.close().await.unwrap();
            (longest, commits)
        });
    }
    let results = writers.join_all().await;
    println!("{results:?}");
    for (longest, commits) in results {
        // It waits for the migration for 0.1 s at a time, with as long between.
        assert!(longest < LONGEST_WAIT && commits > 5, "{longest:?} {commits}");
    }
    assert!(!migration.is_finished(), "the migration waits for the transaction");
    let mut reader = upgrade.session().await;
    assert!(version_0_1::values(&mut reader).await.unwrap().iter().all(|value| value.version > 0 || value.n == 0));

    long.execute("INSERT INTO public.orders (status) VALUES ('open'); COMMIT").await.unwrap();
    let ended = Instant::now();
    migration.await.unwrap();
    assert!(ended.elapsed() < Duration::from_secs(5), "{:?}", ended.elapsed());
    check_once(&mut reader, &upgrade.feeds, &upgrade.tables).await;
    for session in [long, reader] {
        session.close().await.unwrap();
    }
    upgrade.end().await;
}

#[sqlx::test(migrations = false)]
async fn filters_of_version_0_1_follow_renames_and_no_write_fails(pool: PgPoolOptions, options: PgConnectOptions) {
    let mut upgrade = Upgrade::new(pool, options).await;
    let mut session = upgrade.session().await;
    Feed::new("large", "public.orders", Some(&LARGE)).add(&mut session).await.unwrap();
    let warnings = log::Warnings::collect();
    let database = upgrade.stage.database();
    // Two apps that start together.
    tokio::join!(migrated(&database), migrated(&database));
    assert_eq!(warnings.all(), [""; 0]);

    let filters = "
        SELECT own_feeds.feed, rolname = $1 AS of_account FROM tidemark.own_feeds
        JOIN pg_proc ON pronamespace = 'tidemark'::regnamespace AND proname = 'feed_' || own_feeds.feed || '_matches'
        JOIN pg_roles ON pg_roles.oid = proowner WHERE filter IS NOT NULL ORDER BY 1";
    let filters: Vec<(String, bool)> =
        sqlx::query_as(filters).bind(&upgrade.admin.name).fetch_all(&mut session).await.unwrap();
    let of_account = |feed: &str| (feed.to_owned(), feed == "open-theirs");
    let expected = ["items-0", "items-2", "items-4", "items-6", "large", "open", "open-theirs"].map(of_account);
    assert_eq!(filters, expected);

    let rename = "ALTER TYPE public.order_status RENAME VALUE 'open' TO 'opened'; ALTER TABLE public.orders RENAME COLUMN status TO state";
    session.execute(rename).await.unwrap();
    for feed in &mut upgrade.feeds {
        let column = if feed.n.contains("orders") { "state" } else { "status" };
        feed.n = feed.n.replace("status = 'open'", &format!("{column} = 'opened'"));
    }
    let mut clerk = PgConnection::connect_with(&upgrade.clerk.options).await.unwrap();
    for write in [
        "INSERT INTO public.orders (state, amount) VALUES ('opened', 10), ('closed', 50)",
        "UPDATE public.orders SET state = 'opened' WHERE amount = 50",
        "DELETE FROM public.orders WHERE amount = 10",
        "INSERT INTO public.items_2 (status) VALUES ('opened'), ('closed')",
    ] {
        clerk.execute(write).await.unwrap();
        check_once(&mut session, &upgrade.feeds, &upgrade.tables).await;
    }

    // A row on which the filter fails, and an account without rights: writes go on.
    clerk.execute("INSERT INTO public.orders (state, amount) VALUES ('opened', 0)").await.unwrap();
    check_once(&mut session, &upgrade.feeds, &upgrade.tables).await;
    let revoke = format!("REVOKE ALL ON tidemark.deltas FROM {}", upgrade.admin.name);
    session.execute(AssertSqlSafe(revoke)).await.unwrap();
    for write in ["INSERT INTO public.orders (state) VALUES ('opened')", "TRUNCATE public.orders"] {
        clerk.execute(write).await.unwrap();
    }
    assert_eq!(
        problems(&database).await,
        [("open-theirs".to_owned(), FeedProblem::Denied), ("theirs".into(), FeedProblem::Denied)],
        "TRUNCATE ends what the failed filter has begun"
    );
    clerk.execute("INSERT INTO public.orders (amount) VALUES (0)").await.unwrap();
    let feeds = own_feeds(&database).await.unwrap().feeds;
    assert_eq!(feeds.iter().find(|feed| feed.name == "large").unwrap().failure.as_deref(), Some("22012"));
    for session in [session, clerk] {
        session.close().await.unwrap();
    }
    upgrade.end().await;
}

#[sqlx::test(migrations = false)]
async fn accounts_keep_what_they_could_do_with_the_slots(pool: PgPoolOptions, options: PgConnectOptions) {
    let upgrade = Upgrade::new(pool, options).await;
    let rights = "GRANT USAGE ON SCHEMA tidemark TO ROLE; GRANT SELECT ON tidemark.feed_slots TO ROLE";
    let monitor = Account::new(&upgrade.stage, rights).await;
    // Version 0.1 was installed by an account that does not migrate now.
    let rights = "GRANT USAGE ON SCHEMA tidemark TO ROLE; GRANT INSERT ON tidemark.texts TO ROLE; ALTER TABLE tidemark.feed_slots OWNER TO ROLE";
    let installer = Account::new(&upgrade.stage, rights).await;
    migrated(&upgrade.stage.database()).await;
    let mut monitoring = PgConnection::connect_with(&monitor.options).await.unwrap();
    let mut editing = PgConnection::connect_with(&upgrade.editor.options).await.unwrap();
    let mut installing = PgConnection::connect_with(&installer.options).await.unwrap();
    installing.execute("INSERT INTO tidemark.texts (body) VALUES ('by the installer')").await.unwrap();
    let texts = "SELECT sum(n)::bigint FROM tidemark.feed_slots WHERE feed = 'texts'";
    for write in ["INSERT INTO tidemark.texts (body) VALUES ('by the editor')", "DELETE FROM tidemark.texts"] {
        editing.execute(write).await.unwrap();
        let count: i64 = sqlx::query_scalar(texts).fetch_one(&mut monitoring).await.unwrap();
        let rows: i64 =
            sqlx::query_scalar("SELECT count(*) FROM tidemark.texts").fetch_one(&upgrade.stage.pool).await.unwrap();
        assert_eq!(count, rows, "{write}");
    }
    let write = "UPDATE tidemark.feed_slots SET n = 7";
    let refused = monitoring.execute(write).await.unwrap_err().to_string();
    assert!(refused.contains("permission denied for view feed_slots"), "{refused}");
    for session in [monitoring, editing, installing] {
        session.close().await.unwrap();
    }
    monitor.drop(&upgrade.stage).await;
    installer.drop(&upgrade.stage).await;
    upgrade.end().await;
}

#[sqlx::test(migrations = false)]
async fn accounts_keep_their_writes_where_new_functions_are_not_for_everybody(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let stage = Stage::new(pool, options);
    stage.pool.execute("ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC").await.unwrap();
    stage.of_version_0_1().await;
    let admin = stage
        .account_of_version_0_1(
            "GRANT SELECT, TRIGGER ON public.orders TO ROLE; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA tidemark TO ROLE",
        )
        .await;
    let mut session = PgConnection::connect_with(&admin.options).await.unwrap();
    for (name, filter) in [("theirs", None), ("open-theirs", Some(&OPEN))] {
        Feed::new(name, "public.orders", filter).of_another_account().add(&mut session).await.unwrap();
    }
    session.close().await.unwrap();
    migrated(&stage.database()).await;
    for write in [
        "INSERT INTO orders (status) VALUES ('open'), ('closed')",
        "UPDATE orders SET status = 'open'",
        "DELETE FROM orders WHERE id % 2 = 0",
        "TRUNCATE orders",
        "INSERT INTO orders (status) VALUES ('open')",
    ] {
        stage.pool.execute(write).await.unwrap_or_else(|error| panic!("{write}: {error}"));
    }
    assert_eq!((says(&stage.pool, "theirs").await.0, says(&stage.pool, "open-theirs").await.0), (1, 1));
    assert_eq!(problems(&stage.database()).await, []);
    admin.drop(&stage).await;
    stage.end().await;
}

async fn problems(database: &DatabaseUrl) -> Vec<(String, FeedProblem)> {
    let feeds = own_feeds(database).await.unwrap().feeds;
    feeds.into_iter().filter_map(|feed| Some((feed.name, feed.problem?))).collect()
}
