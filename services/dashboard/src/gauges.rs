//! What the hub knows, as gauges that are read when somebody asks for metrics.

use std::sync::Arc;

use prometheus::{
    GaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::hub::{Gauge, Hub};

/// Age of every feed, and value of every scalar one. Feeds are rows of a table, so there are as many series as rows, and one for each number of a
/// value. What the keys of a feed hold is no metric of this replica.
pub struct FeedGauges {
    hub: Arc<Hub>,
    /// Never filled: they say which metrics there will be.
    described: Vectors,
}

struct Vectors {
    value: GaugeVec,
    age: GaugeVec,
}

impl Vectors {
    fn new() -> Result<Self, prometheus::Error> {
        let value = Opts::new("tidemark_feed_value", "The newest value of each feed, as this replica knows it.");
        let age = Opts::new("tidemark_feed_age_seconds", "How long ago this replica last knew the value to be true.");
        Ok(Self { value: GaugeVec::new(value, &["feed", "field"])?, age: GaugeVec::new(age, &["feed"])? })
    }
}

impl FeedGauges {
    /// Shows this hub.
    ///
    /// # Errors
    /// Never, unless a name in this file is not fit for a metric.
    pub fn new(hub: Arc<Hub>) -> Result<Self, prometheus::Error> {
        Ok(Self { hub, described: Vectors::new()? })
    }
}

impl Collector for FeedGauges {
    fn desc(&self) -> Vec<&Desc> {
        [self.described.value.desc(), self.described.age.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // New ones for each scrape: a feed that is gone leaves nothing behind, and two scrapes at once do not meet.
        let Ok(Vectors { value, age }) = Vectors::new() else { return Vec::new() };
        for Gauge { feed, age: since, fields } in self.hub.gauges() {
            if let Some(since) = since {
                age.with_label_values(&[&feed]).set(since.as_secs_f64());
            }
            for (field, number) in fields {
                value.with_label_values(&[&feed, &field]).set(number);
            }
        }
        [value.collect(), age.collect()].concat()
    }
}
