//! The second step: turns a Board and what was seen into a plan that can be built, or says why not. Pure.
//!
//! The API server has checked most of it already, by the CRD. This is for Boards that came through an older CRD.

use kube::{Resource, ResourceExt};

use super::dereference::{SecretSeen, Seen};
use crate::{
    board::{Board, BoardSpec, Postgres, Quantities},
    names::{CLAIM, POSTGRES},
    problem::{Problem, Reason},
    quantity,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

/// A Board that can be built.
#[derive(Debug, Clone)]
pub struct Valid {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// How its children name it.
    pub owner: OwnerReference,
    /// Its spec, with the choice of the database taken out.
    pub spec: BoardSpec,
    /// The database.
    pub database: Database,
    /// Whether the database's Secret is to be made.
    pub make_secret: bool,
    /// What is wrong without keeping the rest from running.
    pub problems: Vec<Problem>,
}

/// Which database.
#[derive(Debug, Clone)]
pub enum Database {
    /// The Board's own.
    Managed(Postgres),
    /// One that is already there, by the name of its Secret.
    External(String),
}

impl Database {
    /// The Secret with the URL.
    pub fn secret(&self) -> &str {
        match self {
            Self::Managed(_) => POSTGRES,
            Self::External(secret) => secret,
        }
    }
}

/// Checks what can be checked without asking anybody.
///
/// # Errors
/// With every problem that keeps the Board from being built.
pub fn validate(board: &Board, seen: &Seen) -> Result<Valid, Vec<Problem>> {
    if let Some(older) = &seen.older {
        let message = format!(
            "the Board {older} lives in this namespace already, and a namespace has room for one; delete this one or make it elsewhere"
        );
        return Err(vec![Problem::new(Reason::NamespaceOccupied, message)]);
    }
    let spec = &board.spec;
    let mut wrong = Vec::new();
    let mut check = |holds: bool, message: &str| {
        if !holds {
            wrong.push(Problem::new(Reason::InvalidSpec, format!("spec.{message}; edit the Board")));
        }
    };
    check((1..=100).contains(&spec.app.replicas), "app.replicas must be between 1 and 100");
    check((1..=100).contains(&spec.dashboard.replicas), "dashboard.replicas must be between 1 and 100");
    let generator = &spec.metric_generator;
    check((1..=100).contains(&generator.replicas), "metricGenerator.replicas must be between 1 and 100");
    check((1..=1000).contains(&generator.server_count), "metricGenerator.serverCount must be between 1 and 1000");
    check((0..=300).contains(&spec.dashboard.drain_seconds), "dashboard.drainSeconds must be between 0 and 300");
    check(quantities(spec), "resources must be amounts such as 50m or 64Mi");
    let database = match (&spec.database.postgres, &spec.database.external) {
        (Some(postgres), None) => {
            check(quantity::parse(&postgres.storage.size.0).is_some(), "database.postgres.storage.size must be a size");
            Some(Database::Managed(postgres.clone()))
        }
        (None, Some(external)) => Some(Database::External(external.secret_name.clone())),
        _ => None,
    };
    check(database.is_some(), "database must be exactly one of postgres and external");
    let (Some(database), Some(owner), Some(namespace), true) =
        (database, board.controller_owner_ref(&()), board.namespace(), wrong.is_empty())
    else {
        return Err(wrong);
    };
    let (make_secret, problem) = secret(&database, seen);
    Ok(Valid {
        name: board.name_any(),
        namespace,
        owner,
        spec: spec.clone(),
        database,
        make_secret,
        problems: problem.into_iter().collect(),
    })
}

/// Whether the Secret is made, and what is wrong with it.
fn secret(database: &Database, seen: &Seen) -> (bool, Option<Problem>) {
    let missing = |message| Some(Problem::new(Reason::SecretMissing, message));
    match (database, seen.secret) {
        (_, SecretSeen::Usable) => (false, None),
        (Database::Managed(_), SecretSeen::Absent) if seen.claim.is_none() => (true, None),
        // The volume holds the old password: a new one would lock everybody out.
        (Database::Managed(_), SecretSeen::Absent) => (
            false,
            missing(format!(
                "the volume claim {CLAIM} is there but the Secret {POSTGRES} with its password is not; restore the Secret from a backup \
                 (keys username, password, database, url), or delete the claim if its data may go"
            )),
        ),
        (Database::Managed(_), SecretSeen::WithoutUrl) => (
            false,
            missing(format!(
                "the Secret {POSTGRES} has no key url; add it: postgres://user:password@host:port/database"
            )),
        ),
        (Database::External(name), SecretSeen::Absent) => (
            false,
            missing(format!(
                "the Secret {name} that spec.database.external names does not exist; make it with the key url: \
                 postgres://user:password@host:port/database"
            )),
        ),
        (Database::External(name), SecretSeen::WithoutUrl) => (
            false,
            missing(format!("the Secret {name} has no key url; add it: postgres://user:password@host:port/database")),
        ),
    }
}

fn quantities(spec: &BoardSpec) -> bool {
    let postgres = spec.database.postgres.as_ref().and_then(|postgres| postgres.resources.as_ref());
    let (app, dashboard) = (spec.app.resources.as_ref(), spec.dashboard.resources.as_ref());
    let all = [app, dashboard, spec.metric_generator.resources.as_ref(), postgres];
    let legal =
        |amounts: &Quantities| amounts.values().all(|amount| quantity::parse(&quantity::text(amount)).is_some());
    all.into_iter().flatten().all(|resources| legal(&resources.requests) && legal(&resources.limits))
}
