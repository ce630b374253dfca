//! Runs of the Job that applies the list of feeds: one for a new list, and further ones while a
//! listed feed has a problem that a run can fix.
//!
//! Each run is a Job of its own, because a finished Job cannot be started again. Runs of one list
//! differ in their names only; `apply` deletes the earlier one. The time of the next run follows
//! from the last Job, so the operator keeps no state for it and can be restarted.

use k8s_openapi::{
    api::batch::v1::Job,
    jiff::{SignedDuration, Timestamp},
};
use kube::ResourceExt;

use super::job;
use crate::{
    feed_problem,
    reconcile::{dereference::Seen, validate::Valid},
};

/// Time between the end of the first run and the second one; doubled for each further run. It is
/// longer than a report of the dashboards is used, so that the next run is due only for a problem
/// that was reported after the last one.
const RERUN_AFTER: SignedDuration = SignedDuration::from_secs(60);
/// Longest such time: a problem that no run fixes costs a few pods every five minutes.
const RERUN_AFTER_MAX: SignedDuration = SignedDuration::from_secs(300);
/// Age of the last run after which the numbers start again, because that run had fixed its problem.
/// Exceeds [`RERUN_AFTER_MAX`] by more than the requeue interval.
const RESET_AFTER: SignedDuration = SignedDuration::from_secs(600);

/// A run of the list, as it is in the cluster.
struct Run<'a> {
    /// 0 for the first one, whose name has no number.
    number: u32,
    job: &'a Job,
}

/// The run that is wanted now; none while a new list waits for the migration or for an earlier
/// list that is still being applied.
pub fn wanted(valid: &Valid, seen: &Seen, migrated: bool) -> Option<Job> {
    let list = job::feeds(valid);
    // Feeds need the schema. An existing run continues, and stays as the mark that it is done.
    let may_begin = |run: &Job| migrated && !job::earlier_feeds(run, seen);
    let Some(last) = last_run(&list, seen) else { return Some(list).filter(may_begin) };
    let next = next(&last, valid, seen).map(|number| numbered(list.clone(), number)).filter(may_begin);
    Some(next.unwrap_or_else(|| numbered(list, last.number)))
}

/// The newest run of this list.
fn last_run<'a>(list: &Job, seen: &'a Seen) -> Option<Run<'a>> {
    let name = list.name_any();
    let number = |job: &Job| match job.name_any().strip_prefix(&name)? {
        "" => Some(0),
        rest => rest.strip_prefix('-')?.parse().ok(),
    };
    let jobs = seen.children.jobs.iter().filter(|job| job.metadata.deletion_timestamp.is_none());
    let runs = jobs.filter_map(|job| Some(Run { number: number(job)?, job }));
    runs.max_by_key(|run| run.job.creation_timestamp().map(|time| time.0))
}

/// The number of the next run, if one is due. Never while one is running.
fn next(last: &Run<'_>, valid: &Valid, seen: &Seen) -> Option<u32> {
    let mut problems = feed_problem::listed(seen.feed_problems.as_ref()?, &valid.spec.feeds);
    let ended: Timestamp = job::ended_at(last.job)?;
    let since = seen.at.duration_since(ended);
    if since < rerun_after(last.number) || !problems.any(feed_problem::FeedProblem::is_retried) {
        return None;
    }
    // Not the number of the last one, which is still there.
    Some(if since < RESET_AFTER { last.number.saturating_add(1) } else { u32::from(last.number == 0) })
}

fn rerun_after(number: u32) -> SignedDuration {
    RERUN_AFTER.saturating_mul(2_i32.saturating_pow(number)).min(RERUN_AFTER_MAX)
}

fn numbered(mut list: Job, number: u32) -> Job {
    if number > 0 {
        list.metadata.name = Some(format!("{}-{number}", list.name_any()));
    }
    list
}
