//! A database with the schema, tables of the same form with and without a feed, and a reader of the product.

use prometheus::Registry;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use store::{DatabaseUrl, OwnFeed, Reader, ReaderConfig, ReaderMetrics};
use test_support::{Server, ServerFiles};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The table without a feed.
pub const BARE: &str = "public.bare";
/// Counted by a trigger of the schema.
pub const TEXTS: &str = "tidemark.texts";
/// A feed of all rows.
pub const ALL_ROWS: &str = "public.all_rows";
/// A feed with a condition that every row fulfils.
pub const FILTERED: &str = "public.filtered";

/// The feeds that [`TestBed::add_feeds`] adds: table and filter.
pub const FEEDS: [(&str, Option<&str>); 2] = [(ALL_ROWS, None), (FILTERED, Some("body LIKE 'a %'"))];

/// What stands after `INSERT INTO table`.
pub const ROW: &str = "(id, body) VALUES (gen_random_uuid(), 'a text of the usual length')";

pub struct TestBed {
    pub url: String,
    pub database: DatabaseUrl,
    pub admin: PgConnection,
}

impl TestBed {
    pub async fn prepare(url: String) -> Self {
        let database = DatabaseUrl::parse(&url).unwrap();
        store::migrate(&database).await.unwrap();
        let mut bed = Self { admin: PgConnection::connect(&url).await.unwrap(), database, url };
        for table in [BARE, ALL_ROWS, FILTERED] {
            bed.execute(format!(
                "CREATE TABLE IF NOT EXISTS {table} (seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id uuid NOT NULL UNIQUE,
                   body text NOT NULL CHECK (char_length(body) BETWEEN 1 AND 10000), created_at timestamptz NOT NULL DEFAULT now())"
            ))
            .await;
        }
        bed
    }

    pub async fn of(files: &ServerFiles, server: &Server) -> Self {
        Self::prepare(format!("postgres://postgres:{}@{}/postgres", files.password, server.addr)).await
    }

    /// The feeds of [`FEEDS`], unless they are there.
    pub async fn add_feeds(&mut self) {
        let present = store::own_feeds(&self.database).await.unwrap().feeds;
        for (table, filter) in FEEDS {
            let feed = feed(table, filter);
            if !present.iter().any(|present| present.name == feed.name()) {
                store::add_own_feed(&self.database, &feed).await.unwrap();
            }
        }
    }

    pub async fn execute(&mut self, statement: String) {
        self.admin.execute(AssertSqlSafe(statement)).await.unwrap();
    }

    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    pub async fn truncate(&mut self) {
        self.execute(format!("TRUNCATE {BARE}, {TEXTS}, {ALL_ROWS}, {FILTERED}")).await;
    }

    /// Adds all deltas to their bases, as readers do.
    pub async fn fold(&mut self) {
        loop {
            let fold = sqlx::query_scalar("SELECT tidemark.fold_feeds(50000)");
            let folded: Option<i64> = fold.fetch_one(&mut self.admin).await.unwrap();
            if folded == Some(0) {
                return;
            }
        }
    }

    pub async fn close(self) {
        self.admin.close().await.unwrap();
    }
}

/// A feed whose name is that of its table.
pub fn feed(table: &str, filter: Option<&str>) -> OwnFeed {
    OwnFeed::new(table.trim_start_matches("public."), table, filter, store::Follow::Table).unwrap()
}

/// A reader as a dashboard has one. It folds.
pub struct RunningReader {
    pub reader: Reader,
    tracker: TaskTracker,
    token: CancellationToken,
}

impl RunningReader {
    pub fn start(config: ReaderConfig) -> Self {
        let (tracker, token) = (TaskTracker::new(), CancellationToken::new());
        let metrics = ReaderMetrics::register(&Registry::new()).unwrap();
        let reader = Reader::start(config, metrics, &tracker, token.clone());
        Self { reader, tracker, token }
    }

    pub async fn stop(self) {
        self.token.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}
