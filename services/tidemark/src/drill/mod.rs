//! `tidemark drill`: what clients notice of a fault, as numbers.
//!
//! [`args`] says what is to be done; a [`stage`] holds the clients ([`crowd`], which [`observe`]s `tidemark.v1`, or a [`generic`] client) and the
//! [`writer`]; [`faults`] are done by [`local`], by [`cluster`], or by a command; [`measure`] turns the [`record`]s into numbers, [`readback`] adds what became of
//! the saves, [`metric`] names and bounds them, and [`report`] tells them.

pub mod args;
pub mod cluster;
pub mod crowd;
pub mod fault;
mod faults;
pub mod generic;
pub mod local;
pub mod measure;
pub mod metric;
pub mod observe;
mod own;
pub mod readback;
pub mod record;
pub mod report;
pub mod stage;
pub mod writer;

use std::{io, path::PathBuf};

pub use args::{Args, ArgsError};
use args::{Plan, Protocol};
use crowd::Kind;
use fault::{Fault, ScriptError};
use faults::Faults;
use local::LocalError;
use own::{OwnDemo, OwnError};
use report::Report;
use runtime::Signals;
use stage::{Stage, StageError};

use crate::{
    client::{Address, Target, TargetError, Trust, TrustError},
    list::ListError,
    process::Household,
    say,
};

/// Why nothing could be measured, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The flags.
    #[error(transparent)]
    Args(#[from] ArgsError),
    /// The address or the feeds.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The file with certificate authorities.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The drill's own demo.
    #[error(transparent)]
    Own(#[from] OwnError),
    /// A fault on this machine.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// A fault on a cluster.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// A command.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// The clients.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The saves could not be read back.
    #[error("the texts could not be read back")]
    List(#[from] ListError),
    /// The report.
    #[error("failed to write {}", path.display())]
    Write {
        /// Where to.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// Something that the system refused.
    #[error("failed to prepare")]
    Prepare(#[source] io::Error),
    /// A signal.
    #[error("stopped before the end")]
    Interrupted,
}

/// Measures, prints, and tells whether every budget held.
///
/// # Errors
/// [`Error`], when it is not known.
pub async fn run(args: Args, household: &Household) -> Result<bool, Error> {
    let plan = args.plan()?;
    runtime::raise_file_limit();
    let signals = runtime::signals().map_err(Error::Prepare)?;
    let own = match &args.url {
        Some(_) => None,
        None => {
            say::note("starting a demo");
            Some(interruptible(&signals, OwnDemo::start(&args.own, household)).await??)
        }
    };
    let outcome = drill(&args, &plan, own.as_ref(), &signals).await;
    if let Some(own) = own {
        own.stop(&signals.hurry).await;
    }
    let report = outcome?;
    write(&args, &report)?;
    Ok(report.held())
}

async fn interruptible<T>(signals: &Signals, work: impl Future<Output = T>) -> Result<T, Error> {
    signals.stop.run_until_cancelled(work).await.ok_or(Error::Interrupted)
}

async fn drill(args: &Args, plan: &Plan, own: Option<&OwnDemo>, signals: &Signals) -> Result<Report, Error> {
    let faults = interruptible(signals, Faults::prepare(args, plan, own.map(OwnDemo::directory))).await??;
    let measured = interruptible(signals, measure(args, plan, &faults)).await;
    // Whatever ended it: what a fault was about to put back is put back.
    let restored = faults.restore().await;
    let report = measured??;
    restored.map(|()| report)
}

async fn measure(args: &Args, plan: &Plan, faults: &Faults) -> Result<Report, Error> {
    let (url, trust) = (&faults.url, Trust::load(args.ca.as_deref())?);
    let kind = match args.protocol {
        Protocol::Generic => Kind::Generic(Address::parse(url)?.with_trust(trust.clone()).at(args.connect_to)),
        Protocol::Tidemark => {
            Kind::Tidemark(Target::parse(url, &feeds(args, plan))?.with_trust(trust.clone()).at(args.connect_to))
        }
    };
    let mut report = Report::new(args, plan, url);
    let stage = Stage::open(kind, args, url, &trust, plan.saves).await?;
    for run in 1..=args.repeat {
        for fault in &plan.faults {
            say::note(format_args!("{} ({run} of {})", fault.name(), args.repeat));
            let measured = stage.measure(args.quiet, faults.inject(fault)).await?;
            report.add(fault.name(), run, measured);
        }
    }
    stage.close(&mut report).await?;
    Ok(report)
}

/// What the clients watch: also what a fault needs to show anything.
fn feeds(args: &Args, plan: &Plan) -> String {
    let mut feeds = args.feeds.clone();
    for feed in plan.faults.iter().filter_map(Fault::feed) {
        if !feeds.split(',').any(|known| known == feed) {
            feeds = format!("{feeds},{feed}");
        }
    }
    feeds
}

fn write(args: &Args, report: &Report) -> Result<(), Error> {
    let to_file = |path: &PathBuf, text: String| {
        std::fs::write(path, text).map_err(|source| Error::Write { path: path.clone(), source })
    };
    let to_stdout = args.json.as_ref().is_some_and(|path| path.as_os_str() == "-");
    say::line(if to_stdout { report.json() } else { report.table() });
    if let Some(path) = args.json.as_ref().filter(|_| !to_stdout) {
        to_file(path, report.json())?;
    }
    match &args.junit {
        Some(path) => to_file(path, report.junit()),
        None => Ok(()),
    }
}
