//! Postgres: migrations, feeds, doorbell, batched writers. The only crate that knows SQL.
//!
//! * [`migrate`] brings the schema `tidemark` up to date; [`pending_migrations`] only looks.
//! * [`Reader`] always holds the newest value of every feed: a poll every two seconds is the truth, and a doorbell
//!   (`NOTIFY`) makes it quick.
//! * [`TextWriter`] stores texts in batches; [`Texts`] lists them.
//! * [`SampleWriter`] stores what servers use, [`LatestSamples`] holds the newest of each, [`Samples`] lists them.
//! * [`Visitors`] counts who is connected, and takes out what a dead replica left.
//! * [`add_own_feed`] makes a feed of any table's rows; [`sync_own_feeds`] of a list of them.
//!
//! Every part holds its own connection, so that a slow one cannot starve another, and every wait has a bound.

mod batch;
mod connection;
mod database_error;
mod database_url;
mod doorbell;
mod folding;
mod lossy;
mod metrics;
mod migrations;
mod own_feeds;
mod pace;
mod reader;
mod reading;
mod samples;
mod texts;
mod transaction;
mod visitors;
mod writer;

pub use database_error::DatabaseError;
pub use database_url::{DatabaseUrl, UrlError};
pub use doorbell::Doorbell;
pub use metrics::{ReaderMetrics, SampleMetrics, VisitorMetrics, WriterMetrics};
pub use migrations::{MIGRATOR, MigrateError, migrate, pending_migrations};
pub use own_feeds::{
    Added, Change, FeedProblem, Follow, InstalledFeed, InstalledFeeds, Obstacle, OwnFeed, OwnFeedError, add_own_feed,
    own_feeds, remove_own_feed, sync_own_feeds,
};
pub use pace::Intervals;
pub use reader::{Reader, ReaderConfig, Rest, Unavailable, View};
pub use reading::{FeedValue, History, Path, Reading};
pub use samples::{
    Hindrance, Latest, LatestSamples, Progress, Sample, SampleWriter, Samples, SamplesConfig, SamplesError, Usage,
};
pub use texts::{ReadError, Text, Texts, TextsConfig};
pub use visitors::{VisitorTiming, Visitors, VisitorsConfig};
pub use writer::{Cause, SaveError, TextWriter, WriterConfig};
