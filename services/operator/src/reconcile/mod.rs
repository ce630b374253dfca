//! From a Board to its running children, in five steps, a file each: [`dereference`] -> [`validate`] -> [`build`] -> [`apply`] -> [`update_status`].
//! Only the first and the last two hold a client. Nothing is assumed about why a reconcile runs: every one looks at everything.

pub mod apply;
pub mod build;
pub mod dereference;
pub mod pods;
pub mod resources;
pub mod status;
#[cfg(test)]
mod tests;
pub mod update_status;
pub mod validate;

use std::{sync::Arc, time::Duration};

use kube::{ResourceExt, core::DeserializeGuard, runtime::controller::Action};
use rand::{TryRng, rngs::SysRng};
use tokio::time::Instant;

use crate::{
    board::{Board, BoardStatus},
    context::Context,
    dashboards::Report,
    metrics::Outcome,
};

/// Requeue interval for state that is not watched: connections and feed problems, a Secret or
/// StorageClass that was missing, an older Board that has gone.
pub const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// A new password: 40 characters of 32 make 200 bits.
const PASSWORD: usize = 40;
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// A reconcile failed. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The first step.
    #[error("failed to look at the cluster")]
    Dereference(#[from] dereference::Error),
    /// A child.
    #[error("failed to apply a child")]
    Apply(#[from] apply::Error),
    /// The last step.
    #[error("failed to tell how the Board is")]
    UpdateStatus(#[from] update_status::Error),
    /// The operating system has no random numbers.
    #[error("failed to make a password")]
    Password(#[from] rand::rngs::SysError),
}

/// Reconciles one Board, and counts it.
///
/// # Errors
/// When it is to be tried again.
pub async fn reconcile(board: Arc<DeserializeGuard<Board>>, context: Arc<Context>) -> Result<Action, Error> {
    let started = Instant::now();
    let result = match &board.0 {
        Ok(board) => reconcile_board(board, &context).await.map(|outcome| (outcome, Action::requeue(LOOK_AGAIN))),
        Err(invalid) => {
            tracing::warn!(
                name = invalid.metadata.name,
                namespace = invalid.metadata.namespace,
                error = invalid.error,
                "a Board cannot be decoded"
            );
            context.events.undecodable(invalid, &kube::Resource::object_ref(&*board, &())).await;
            Ok((Outcome::Undecodable, Action::await_change()))
        }
    };
    let outcome = result.as_ref().map_or(Outcome::Failed, |(outcome, _)| *outcome);
    context.metrics.reconciled(outcome, started.elapsed());
    if result.is_ok() {
        context.backoff.forget(&board.name_any(), board.namespace().as_deref());
    }
    result.map(|(_, action)| action)
}

async fn reconcile_board(board: &Board, context: &Context) -> Result<Outcome, Error> {
    let Context { client, events, dashboards, .. } = context;
    let namespace = board.namespace().unwrap_or_default();
    // A Board that is being deleted takes its children along; whatever is made now would only be in the way.
    if board.metadata.deletion_timestamp.is_some() {
        return Ok(Outcome::Progressing);
    }
    // dereference
    let mut seen = dereference::dereference(client, board, &namespace).await?;
    Report { connections: seen.connections, feed_problems: seen.feed_problems } =
        dashboards.report(board, &seen.pods).await;
    // validate (no client required)
    let valid = match validate::validate(board, &seen) {
        Ok(valid) => valid,
        Err(problems) => {
            let untouched = seen.children.clone().untouched();
            let status = update_status::update_status(client, events, board, &untouched, &seen, problems).await?;
            return Ok(outcome(&status));
        }
    };
    // build (no client required)
    let password = if valid.make_secret { password()? } else { String::new() };
    let plan = build::build(&valid, &seen, &password);
    // apply
    let applied = apply::apply(client, &valid, plan, &seen.children).await;
    // update status
    let status =
        update_status::update_status(client, events, board, &applied.resources, &seen, applied.problems).await?;
    applied.failed.map_or_else(|| Ok(outcome(&status)), |error| Err(error.into()))
}

fn outcome(status: &BoardStatus) -> Outcome {
    let holds = |type_| status.conditions.iter().any(|one| one.type_ == type_ && one.status == "True");
    if holds(status::DEGRADED) {
        Outcome::Degraded
    } else if holds(status::PROGRESSING) {
        Outcome::Progressing
    } else {
        Outcome::Settled
    }
}

/// Letters and digits that fit into a URL as they are, from the operating system's random numbers.
fn password() -> Result<String, rand::rngs::SysError> {
    let mut bytes = [0; PASSWORD];
    SysRng.try_fill_bytes(&mut bytes)?;
    // 256 is a multiple of 32, so every character is equally likely.
    Ok(bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect())
}
