//! Every part of the crate at work at once on one address of the database, as the programs run them.

use std::time::Duration;

use prometheus::Registry;
use sqlx::{Connection, PgConnection};
use store::{
    DatabaseUrl, Doorbell, LatestSamples, Reader, ReaderConfig, Samples, SaveError, TextWriter, Texts, TextsConfig,
    VisitorMetrics, VisitorTiming, Visitors, VisitorsConfig, WriterConfig, WriterMetrics, add_own_feed, own_feeds,
    remove_own_feed,
};
use test_support::wait_until;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::common::{
    LONG, Stage, count_is, metric,
    own::{feed, number},
    samples::{Storing, config, this_second, until},
    view_is,
};

/// Writers of texts, each as a replica of the app has one.
const WRITERS: usize = 8;

/// Replicas that count visitors, and the visits of each that stay.
const REPLICAS: usize = 2;
const VISITS: usize = 20;

/// Servers and seconds of which each replica stores samples.
const SERVERS: usize = 5;
const SECONDS: i64 = 3;

/// A tenth of the default times, and frequent audits.
const QUICK: VisitorTiming = VisitorTiming {
    beat: Duration::from_millis(500),
    lease: Duration::from_millis(1_500),
    trusted: Duration::from_millis(2_000),
    grace: Duration::from_millis(300),
    audit: Duration::from_millis(500),
};

/// Where the parts work, and who works beside them.
pub struct Load {
    /// Where the parts connect.
    pub database: DatabaseUrl,
    /// Where the reader listens.
    pub listen: DatabaseUrl,
    /// Programs of the user that write to the counted table, in SERIALIZABLE transactions.
    pub users: usize,
}

impl Load {
    /// Saves `saves` texts while everything else works. Checks that every call succeeded, that nothing failed and was tried
    /// again, and that the numbers are right.
    ///
    /// The parts connect before there is any load: the driver yields 800 times while it computes the answer to a password,
    /// and a connection must be there within one second.
    pub async fn run(&self, stage: &Stage, saves: usize) {
        self.change_feeds(stage).await;
        let reader = self.reader(stage).await;
        let saving = Saving::start(self, stage).await;
        let visiting = Visiting::start(self, stage).await;
        let sampling = Sampling::start(self, stage).await;
        let (token, mut users) = (CancellationToken::new(), JoinSet::new());
        for _ in 0..self.users {
            let connection = PgConnection::connect_with(&stage.options).await.unwrap();
            users.spawn(write(connection, token.clone()));
        }
        tokio::join!(saving.run(stage, saves), visiting.run(stage), sampling.run());
        token.cancel();
        for committed in users.join_all().await {
            assert!(committed > 0);
        }
        count_is(&reader, stage.rows().await).await;
        assert_eq!(metric(&stage.registry, "tidemark_read_failures_total", ""), 0.0);
    }

    async fn change_feeds(&self, stage: &Stage) {
        stage.orders().await;
        let all = feed("orders", "public.orders", None);
        let open = feed("open", "public.orders", Some("status = 'open'"));
        for feed in [&all, &open] {
            add_own_feed(&self.database, feed).await.unwrap();
        }
        stage.orders_agree("added").await;
        assert_eq!(own_feeds(&self.database).await.unwrap().feeds.len(), 2);
        remove_own_feed(&self.database, "open").await.unwrap();
    }

    async fn reader(&self, stage: &Stage) -> Reader {
        let config = ReaderConfig { listen: self.listen.clone(), ..ReaderConfig::new(self.database.clone(), "load") };
        let reader = stage.reader(config);
        view_is(&reader, "the reader listens", |view| view.doorbell == Doorbell::Listening).await;
        reader
    }
}

struct Saving {
    writers: Vec<TextWriter>,
    texts: Texts,
}

impl Saving {
    async fn start(load: &Load, stage: &Stage) -> Self {
        let texts = Texts::new(TextsConfig { database: load.database.clone(), application_name: "load".into() });
        let mut writers = Vec::new();
        for _ in 0..WRITERS {
            let config = WriterConfig { database: load.database.clone(), application_name: "load".into() };
            let metrics = WriterMetrics::register(&Registry::new()).unwrap();
            let writer = TextWriter::start(config, metrics, &stage.tracker, stage.token.clone());
            writer.save(Uuid::new_v4(), "the first".into(), None).await.unwrap();
            texts.page(1, None).await.unwrap();
            writers.push(writer);
        }
        Self { writers, texts }
    }

    async fn run(self, stage: &Stage, saves: usize) {
        let mut callers = JoinSet::new();
        for (number, writer) in self.writers.into_iter().enumerate() {
            // One reads, and not soon again, so that the pool needs no second connection.
            let texts = (number == 0).then(|| self.texts.clone());
            callers.spawn(async move { call(&writer, texts.as_ref(), saves / WRITERS).await });
        }
        callers.join_all().await;
        let saved = "SELECT count(*) FROM tidemark.texts WHERE body LIKE 'text %'";
        assert_eq!(number(&stage.pool, saved).await, i64::try_from(saves / WRITERS * WRITERS).unwrap());
        self.texts.close().await;
    }
}

/// Saves texts one after the other, with a case of every answer now and then.
async fn call(writer: &TextWriter, texts: Option<&Texts>, saves: usize) {
    for number in 0..saves {
        let id = Uuid::new_v4();
        let text = format!("text {number} of a caller");
        let saved = writer.save(id, text.clone(), None).await;
        assert!(saved.is_ok(), "save {number}: {saved:?}");
        if number % 50 == 0 {
            assert_eq!(writer.save(id, text, None).await, saved, "the same again");
            assert_eq!(writer.save(id, "another text".into(), None).await, Err(SaveError::Conflict));
            let empty = writer.save(Uuid::new_v4(), String::new(), None).await;
            assert!(matches!(empty, Err(SaveError::Rejected { .. })), "{empty:?}");
        }
        if let (Some(texts), 25) = (texts, number % 50) {
            let page = texts.page(1, saved.map(|text| text.seq + 1).ok()).await.unwrap();
            assert_eq!(page[0].id, id);
        }
    }
}

struct Visiting {
    replicas: Vec<(Visitors, Registry)>,
}

impl Visiting {
    async fn start(load: &Load, stage: &Stage) -> Self {
        let mut replicas = Vec::new();
        for number in 1..=REPLICAS {
            let config = VisitorsConfig { timing: QUICK, ..VisitorsConfig::new(load.database.clone(), "load") };
            let registry = Registry::new();
            let metrics = VisitorMetrics::register(&registry).unwrap();
            replicas.push((Visitors::start(config, metrics, &stage.tracker, stage.token.clone()), registry));
            instances_and_connections_are(stage, (number, 0)).await;
        }
        Self { replicas }
    }

    async fn run(self, stage: &Stage) {
        let dead = "WITH dead AS (INSERT INTO tidemark.instances (id, name, lease_until) VALUES (gen_random_uuid(), 'dead', now()) RETURNING id)
            INSERT INTO tidemark.connections (visit, instance, n) SELECT gen_random_uuid(), id, 1 FROM dead";
        sqlx::query(dead).execute(&stage.pool).await.unwrap();
        for _ in 0..VISITS {
            for (visitors, _) in &self.replicas {
                let gone = Uuid::new_v4();
                visitors.connect(gone, 1);
                visitors.connect(Uuid::new_v4(), 1);
                visitors.disconnect(gone);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Without those that have gone, and without the dead replica's.
        instances_and_connections_are(stage, (REPLICAS, REPLICAS * VISITS)).await;
        for (_, registry) in &self.replicas {
            assert_eq!(metric(registry, "tidemark_visitor_leases_lost_total", ""), 0.0);
            assert_eq!(metric(registry, "tidemark_visitor_audit_differences_total", ""), 0.0);
        }
    }
}

async fn instances_and_connections_are(stage: &Stage, expected: (usize, usize)) {
    let what = format!("{expected:?} instances and connections");
    wait_until(LONG, &what, async || {
        let rows = "SELECT (SELECT count(*) FROM tidemark.instances), (SELECT count(*) FROM tidemark.connections)";
        let rows: (i64, i64) = sqlx::query_as(rows).fetch_one(&stage.pool).await.unwrap();
        rows == (expected.0 as i64, expected.1 as i64)
    })
    .await;
}

struct Sampling {
    replicas: [Storing; 2],
    latest: LatestSamples,
    list: Samples,
}

impl Sampling {
    async fn start(load: &Load, stage: &Stage) -> Self {
        let config = config(load.database.clone());
        let replicas = [(); 2].map(|()| Storing::start(stage, config.clone()));
        for replica in &replicas {
            replica.store(SERVERS, until(this_second(), 1));
            replica.stored(SERVERS as f64).await;
        }
        let latest = replicas[0].latest(stage, config.clone());
        let all = async || latest.get().is_some_and(|latest| latest.all().len() == SERVERS);
        wait_until(LONG, "the newest samples are read", all).await;
        let list = Samples::new(config, replicas[0].metrics.clone());
        list.newest(None, 1).await.unwrap();
        Self { replicas, latest, list }
    }

    async fn run(self) {
        let last = this_second() + chrono::Duration::seconds(SECONDS);
        for replica in &self.replicas {
            replica.store(SERVERS, until(last, SECONDS));
        }
        for replica in &self.replicas {
            replica.stored((SERVERS as i64 * (1 + SECONDS)) as f64).await;
        }
        let newest = async || self.latest.get().is_some_and(|latest| latest.all()[0].second == last);
        wait_until(LONG, "the newest samples are read again", newest).await;
        assert_eq!(self.list.newest(Some("server-1"), 2).await.unwrap()[0].second, last);
        for replica in &self.replicas {
            assert_eq!(replica.metric("tidemark_sample_store_failures_total"), 0.0);
            assert_eq!(replica.metric("tidemark_sample_read_failures_total"), 0.0);
        }
        self.list.close().await;
    }
}

/// Reads and writes the table of texts in SERIALIZABLE transactions, which may fail and are tried again. Gives how many were
/// committed.
async fn write(mut connection: PgConnection, token: CancellationToken) -> usize {
    let mut committed = 0;
    while !token.is_cancelled() {
        let mut transaction = connection.begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE").await.unwrap();
        let written = async {
            let read = "SELECT count(*) FROM tidemark.texts";
            let _: i64 = sqlx::query_scalar(read).fetch_one(&mut *transaction).await?;
            let insert = "INSERT INTO tidemark.texts (body) VALUES ('of a user')";
            sqlx::query(insert).execute(&mut *transaction).await?;
            transaction.commit().await
        };
        match written.await {
            Ok(()) => committed += 1,
            Err(error) => {
                let code = error.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()));
                assert_eq!(code.as_deref(), Some("40001"), "{error}");
            }
        }
    }
    committed
}
