//! The last step: writes the status if it changed, and tells about it in events. Holds a client.

use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{
    dereference::Seen,
    resources::{Applied, Resources},
    status::status,
};
use crate::{
    board::{Board, BoardStatus},
    events::Events,
    names::OPERATOR,
    problem::Problem,
};

/// The status could not be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to write the Board's status")]
pub struct Error(#[from] kube::Error);

/// Writes what is new and gives the whole status.
///
/// # Errors
/// When the API server refuses it or does not answer.
pub async fn update_status(
    client: &Client,
    events: &Events,
    board: &Board,
    resources: &Resources<Applied>,
    seen: &Seen,
    problems: Vec<Problem>,
) -> Result<BoardStatus, Error> {
    let new = status(board, resources, seen, problems, Timestamp::now());
    if board.status.as_ref() == Some(&new) {
        return Ok(new);
    }
    let api = Api::<Board>::namespaced(client.clone(), &board.namespace().unwrap_or_default());
    let (version, kind) = (Board::api_version(&()), Board::kind(&()));
    let patch = json!({ "apiVersion": version, "kind": kind, "status": new });
    api.patch_status(&board.name_any(), &PatchParams::apply(OPERATOR).force(), &Patch::Apply(&patch)).await?;
    events.changed(board, &new).await;
    Ok(new)
}
