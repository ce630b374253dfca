//! What the tests of this crate share: a database of their own, the tasks under test, and a look at the metrics.
#![allow(dead_code, reason = "each test file is a program of its own and uses a part of this")]

pub mod own;
pub mod samples;

use std::{net::SocketAddr, time::Duration};

use prometheus::Registry;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use store::{
    DatabaseUrl, Intervals, Reader, ReaderConfig, ReaderMetrics, Reading, Rest, TextWriter, View, WriterConfig,
    WriterMetrics,
};
use test_support::{Proxy, wait_for, wait_until};
use tokio::{net::lookup_host, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Long against anything that a healthy system does, also on a machine that compiles at the same time.
pub const LONG: Duration = Duration::from_secs(20);

/// A poll this slow never helps a test to pass.
pub const NEVER: Duration = Duration::from_secs(3600);

pub struct Stage {
    pub pool: PgPool,
    pub options: PgConnectOptions,
    pub registry: Registry,
    pub tracker: TaskTracker,
    pub token: CancellationToken,
}

impl Stage {
    pub fn new(_: PgPoolOptions, options: PgConnectOptions) -> Self {
        let pool = PgPoolOptions::new().max_connections(10).connect_lazy_with(options.clone());
        let (registry, tracker, token) = (Registry::new(), TaskTracker::new(), CancellationToken::new());
        Self { pool, options, registry, tracker, token }
    }

    pub fn database(&self) -> DatabaseUrl {
        self.options.clone().into()
    }

    /// A proxy in front of the server, and the address of the database through it.
    pub async fn proxy(&self) -> (Proxy, DatabaseUrl) {
        let target: SocketAddr =
            lookup_host((self.options.get_host(), self.options.get_port())).await.unwrap().next().unwrap();
        let proxy = Proxy::start(target).await.unwrap();
        let through = self.options.clone().host("127.0.0.1").port(proxy.addr().port());
        (proxy, through.into())
    }

    pub fn config(&self) -> ReaderConfig {
        ReaderConfig::new(self.database(), "reader-under-test")
    }

    /// A reader that only a bell can wake.
    pub fn config_without_poll(&self) -> ReaderConfig {
        ReaderConfig { intervals: Intervals { poll: NEVER, ..Intervals::default() }, ..self.config() }
    }

    pub fn reader(&self, config: ReaderConfig) -> Reader {
        let metrics = ReaderMetrics::register(&self.registry).unwrap();
        Reader::start(config, metrics, &self.tracker, self.token.clone())
    }

    /// A reader as another replica has it. Its metrics are not looked at.
    pub fn other_reader(&self, config: ReaderConfig) -> Reader {
        let metrics = ReaderMetrics::register(&Registry::new()).unwrap();
        Reader::start(config, metrics, &self.tracker, self.token.clone())
    }

    pub fn writer(&self, database: DatabaseUrl) -> TextWriter {
        let metrics = WriterMetrics::register(&self.registry).unwrap();
        let config = WriterConfig { database, application_name: "writer-under-test".into() };
        TextWriter::start(config, metrics, &self.tracker, self.token.clone())
    }

    /// [`metric`] of the tasks that this stage started.
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        metric(&self.registry, name, label)
    }

    /// How many batches of texts were written, and how many rows in all.
    pub fn batches(&self) -> (u64, f64) {
        batches(&self.registry, "tidemark_text_batch_rows")
    }

    pub async fn insert(&self, body: &str) {
        sqlx::query("INSERT INTO tidemark.texts (body) VALUES ($1)").bind(body).execute(&self.pool).await.unwrap();
    }

    pub async fn rows(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM tidemark.texts").fetch_one(&self.pool).await.unwrap()
    }

    /// Waits until the reader sleeps: the next writer will ring, and no more readings come.
    pub async fn asleep(&self, reader: &Reader) {
        let mut view = reader.subscribe();
        wait_until(LONG, "the reader sleeps", async || {
            let asleep = view.borrow_and_update().rest == Rest::Asleep;
            // Awake it reads every 20 ms, or every 200 ms while a writer is at work.
            asleep && timeout(Duration::from_millis(60), view.changed()).await.is_err()
        })
        .await;
    }

    /// Ends the tasks, which must not take longer than a second.
    pub async fn end(self) {
        self.token.cancel();
        self.tracker.close();
        timeout(Duration::from_secs(1), self.tracker.wait()).await.expect("the tasks end in time");
        timeout(LONG, self.pool.close()).await.expect("the test has given its connections back");
    }
}

/// Migrates as the app does: it tries again if it gets no connection in time, as may happen on a busy machine.
pub async fn migrated(database: &DatabaseUrl) {
    while let Err(error) = store::migrate(database).await {
        assert!(error.is_passing(), "{error:?}");
    }
}

/// The sum of a counter or gauge over all its labels that have this value; `""` takes all.
pub fn metric(registry: &Registry, name: &str, label: &str) -> f64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name).expect(name);
    let metrics = family.get_metric().iter();
    let chosen =
        metrics.filter(|metric| label.is_empty() || metric.get_label().iter().any(|pair| pair.value() == label));
    chosen.map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value()).sum()
}

/// How often a histogram was told something, and the sum of it.
pub fn batches(registry: &Registry, name: &str) -> (u64, f64) {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name).expect(name);
    let histogram = family.get_metric()[0].get_histogram();
    (histogram.get_sample_count(), histogram.get_sample_sum())
}

pub fn count(reading: &Reading) -> i64 {
    let texts = reading.feeds.iter().find(|feed| feed.name == "texts").unwrap();
    assert_eq!(texts.fields[0].0, "count");
    texts.fields[0].1
}

pub fn version(reading: &Reading) -> u64 {
    reading.feeds.iter().find(|feed| feed.name == "texts").unwrap().version
}

/// Waits until the view fulfils the condition; gives the time that it took.
pub async fn view_is(reader: &Reader, what: &str, condition: impl Fn(&View) -> bool) -> Duration {
    let view = reader.subscribe();
    wait_until(LONG, what, async || condition(&view.borrow())).await
}

/// Waits until the reader shows this count; gives the time that it took.
pub async fn count_is(reader: &Reader, expected: i64) -> Duration {
    let what = format!("the reader shows {expected}");
    view_is(reader, &what, |view| view.reading.as_ref().is_some_and(|reading| count(reading) == expected)).await
}

/// Waits until a backend waits for a lock, so that what was sent is known to be in flight.
pub async fn a_backend_waits(pool: &PgPool) {
    let query = "SELECT true FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    wait_for(LONG, "a backend waits for a lock", async || {
        sqlx::query_scalar::<_, bool>(query).fetch_optional(pool).await.unwrap()
    })
    .await;
}
