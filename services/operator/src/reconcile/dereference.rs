//! The first step: fetches everything that a reconcile looks at. Holds a client.

use std::collections::BTreeSet;

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        core::v1::{PersistentVolumeClaim, Pod, Secret},
        storage::v1::StorageClass,
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, PartialObjectMeta},
};
use serde::de::DeserializeOwned;

use super::resources::{Live, Resources};
use crate::{
    board::Board,
    feed_problem::FeedProblem,
    names::{CLAIM, INSTANCE, PART_OF, POSTGRES, PRODUCT, URL_KEY, managed},
};

/// The cluster could not be asked.
#[derive(Debug, thiserror::Error)]
#[error("failed to read {what}")]
pub struct Error {
    what: &'static str,
    source: kube::Error,
}

/// What there is, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// When that was.
    pub at: Timestamp,
    /// The Board that was in the namespace before this one, if there is one.
    pub older: Option<String>,
    /// The children.
    pub children: Resources<Live>,
    /// Every pod of the Board.
    pub pods: Vec<Pod>,
    /// The database's Secret, its own or the named one.
    pub secret: SecretSeen,
    /// The claim of the database's volume.
    pub claim: Option<PersistentVolumeClaim>,
    /// A StorageClass that a waiting claim names and that does not exist.
    pub missing_class: Option<String>,
    /// Open live connections; `None` if no dashboard answered.
    pub connections: Option<i64>,
    /// The feeds that are not ok, also those that are not on the Board's list; `None` if no
    /// dashboard answered.
    pub feed_problems: Option<BTreeSet<FeedProblem>>,
}

/// What matters about the database's Secret. Its content stays where it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SecretSeen {
    /// There is none.
    #[default]
    Absent,
    /// It has no key [`URL_KEY`].
    WithoutUrl,
    /// It can be used.
    Usable,
}

/// Fetches it all, in parallel.
///
/// # Errors
/// When the API server does not answer, or the operator may not read.
pub async fn dereference(client: &Client, board: &Board, namespace: &str) -> Result<Seen, Error> {
    let at = Timestamp::now();
    let older = older(client, board, namespace).await?;
    if older.is_some() {
        return Ok(Seen { at, older, ..Seen::default() });
    }
    let instance = format!("{INSTANCE}={}", board.name_any());
    let children = format!("{},{instance}", managed());
    let pods = format!("{PART_OF}={PRODUCT},{instance}");
    let secret = board.spec.database.external.as_ref().map_or(POSTGRES, |external| &external.secret_name);
    let (
        service_accounts,
        config_maps,
        services,
        budgets,
        network_policies,
        stateful_sets,
        jobs,
        deployments,
        ingresses,
        pods,
        secret,
        claim,
    ) = tokio::try_join!(
        list(client, namespace, &children, "service accounts"),
        list(client, namespace, &children, "config maps"),
        list(client, namespace, &children, "services"),
        list(client, namespace, &children, "pod disruption budgets"),
        list(client, namespace, &children, "network policies"),
        list(client, namespace, &children, "stateful sets"),
        list(client, namespace, &children, "jobs"),
        list(client, namespace, &children, "deployments"),
        list(client, namespace, &children, "ingresses"),
        list(client, namespace, &pods, "pods"),
        secret_seen(client, namespace, secret),
        get::<PersistentVolumeClaim>(client, namespace, CLAIM, "the database's claim"),
    )?;
    let missing_class = match waiting_for_class(claim.as_ref()) {
        Some(class) => missing_class(client, class).await?,
        None => None,
    };
    let children = Resources {
        service_accounts,
        config_maps,
        services,
        budgets,
        network_policies,
        stateful_sets,
        jobs,
        deployments,
        ingresses,
        ..Resources::default()
    };
    // [`crate::dashboards`] adds what the dashboards report.
    Ok(Seen { at, children, pods, secret, claim, missing_class, ..Seen::default() })
}

/// The oldest Board of the namespace, if it is not this one. Only metadata is read: a Board that cannot be decoded lives there all the same.
async fn older(client: &Client, board: &Board, namespace: &str) -> Result<Option<String>, Error> {
    let boards = Api::<Board>::namespaced(client.clone(), namespace).list_metadata(&ListParams::default()).await;
    let boards = boards.map_err(|source| Error { what: "the namespace's Boards", source })?;
    // Two of the same second: the name decides, so that both sides agree.
    let age = |board: &PartialObjectMeta<Board>| (board.creation_timestamp().map(|time| time.0), board.name_any());
    Ok(boards
        .iter()
        .min_by_key(|board| age(board))
        .filter(|oldest| oldest.uid() != board.uid())
        .map(ResourceExt::name_any))
}

async fn list<K>(client: &Client, namespace: &str, labels: &str, what: &'static str) -> Result<Vec<K>, Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let list = Api::<K>::namespaced(client.clone(), namespace).list(&ListParams::default().labels(labels)).await;
    list.map(|list| list.items).map_err(|source| Error { what, source })
}

async fn get<K>(client: &Client, namespace: &str, name: &str, what: &'static str) -> Result<Option<K>, Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    Api::namespaced(client.clone(), namespace).get_opt(name).await.map_err(|source| Error { what, source })
}

async fn secret_seen(client: &Client, namespace: &str, name: &str) -> Result<SecretSeen, Error> {
    let secret: Option<Secret> = get(client, namespace, name, "the database's Secret").await?;
    Ok(match secret {
        None => SecretSeen::Absent,
        Some(secret) if secret.data.iter().flatten().any(|(key, value)| key == URL_KEY && !value.0.is_empty()) => {
            SecretSeen::Usable
        }
        Some(_) => SecretSeen::WithoutUrl,
    })
}

/// The class that a claim without a volume waits for.
fn waiting_for_class(claim: Option<&PersistentVolumeClaim>) -> Option<&str> {
    let claim = claim?;
    let pending = claim.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Pending"));
    claim.spec.as_ref()?.storage_class_name.as_deref().filter(|class| pending && !class.is_empty())
}

async fn missing_class(client: &Client, class: &str) -> Result<Option<String>, Error> {
    let found = Api::<StorageClass>::all(client.clone()).get_metadata_opt(class).await;
    let found = found.map_err(|source| Error { what: "the claim's StorageClass", source })?;
    Ok(found.is_none().then(|| class.to_owned()))
}
