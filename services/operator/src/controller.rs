//! When a Board is reconciled: when it changes, when one of its children or pods does, and every 30 s.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    batch::v1::Job,
    core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount},
    networking::v1::{Ingress, NetworkPolicy},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::ListParams,
    core::DeserializeGuard,
    runtime::{
        Controller,
        controller::{self, Action},
        reflector::ObjectRef,
        watcher,
    },
};
use runtime::Condition;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    board::Board,
    context::Context,
    names::{INSTANCE, managed},
    reconcile::{Error, reconcile},
};

/// A pod that starts changes several times within moments: they are one reconcile.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// Boards that are reconciled at the same time.
const CONCURRENCY: u16 = 4;
/// How often a missing CRD is looked for.
const LOOK_FOR_CRD: Duration = Duration::from_secs(2);

/// Waits for the CRD, and says how to install it as long as it is not there. False if told to stop before.
pub async fn wait_for_crd(client: &Client, ready: &Condition, stop: &CancellationToken) -> bool {
    let boards = Api::<DeserializeGuard<Board>>::all(client.clone());
    let mut said = String::new();
    loop {
        let missing = match boards.list(&ListParams::default().limit(1)).await {
            Ok(_) => {
                ready.set(true, "installed");
                return true;
            }
            // A path that the API server does not know at all has a page instead of a status, so only the code tells it.
            Err(kube::Error::Api(status)) if status.code == 404 => {
                "the CRD boards.tidemark.dev is not installed; install it: kubectl apply --server-side -f k8s/crds"
                    .to_owned()
            }
            Err(error) => format!("Boards cannot be listed: {error}"),
        };
        if said != missing {
            tracing::warn!("{missing}");
            ready.set(false, missing.clone());
            said = missing;
        }
        tokio::select! {
            () = sleep(LOOK_FOR_CRD) => {}
            () = stop.cancelled() => return false,
        }
    }
}

/// Reconciles until told to stop; reconciles that run are finished.
pub async fn run(context: Arc<Context>, stop: CancellationToken) {
    let client = &context.client;
    let ours = watcher::Config::default().labels(&managed());
    let boards = Api::<DeserializeGuard<Board>>::all(client.clone());
    // Deleting a child or taking its labels away is a change as well: no predicate filters here.
    Controller::new(boards, watcher::Config::default().any_semantic())
        .owns(Api::<Deployment>::all(client.clone()), ours.clone())
        .owns(Api::<StatefulSet>::all(client.clone()), ours.clone())
        .owns(Api::<Job>::all(client.clone()), ours.clone())
        .owns(Api::<Service>::all(client.clone()), ours.clone())
        .owns(Api::<ServiceAccount>::all(client.clone()), ours.clone())
        .owns(Api::<ConfigMap>::all(client.clone()), ours.clone())
        .owns(Api::<PodDisruptionBudget>::all(client.clone()), ours.clone())
        .owns(Api::<NetworkPolicy>::all(client.clone()), ours.clone())
        .owns(Api::<Ingress>::all(client.clone()), ours.clone())
        // Pods belong to ReplicaSets and the Secret to nobody: both name their Board in a label.
        .watches(Api::<Pod>::all(client.clone()), ours.clone(), |pod| board_of(&pod))
        .watches(Api::<Secret>::all(client.clone()), ours, |secret| board_of(&secret))
        .with_config(controller::Config::default().debounce(DEBOUNCE).concurrency(CONCURRENCY))
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, error_policy, Arc::clone(&context))
        .for_each(async |result| match result {
            Ok((board, _)) => tracing::debug!(%board, "reconciled"),
            Err(controller::Error::ObjectNotFound(board)) => {
                context.backoff.forget(&board.name, board.namespace.as_deref());
            }
            // The policy has told it, with the Board's name and the whole cause.
            Err(controller::Error::ReconcilerFailed(..)) => {}
            Err(error) => tracing::warn!(error = chain(&error), "a watch failed and is begun again"),
        })
        .await;
}

/// The Board that an object names in its label.
fn board_of(object: &impl Resource) -> Option<ObjectRef<DeserializeGuard<Board>>> {
    let meta = object.meta();
    let board = meta.labels.as_ref()?.get(INSTANCE)?;
    Some(ObjectRef::new(board).within(meta.namespace.as_deref()?))
}

fn error_policy(board: Arc<DeserializeGuard<Board>>, error: &Error, context: Arc<Context>) -> Action {
    let (name, namespace) = (board.name_any(), board.namespace().unwrap_or_default());
    let wait = context.backoff.failed(&name, Some(&namespace));
    tracing::warn!(name, namespace, error = chain(error), again_in_s = wait.as_secs(), "a reconcile failed");
    Action::requeue(wait)
}

/// An error with all its causes in one line.
fn chain(error: &impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
