//! What can be wrong with a Board, in words that a user can act on.

use std::fmt;

/// Why a Board is `Degraded`, most telling first: the first one becomes the condition's reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// An older Board lives in the namespace; this one does nothing.
    NamespaceOccupied,
    /// The spec cannot be built, although the API server let it through.
    InvalidSpec,
    /// The database's Secret is missing or has no URL.
    SecretMissing,
    /// The database's volume cannot be made.
    StorageUnavailable,
    /// An image cannot be fetched.
    ImageUnavailable,
    /// The migration Job gave up.
    MigrationFailed,
    /// A container ends again and again.
    CrashLoop,
    /// A listed feed is not ok. Before `FeedsFailed`, so that the reason stays the same while the
    /// list is applied again.
    FeedProblem,
    /// The Job that brings the list of feeds into the database gave up.
    FeedsFailed,
    /// The spec wants a change that Kubernetes does not allow.
    ImmutableField,
    /// The API server refused a child.
    ApplyFailed,
}

impl Reason {
    /// As it stands in the condition.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NamespaceOccupied => "NamespaceOccupied",
            Self::InvalidSpec => "InvalidSpec",
            Self::SecretMissing => "SecretMissing",
            Self::StorageUnavailable => "StorageUnavailable",
            Self::ImageUnavailable => "ImageUnavailable",
            Self::MigrationFailed => "MigrationFailed",
            Self::CrashLoop => "CrashLoop",
            Self::FeedProblem => "FeedProblem",
            Self::FeedsFailed => "FeedsFailed",
            Self::ImmutableField => "ImmutableField",
            Self::ApplyFailed => "ApplyFailed",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// What kind.
    pub reason: Reason,
    /// Which object, why, and what to do.
    pub message: String,
}

impl Problem {
    /// A problem, in a sentence.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}
