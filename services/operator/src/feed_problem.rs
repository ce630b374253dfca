//! What dashboards report about feeds that are not ok, and whether applying the list of feeds again
//! fixes it.

use std::{collections::BTreeSet, fmt};

use crate::{board::Feed, exposition::Sample};

/// The dashboards' gauge: one series per feed that is not ok.
pub const METRIC: &str = "tidemark_feed_problem";

const FIX_TABLE: Remedy = Remedy::User("fix the table, or take the feed out of spec.feeds");

/// The reasons that dashboards report, what each means for the feed, and what fixes it.
const REASONS: [(&str, &str, Remedy); 14] = [
    // `tidemark feed sync` fails as long as there is no table, so a Job now would only fail. A
    // table that comes back is `swapped`.
    ("gone", "no table has its name now", Remedy::User("the list is applied again once there is one")),
    ("swapped", "another table has its name now", Remedy::ApplyAgain),
    ("switched_off", "its triggers are disabled or missing", Remedy::ApplyAgain),
    // `tidemark feed sync` refuses the table as long as it is like this.
    ("not_a_table", "its name belongs to something that is not a table now", FIX_TABLE),
    ("partitioned", "its table is partitioned now", FIX_TABLE),
    ("partition", "its table is a partition now", FIX_TABLE),
    ("inheritance", "its table inherits now, or is inherited from", FIX_TABLE),
    ("temporary", "its table is temporary", FIX_TABLE),
    ("unlogged", "its table is unlogged now", FIX_TABLE),
    ("subscribed", "logical replication fills its table now", FIX_TABLE),
    (
        "hidden_rows",
        "row-level security hides rows of its table",
        Remedy::User("let the account of the database's Secret see all rows"),
    ),
    // These can fail again for the same cause. Only the database knows, and a try every few minutes
    // costs little.
    ("denied", "the account that added it has lost its rights on the schema tidemark", Remedy::ApplyAgain),
    ("filter_failed", "its filter failed on a row", Remedy::ApplyAgain),
    ("filter_gone", "what its filter needs was dropped or replaced", Remedy::ApplyAgain),
];

/// What fixes a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remedy {
    /// `tidemark feed sync` replaces the feed.
    ApplyAgain,
    /// A change that only a user can make.
    User(&'static str),
}

/// A feed that is not ok, as a dashboard reports it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FeedProblem {
    /// The feed's name.
    pub feed: String,
    /// One of [`REASONS`], or one that only a newer dashboard knows.
    pub reason: String,
}

impl FeedProblem {
    /// What a sample reports, if it is about a feed.
    pub fn from_sample(sample: &Sample<'_>) -> Option<Self> {
        let label = |name| sample.label(name).map(str::to_owned);
        let set = sample.metric == METRIC && sample.value > 0.0;
        if set { Some(Self { feed: label("feed")?, reason: label("reason")? }) } else { None }
    }

    /// Whether applying the list of feeds again can fix it.
    pub fn is_retried(&self) -> bool {
        self.known().is_some_and(|(_, remedy)| remedy == Remedy::ApplyAgain)
    }

    fn known(&self) -> Option<(&'static str, Remedy)> {
        REASONS.iter().find(|(reason, ..)| *reason == self.reason).map(|(_, meaning, remedy)| (*meaning, *remedy))
    }
}

/// The sentence stays the same while the list is applied again: each change of the status is a write.
impl fmt::Display for FeedProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { feed, reason } = self;
        let (meaning, remedy) = match self.known() {
            Some((meaning, Remedy::ApplyAgain)) => (meaning, "the list is being applied again"),
            Some((meaning, Remedy::User(remedy))) => (meaning, remedy),
            None => ("its count may be wrong", "`tidemark feed list` says why"),
        };
        write!(f, "the feed {feed}: {meaning} ({reason}); {remedy}")
    }
}

/// The problems of feeds that are on this list. Feeds that were added by hand, or by the list of
/// another Board, are not this Board's.
pub fn listed<'a>(
    problems: &'a BTreeSet<FeedProblem>,
    feeds: &'a [Feed],
) -> impl Iterator<Item = &'a FeedProblem> + use<'a> {
    problems.iter().filter(|problem| feeds.iter().any(|feed| feed.name == problem.feed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::samples;

    fn problem(reason: &str) -> FeedProblem {
        FeedProblem { feed: "orders".into(), reason: reason.into() }
    }

    #[test]
    fn the_sentence_names_feed_meaning_and_remedy() {
        let sentence = "the feed orders: another table has its name now (swapped); the list is being applied again";
        assert_eq!(problem("swapped").to_string(), sentence);
        let sentence = "the feed orders: no table has its name now (gone); the list is applied again once there is one";
        assert_eq!(problem("gone").to_string(), sentence);
        for (reason, meaning, _) in REASONS {
            let sentence = problem(reason).to_string();
            assert!(sentence.starts_with(&format!("the feed orders: {meaning} ({reason}); ")), "{sentence}");
        }
        assert!(problem("of_tomorrow").to_string().contains("(of_tomorrow)"));
    }

    #[test]
    fn the_list_is_applied_again_only_where_that_can_help() {
        let retried: Vec<_> =
            REASONS.into_iter().map(|(reason, ..)| reason).filter(|reason| problem(reason).is_retried()).collect();
        assert_eq!(retried, ["swapped", "switched_off", "denied", "filter_failed", "filter_gone"]);
        assert!(!problem("of_tomorrow").is_retried());
    }

    #[test]
    fn a_series_that_is_zero_or_incomplete_or_of_another_metric_is_no_problem() {
        let page = r#"
tidemark_feed_problem{feed="orders",reason="swapped"} 1
tidemark_feed_problem{feed="boats",reason="gone"} 0
tidemark_feed_problem{feed="quays"} 1
tidemark_feed_problems_total{feed="cranes",reason="gone"} 1
"#;
        let found: Vec<_> = samples(page).filter_map(|sample| FeedProblem::from_sample(&sample)).collect();
        assert_eq!(found, [problem("swapped")]);
    }

    #[test]
    fn problems_of_feeds_that_are_not_on_the_list_are_left_out() {
        let of = |feed: &str| FeedProblem { feed: feed.into(), reason: "swapped".into() };
        let problems = BTreeSet::from([of("open"), of("orders"), of("orders2")]);
        let feeds = ["orders", "boats"].map(|name| Feed {
            name: name.into(),
            table: "public.t".into(),
            filter: None,
            follow: None,
        });
        assert_eq!(listed(&problems, &feeds).collect::<Vec<_>>(), [&of("orders")]);
        assert_eq!(listed(&problems, &[]).next(), None);
    }
}
