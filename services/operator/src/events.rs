//! What `kubectl describe board` tells: events for what went wrong, what was mended, and the migration.

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Client, Resource,
    core::error_boundary::InvalidObject,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use crate::{
    board::{Board, BoardStatus},
    names::OPERATOR,
    problem::Reason,
    reconcile::status::{DEGRADED, MIGRATING, PROGRESSING},
};

/// What the API server takes as a note.
const NOTE: usize = 1000;

/// Publishes events. One for the whole controller: it counts repetitions instead of making new objects.
#[derive(Clone)]
pub struct Events(Recorder);

/// One event, before it is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Whether something is wrong.
    pub warning: bool,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub note: String,
}

impl Events {
    /// A recorder in the operator's name.
    pub fn new(client: Client) -> Self {
        Self(Recorder::new(client, Reporter { controller: OPERATOR.to_owned(), instance: None }))
    }

    /// Tells what is different between the Board's status and the new one.
    pub async fn changed(&self, board: &Board, new: &BoardStatus) {
        for told in told(board.status.as_ref().unwrap_or(&BoardStatus::default()), new) {
            self.publish(told, &board.object_ref(&())).await;
        }
    }

    /// Tells that a Board cannot be understood.
    pub async fn undecodable(&self, invalid: &InvalidObject, board: &ObjectReference) {
        let note = format!("the Board cannot be understood and is left alone: {}", invalid.error);
        self.publish(Told { warning: true, reason: Reason::InvalidSpec.to_string(), note }, board).await;
    }

    async fn publish(&self, told: Told, about: &ObjectReference) {
        let Told { warning, reason, note } = told;
        let note = note.chars().take(NOTE).collect();
        let type_ = if warning { EventType::Warning } else { EventType::Normal };
        let event = Event { type_, reason, note: Some(note), action: "Reconcile".to_owned(), secondary: None };
        if let Err(error) = self.0.publish(&event, about).await {
            tracing::warn!(%error, "an event could not be published");
        }
    }
}

/// A new reason of `Degraded`, its end, and a migration that is done.
pub fn told(old: &BoardStatus, new: &BoardStatus) -> Vec<Told> {
    let find = |status: &BoardStatus, type_| status.conditions.iter().find(|one| one.type_ == type_).cloned();
    let holds = |condition: &Option<Condition>| condition.as_ref().is_some_and(|one| one.status == "True");
    let mut told = Vec::new();
    let (before, after) = (find(old, DEGRADED), find(new, DEGRADED));
    if let Some(after) = after.as_ref().filter(|after| after.status == "True") {
        if before.as_ref().map(|before| &before.reason) != Some(&after.reason) {
            told.push(Told { warning: true, reason: after.reason.clone(), note: after.message.clone() });
        }
    } else if holds(&before) {
        told.push(Told {
            warning: false,
            reason: "Recovered".to_owned(),
            note: "nothing is wrong any more".to_owned(),
        });
    }
    let (before, after) = (find(old, PROGRESSING), find(new, PROGRESSING));
    let migrating = |condition: &Option<Condition>| condition.as_ref().is_some_and(|one| one.reason == MIGRATING);
    let failed = after.as_ref().is_some_and(|after| after.reason == Reason::MigrationFailed.as_str());
    if migrating(&before) && !migrating(&after) && !failed {
        let note = "the migration is done; this version's services start".to_owned();
        told.push(Told { warning: false, reason: "Migrated".to_owned(), note });
    }
    told
}
