//! One task per server: at the start of each second it takes a sample and hands it to the writer.

use std::{sync::Arc, time::SystemTime};

use chrono::DateTime;
use runtime::Tasks;
use store::{Sample, SampleWriter, Usage};
use tokio::time::sleep;

use crate::{
    curve::Curve,
    host::{Host, HostError, SHORTEST},
    ticks::{Ticks, until_next},
};

/// Where samples come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Made-up servers: `server-1` to `server-count`. The same seed makes the same samples, so replicas that have one seed make them once.
    Generated {
        /// Chooses among all possible samples.
        seed: u64,
        /// How many servers.
        count: u16,
    },
    /// This machine, as one server.
    Host {
        /// Its id.
        name: String,
    },
}

/// Starts the tasks. They end with the token.
///
/// # Errors
/// [`HostError`], if it is this machine that is to be measured.
pub fn start(source: Source, writer: &SampleWriter, tasks: &Tasks) -> Result<(), HostError> {
    match source {
        Source::Generated { seed, count } => {
            for number in 1..=count {
                let server = format!("server-{number}").into();
                let generating = generate(server, Curve::new(seed, number), writer.clone());
                tasks.tracker.spawn(tasks.token.clone().run_until_cancelled_owned(generating));
            }
        }
        Source::Host { name } => {
            let measuring = measure(name.into(), Host::start()?, writer.clone());
            tasks.tracker.spawn(tasks.token.clone().run_until_cancelled_owned(measuring));
        }
    }
    Ok(())
}

async fn generate(server: Arc<str>, curve: Curve, writer: SampleWriter) {
    let mut ticks = Ticks::default();
    loop {
        for second in ticks.due(SystemTime::now()) {
            store(&writer, &server, second, curve.at(second));
        }
        sleep(until_next(SystemTime::now())).await;
    }
}

async fn measure(server: Arc<str>, host: Host, writer: SampleWriter) {
    let mut ticks = Ticks::default();
    sleep(SHORTEST).await;
    loop {
        sleep(until_next(SystemTime::now())).await;
        // A second that was missed cannot be measured any more.
        let Some(second) = ticks.due(SystemTime::now()).next_back() else { continue };
        match host.measure().await {
            Some(usage) => store(&writer, &server, second, usage),
            None => return tracing::error!("this machine cannot be measured any more"),
        }
    }
}

fn store(writer: &SampleWriter, server: &Arc<str>, second: i64, usage: Usage) {
    if let Some(second) = DateTime::from_timestamp(second, 0) {
        writer.store(Sample { server: Arc::clone(server), second, usage });
    }
}
