//! Pushes feeds to browsers: `GET /ws` and `GET /events`, protocol `tidemark.v1`.
//!
//! The way of a number: `store::Reader` -> [`stream_processor`] -> [`hub`] -> [`session`] -> the browser; [`servers`] brings into the hub what is asked of
//! the metric generator. [`gateway`] and `events` decide who may connect, [`admission`] how many at a time; the gateway tells [`db_updater`] of visits, [`drain`] how clients leave. [`metrics`], [`gauges`] and [`push`] say how it goes.

pub mod admission;
pub mod config;
pub mod db_updater;
pub mod drain;
mod events;
pub mod gateway;
pub mod gauges;
pub mod hub;
pub mod inbound;
pub mod metrics;
pub mod origin;
pub mod outlet;
pub mod push;
pub mod servers;
pub mod session;
pub mod sockets;
pub mod stream_processor;
pub mod wire;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use runtime::{Admin, Listeners, Signals, Tasks};
use store::{Reader, ReaderConfig, ReaderMetrics, VisitorMetrics, Visitors, VisitorsConfig};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use crate::{
    admission::{Gate, Limits},
    db_updater::DbUpdater,
    drain::{Drain, Window},
    gateway::Gateway,
    gauges::FeedGauges,
    hub::Hub,
    metrics::Metrics,
    origin::AllowedOrigins,
    push::Pushes,
    servers::{ServerMetrics, ServersConfig},
    session::Context,
    sockets::SocketOptions,
};

/// After the leftovers were told, how long tasks may take to end: a closing handshake has one second.
const STOP: Duration = Duration::from_millis(1_500);

/// What one replica is told.
#[derive(Debug)]
pub struct Settings {
    /// Its name.
    pub replica: String,
    /// Pages of other sites that may connect.
    pub origins: AllowedOrigins,
    /// How many clients are taken.
    pub limits: Limits,
    /// What the kernel is told about their sockets.
    pub sockets: SocketOptions,
    /// Over how long they are moved away at the end.
    pub drain: Window,
    /// Longest silence towards a client.
    pub beat: Duration,
    /// How long a write may make no progress.
    pub stall: Duration,
    /// How the database is read.
    pub reader: ReaderConfig,
    /// How visitors are counted.
    pub visitors: VisitorsConfig,
    /// How the metric generator is asked.
    pub servers: ServersConfig,
}

/// Serves until it is told to stop, then moves the clients away and returns; told to hurry, it does not wait for them.
///
/// # Errors
/// When a listener breaks, or two metrics have one name.
pub async fn run(settings: Settings, listeners: Listeners, signals: Signals) -> anyhow::Result<()> {
    let (tasks, admin) = (Tasks::default(), Admin::default());
    let feeds_ready = admin.readiness.condition("feeds");
    let hub = Arc::new(Hub::new(settings.replica, settings.beat));
    let reader =
        Reader::start(settings.reader, ReaderMetrics::register(&admin.registry)?, &tasks.tracker, tasks.token.clone());
    let pushes = Arc::<Pushes>::default();
    tasks.tracker.spawn(stream_processor::follow(
        reader.subscribe(),
        Arc::clone(&hub),
        Arc::clone(&pushes),
        feeds_ready,
    ));
    if runtime::traces_are_on() {
        tasks.tracker.spawn(Arc::clone(&pushes).run(tasks.token.clone()));
    }
    let (ready, metrics) = (admin.readiness.condition("servers"), ServerMetrics::register(&admin.registry)?);
    servers::start(settings.servers, Arc::clone(&hub), metrics, ready, &tasks.tracker, &tasks.token);
    admin.registry.register(Box::new(FeedGauges::new(Arc::clone(&hub))?))?;

    let metrics = VisitorMetrics::register(&admin.registry)?;
    let visitors = Visitors::start(settings.visitors, metrics, &tasks.tracker, tasks.token.clone());

    let (draining, drain) = watch::channel(None);
    let metrics = Metrics::register(&admin.registry)?;
    let context = Context { hub, reader, metrics, pushes, token: tasks.token.clone(), drain, stall: settings.stall };
    let (open, mut still_open) = watch::channel(0_usize);
    settings.sockets.set(&listeners.users).context("the sockets of users cannot be set up")?;
    let gateway = Gateway {
        origins: settings.origins,
        context: Arc::new(context),
        tasks: tasks.clone(),
        visitors: DbUpdater::new(visitors.clone()),
        gate: Arc::new(Gate::new(settings.limits, runtime::raise_file_limit(), Instant::now())),
        open,
    };

    let routes = gateway::router(Arc::new(gateway));
    runtime::serve(listeners, routes, admin, &tasks, &signals).await?;

    let (connections, peers) = (*still_open.borrow(), visitors.peers());
    let window = settings.drain.for_clients(connections, settings.limits.rate, peers);
    let drain = Drain::start(window);
    draining.send_replace(Some(drain));
    tracing::info!(connections, peers, window_ms = window.as_millis(), "moving clients away");
    tokio::select! {
        left = timeout_at(drain.ends(), still_open.wait_for(|open| *open == 0)) => {
            tracing::info!(everybody_left = left.is_ok(), "closing");
        }
        () = signals.hurry.cancelled() => tracing::info!("closing at once"),
    }
    tasks.stop(STOP).await;
    Ok(())
}
