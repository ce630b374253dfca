//! Turns a [`board::Board`] into a running stack, keeps it so, and tells how it is.
//!
//! [`controller`] says when, [`reconcile`] what: five steps, a file each. A Board runs on when the operator is away; nothing but changes waits for
//! it.

pub mod backoff;
pub mod board;
pub mod config;
pub mod contains;
pub mod context;
pub mod controller;
pub mod crds;
pub mod dashboards;
pub mod events;
pub mod exposition;
pub mod feed_problem;
#[cfg(test)]
mod fixtures;
pub mod hash;
pub mod metrics;
pub mod names;
pub mod problem;
pub mod quantity;
pub mod reconcile;

use std::{sync::Arc, time::Duration};

use kube::Client;
use runtime::{Admin, Signals, Tasks};
use tokio::net::TcpListener;

use crate::{context::Context, metrics::Metrics};

/// After the last reconcile, how long the admin server may take to end.
const STOP: Duration = Duration::from_secs(2);

/// Looks after Boards until told to stop.
///
/// # Errors
/// When the admin server breaks, or two metrics have one name.
pub async fn run(client: Client, listener: TcpListener, signals: Signals) -> anyhow::Result<()> {
    let (tasks, admin) = (Tasks::default(), Admin::default());
    let metrics = Metrics::register(&admin.registry)?;
    let crd = admin.readiness.condition("crd");
    let mut serving = admin.serve(listener, &tasks);
    let context = Arc::new(Context::new(client, metrics));
    let controller = async {
        if controller::wait_for_crd(&context.client, &crd, &signals.stop).await {
            controller::run(Arc::clone(&context), signals.stop.clone()).await;
        }
    };
    tokio::select! {
        () = controller => anyhow::ensure!(signals.stop.is_cancelled(), "the controller ended by itself"),
        () = signals.hurry.cancelled() => {}
        ended = &mut serving => ended??,
    }
    tasks.stop(STOP).await;
    Ok(())
}
