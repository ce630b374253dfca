//! How a Board is, from what was applied and seen. Pure: the same state gives the same status, so that an idle Board is never written.

use k8s_openapi::{
    api::apps::v1::{Deployment, StatefulSet},
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kube::ResourceExt;

use super::{
    build::{completed, failed, job_of},
    dereference::Seen,
    pods,
    resources::{Applied, Resources, named},
};
use crate::{
    board::{Board, BoardStatus},
    feed_problem,
    names::{APP, CLAIM, DASHBOARD, FEEDS, METRIC_GENERATOR, MIGRATE, POSTGRES, selector},
    problem::{Problem, Reason},
};

/// The condition that tells whether users are served.
pub const AVAILABLE: &str = "Available";
/// The condition that tells whether a change is under way.
pub const PROGRESSING: &str = "Progressing";
/// The condition that tells whether something is wrong.
pub const DEGRADED: &str = "Degraded";
/// The condition that tells whether the database has the Board's list of feeds, and each of them is
/// ok.
pub const FEEDS_APPLIED: &str = "FeedsApplied";
/// The reason of [`PROGRESSING`] while the migration runs.
pub const MIGRATING: &str = "Migrating";

/// What is said of a change that is not under way, because the Board is left alone.
const NOTHING_DONE: &str = "nothing is done for this Board";

/// What one condition says.
struct Says {
    type_: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

/// The status. `now` is used only for conditions that change.
pub fn status(
    board: &Board,
    resources: &Resources<Applied>,
    seen: &Seen,
    mut problems: Vec<Problem>,
    now: Timestamp,
) -> BoardStatus {
    // A Board that shares its namespace has no children; what is seen there is another's.
    let old = board.status.clone().unwrap_or_default();
    problems.extend(found(resources, seen, &problems));
    problems.extend(feed_problems(board, &old, seen, &problems));
    problems.sort();
    problems.dedup();
    let says = [
        available(board, resources),
        progressing(resources, &problems),
        degraded(&problems),
        feeds_applied(resources, &problems),
    ];
    let deployment = |name| named(&resources.deployments, name);
    let dashboards = deployment(DASHBOARD);
    let ready = |name, wanted| Some(format!("{}/{wanted}", ready(deployment(name))));
    BoardStatus {
        conditions: says.into_iter().map(|says| condition(says, board, &old, now)).collect(),
        observed_generation: board.metadata.generation,
        url: url(board),
        app: ready(APP, board.spec.app.replicas),
        dashboards: ready(DASHBOARD, board.spec.dashboard.replicas),
        metric_generators: ready(METRIC_GENERATOR, board.spec.metric_generator.replicas),
        replicas: Some(dashboards.and_then(|live| live.status.as_ref()?.replicas).unwrap_or(0)),
        selector: Some(
            selector(DASHBOARD, &board.name_any())
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect::<Vec<_>>()
                .join(","),
        ),
        // Nobody could be asked: the last answer is better than none.
        connections: seen.connections.or(old.connections),
    }
}

fn condition(says: Says, board: &Board, old: &BoardStatus, now: Timestamp) -> Condition {
    let Says { type_, holds, reason, message } = says;
    let status = if holds { "True" } else { "False" };
    let before = old.conditions.iter().find(|old| old.type_ == type_ && old.status == status);
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: board.metadata.generation,
        last_transition_time: before.map_or(Time(now), |old| old.last_transition_time.clone()),
    }
}

/// Each of those without whom nobody is served has at least one ready replica. Without a metric generator the values of servers grow old, and
/// everything else is served.
fn available(board: &Board, resources: &Resources<Applied>) -> Says {
    let services = [APP, DASHBOARD];
    let mut missing: Vec<_> =
        services.into_iter().filter(|name| ready(named(&resources.deployments, name)) == 0).collect();
    if board.spec.database.postgres.is_some() && database_ready(named(&resources.stateful_sets, POSTGRES)) == 0 {
        missing.push(POSTGRES);
    }
    let holds = missing.is_empty();
    let (reason, message) = if holds {
        ("Serving", "users are served".to_owned())
    } else {
        ("NotReady", format!("no ready replica of {}", missing.join(", ")))
    };
    Says { type_: AVAILABLE, holds, reason, message }
}

fn progressing(resources: &Resources<Applied>, problems: &[Problem]) -> Says {
    let says = |holds, reason, message| Says { type_: PROGRESSING, holds, reason, message };
    if let Some(reason) = stopped(problems) {
        return says(false, reason.as_str(), NOTHING_DONE.to_owned());
    }
    if let Some(job) = job_of(&resources.jobs, MIGRATE) {
        let name = job.name_any();
        if failed(job).is_some() {
            let message = format!("the migration Job {name} gave up");
            return says(false, Reason::MigrationFailed.as_str(), message);
        }
        if !completed(job) {
            let message = format!("the migration Job {name} runs; this version's services start after it");
            return says(true, MIGRATING, message);
        }
    }
    let mut rolling: Vec<_> =
        resources.deployments.iter().filter(|live| rolls(live)).map(ResourceExt::name_any).collect();
    rolling.extend(resources.stateful_sets.iter().filter(|live| database_rolls(live)).map(ResourceExt::name_any));
    if !rolling.is_empty() {
        return says(true, "RollingOut", format!("rolling out {}", rolling.join(", ")));
    }
    match applying_feeds(resources) {
        Some((reason, message)) => says(true, reason, message),
        None => says(false, "Settled", "no change is under way".to_owned()),
    }
}

/// Why nothing is done for a Board.
fn stopped(problems: &[Problem]) -> Option<Reason> {
    let first = problems.first()?.reason;
    matches!(first, Reason::NamespaceOccupied | Reason::InvalidSpec).then_some(first)
}

fn feeds_applied(resources: &Resources<Applied>, problems: &[Problem]) -> Says {
    let says = |holds, reason, message| Says { type_: FEEDS_APPLIED, holds, reason, message };
    if let Some(reason) = stopped(problems) {
        return says(false, reason.as_str(), NOTHING_DONE.to_owned());
    }
    let of = |reason| {
        let messages = problems.iter().filter(|problem| problem.reason == reason);
        messages.map(|problem| problem.message.as_str()).collect::<Vec<_>>()
    };
    // A problem lasts while a Job applies the list again.
    if let problems @ [_, ..] = &of(Reason::FeedProblem)[..] {
        return says(false, Reason::FeedProblem.as_str(), problems.join("; "));
    }
    if let Some((reason, message)) = applying_feeds(resources) {
        return says(false, reason, message);
    }
    match &of(Reason::FeedsFailed)[..] {
        [] => says(true, "Applied", "the database has the feeds of the list".to_owned()),
        problems => says(false, Reason::FeedsFailed.as_str(), problems.join("; ")),
    }
}

/// Reason and message while the list of feeds is being applied, or waits for that.
fn applying_feeds(resources: &Resources<Applied>) -> Option<(&'static str, String)> {
    let Some(job) = job_of(&resources.jobs, FEEDS) else {
        let message = "the list of feeds waits for the migration, or until an earlier list is no longer being applied";
        return Some(("FeedsWait", message.to_owned()));
    };
    let runs = !completed(job) && failed(job).is_none();
    runs.then(|| ("ApplyingFeeds", format!("the Job {} brings the list of feeds into the database", job.name_any())))
}

fn degraded(problems: &[Problem]) -> Says {
    let messages = problems.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>();
    Says {
        type_: DEGRADED,
        holds: !problems.is_empty(),
        reason: problems.first().map_or("AsExpected", |problem| problem.reason.as_str()),
        message: if problems.is_empty() { "nothing is wrong".to_owned() } else { messages.join("; ") },
    }
}

/// What is wrong with what runs.
fn found(resources: &Resources<Applied>, seen: &Seen, known: &[Problem]) -> Vec<Problem> {
    let mut problems = pods::problems(&seen.pods);
    // The validation has said it better than a pod that waits for the Secret.
    if known.iter().any(|problem| problem.reason == Reason::SecretMissing) {
        problems.retain(|problem| problem.reason != Reason::SecretMissing);
    }
    problems.extend(storage(seen));
    if let Some((job, why)) = gave_up(resources, MIGRATE) {
        let message = format!(
            "the migration Job {job} gave up: {why}; read why (kubectl logs job/{job}), mend it and delete the Job: it is made again"
        );
        problems.push(Problem::new(Reason::MigrationFailed, message));
    }
    if let Some((job, why)) = gave_up(resources, FEEDS) {
        let why = pods::last_words(&seen.pods, &job).unwrap_or(why);
        let message = format!(
            "the Job {job} could not bring the list of feeds into the database: {why}; mend spec.feeds, or mend the table and delete the Job: it is made again"
        );
        problems.push(Problem::new(Reason::FeedsFailed, message));
    }
    problems
}

/// The listed feeds that are not ok. While no dashboard answers, those of the last status: a
/// problem ends when a dashboard reports its end.
fn feed_problems(board: &Board, old: &BoardStatus, seen: &Seen, known: &[Problem]) -> Vec<Problem> {
    let problem = |message| Problem::new(Reason::FeedProblem, message);
    let feeds = &board.spec.feeds;
    if let Some(problems) = &seen.feed_problems {
        return feed_problem::listed(problems, feeds).map(|found| problem(found.to_string())).collect();
    }
    let before = old.conditions.iter().find(|old| old.type_ == FEEDS_APPLIED);
    let before = before.filter(|old| old.reason == Reason::FeedProblem.as_str());
    before
        .filter(|_| !feeds.is_empty() && stopped(known).is_none())
        .map(|old| problem(old.message.clone()))
        .into_iter()
        .collect()
}

/// The name of the Job of this kind of work, and why it gave up, if it did.
fn gave_up(resources: &Resources<Applied>, work: &str) -> Option<(String, String)> {
    let job = job_of(&resources.jobs, work)?;
    Some((job.name_any(), failed(job)?))
}

fn storage(seen: &Seen) -> Option<Problem> {
    let claim = seen.claim.as_ref()?;
    let phase = claim.status.as_ref()?.phase.as_deref()?;
    let message = match (phase, &seen.missing_class, claim.spec.as_ref()?.storage_class_name.as_deref()) {
        ("Pending", Some(class), _) => format!(
            "the volume claim {CLAIM} waits for the StorageClass {class}, which does not exist; make that class, or delete Board and claim and \
             make the Board with another one"
        ),
        ("Pending", None, None) => format!(
            "the volume claim {CLAIM} names no StorageClass and the cluster has no default; make one the default, or name one in \
             spec.database.postgres.storage.className of a new Board"
        ),
        ("Lost", _, _) => format!("the volume behind the claim {CLAIM} is gone; restore it from a backup"),
        _ => return None,
    };
    Some(Problem::new(Reason::StorageUnavailable, message))
}

fn ready(deployment: Option<&Deployment>) -> i32 {
    deployment.and_then(|live| live.status.as_ref()?.ready_replicas).unwrap_or(0)
}

fn database_ready(stateful_set: Option<&StatefulSet>) -> i32 {
    stateful_set.and_then(|live| live.status.as_ref()?.ready_replicas).unwrap_or(0)
}

/// New pods are still missing, or old ones still there.
fn rolls(live: &Deployment) -> bool {
    let (Some(spec), Some(status)) = (&live.spec, &live.status) else { return true };
    let updated = status.updated_replicas.unwrap_or(0);
    status.observed_generation < live.metadata.generation
        || updated < spec.replicas.unwrap_or(1)
        || status.replicas.unwrap_or(0) > updated
}

fn database_rolls(live: &StatefulSet) -> bool {
    let Some(status) = &live.status else { return true };
    status.observed_generation < live.metadata.generation || status.current_revision != status.update_revision
}

/// Where users find the Board; unknown without a host.
fn url(board: &Board) -> Option<String> {
    let (host, port) = (board.spec.host.as_ref()?, board.spec.ingress.port);
    Some(match port {
        443 => format!("https://{host}"),
        80 => format!("http://{host}"),
        port => format!("https://{host}:{port}"),
    })
}
