//! Why the count of a table is not right any more: the words of `tidemark.feed_problems()`.

use std::fmt;

use super::Obstacle;

/// What is wrong with a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedProblem {
    /// The table was dropped, or the feed follows a name that no table has.
    Gone,
    /// The feed follows a name that another table has now.
    Swapped,
    /// A trigger is missing or disabled.
    SwitchedOff,
    /// The account that added the feed lost its rights on the deltas: writes go on, uncounted.
    Denied,
    /// The filter failed on a row that was written.
    FilterFailed,
    /// Something that the filter needs was dropped or replaced.
    FilterGone,
    /// The table became one whose rows cannot be counted.
    Uncounted(Obstacle),
    /// A reason that a newer version of the schema has.
    Unknown,
}

impl FeedProblem {
    /// What [`Self::as_str`] gives, but for obstacles.
    const WORDS: [(&'static str, Self, &'static str); 7] = [
        ("gone", Self::Gone, "the table is gone"),
        ("swapped", Self::Swapped, "another table has its name now"),
        ("switched_off", Self::SwitchedOff, "a trigger is missing or disabled"),
        (
            "denied",
            Self::Denied,
            "the account that added it has lost its rights on the schema tidemark; writes are not counted",
        ),
        ("filter_failed", Self::FilterFailed, "the filter failed on a row"),
        ("filter_gone", Self::FilterGone, "something that the filter needs was dropped or replaced"),
        ("unknown", Self::Unknown, "a newer version knows why"),
    ];

    /// The reason in one word, for metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Uncounted(obstacle) => obstacle.as_str(),
            problem => Self::WORDS.iter().find(|(_, known, _)| *known == problem).map_or("unknown", |(word, ..)| word),
        }
    }

    fn parse(word: &str) -> Self {
        let known = Self::WORDS.iter().find(|(known, ..)| *known == word).map(|(_, problem, _)| *problem);
        known.or_else(|| Obstacle::parse(word).map(Self::Uncounted)).unwrap_or(Self::Unknown)
    }
}

impl fmt::Display for FeedProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uncounted(obstacle) => obstacle.fmt(formatter),
            problem => {
                let text = Self::WORDS.iter().find(|(_, known, _)| known == problem).map(|(.., text)| *text);
                formatter.write_str(text.unwrap_or_default())
            }
        }
    }
}

/// A problem, if there is one, as the database names it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProblemWord(pub Option<FeedProblem>);

impl From<Option<String>> for ProblemWord {
    fn from(word: Option<String>) -> Self {
        Self(word.as_deref().map(FeedProblem::parse))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_means_itself() {
        for word in ["gone", "swapped", "denied", "filter_failed", "partition", "subscribed", "unlogged", "inheritance"]
        {
            assert_eq!(FeedProblem::parse(word).as_str(), word);
            assert_ne!(FeedProblem::parse(word).to_string(), "");
        }
        assert_eq!(FeedProblem::parse("of the future"), FeedProblem::Unknown);
    }
}
