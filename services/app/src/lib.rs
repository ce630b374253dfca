//! `POST /save`, `GET /all`, and the page's files.
//!
//! [`routes`] holds every route and what all answers have in common; [`save`], [`list`] and [`page`] one endpoint each; [`schema`] brings the
//! database up to date, at the start or by `app migrate`.

pub mod config;
pub mod cursor;
pub mod error;
pub mod list;
pub mod page;
pub mod routes;
pub mod save;
pub mod schema;
pub mod trace;

use std::{path::PathBuf, time::Duration};

use runtime::{Admin, HttpMetrics, Listeners, REQUEST_TIMEOUT, Signals, Tasks};
use store::{DatabaseUrl, TextWriter, Texts, TextsConfig, WriterConfig, WriterMetrics};
use tokio::time::timeout;

use crate::routes::App;

/// How long requests in flight may take after the signal to stop. None takes longer than [`REQUEST_TIMEOUT`].
const FINISH: Duration = REQUEST_TIMEOUT;

/// After the last request, how long tasks may take to end. What the writer still holds has no caller any more.
const STOP: Duration = Duration::from_secs(1);

/// What one replica is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its name; it must be fit for a header.
    pub replica: String,
    /// Where texts are stored.
    pub database: DatabaseUrl,
    /// Directory of the built page.
    pub page_dir: PathBuf,
    /// Whether to bring the schema up to date, or only to wait for it.
    pub migrate: bool,
}

/// Serves until it is told to stop, then finishes the requests in flight and returns.
///
/// # Errors
/// When a listener breaks, or two metrics have one name.
pub async fn run(settings: Settings, listeners: Listeners, signals: Signals) -> anyhow::Result<()> {
    let Settings { replica, database, page_dir, migrate } = settings;
    let (tasks, admin) = (Tasks::default(), Admin::default());
    let schema = schema::follow(database.clone(), migrate, admin.readiness.condition("schema"));
    tasks.tracker.spawn(tasks.token.clone().run_until_cancelled_owned(schema));

    let writer = WriterConfig { database: database.clone(), application_name: replica.clone() };
    let metrics = WriterMetrics::register(&admin.registry)?;
    let app = App {
        writer: TextWriter::start(writer, metrics, &tasks.tracker, tasks.token.clone()),
        texts: Texts::new(TextsConfig { database, application_name: replica.clone() }),
    };
    let texts = app.texts.clone();
    let router = routes::router(app, &page_dir, &replica, HttpMetrics::register(&admin.registry, "page")?)?;

    let finishing = runtime::serve(listeners, router, admin, &tasks, &signals).await?;
    tracing::info!("finishing requests");
    tokio::select! {
        finished = timeout(FINISH, finishing) => tracing::info!(all = finished.is_ok(), "requests finished"),
        () = signals.hurry.cancelled() => tracing::info!("closing at once"),
    }
    // Their connections may be stuck; the process ends anyway.
    let _ = timeout(STOP, texts.close()).await;
    tasks.stop(STOP).await;
    Ok(())
}
