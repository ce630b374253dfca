//! `tidemark drill`: what clients notice of a fault, as numbers.
//!
//! [`args`] says what is to be done; a [`stage`] holds the clients ([`crowd`], which [`observe`]s `tidemark.v1`, or a [`generic`] client) and the
//! [`writer`]; faults are done by [`local`] and [`fault`]; [`measure`] turns the [`record`]s into numbers, [`readback`] adds what became of
//! the saves, [`metric`] names and bounds them, and [`report`] tells them.

pub mod args;
pub mod crowd;
pub mod fault;
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

use std::{env, io, path::PathBuf};

pub use args::{Args, ArgsError};
use args::{Plan, Protocol};
use crowd::Kind;
use fault::{Fault, Returned, ScriptError};
use local::{Demo, LocalError};
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

/// What does the faults.
#[derive(Debug, Default)]
struct Faults {
    demo: Option<Demo>,
}

impl Faults {
    async fn inject(&self, fault: &Fault) -> Result<Returned, Error> {
        match (fault, &self.demo) {
            (Fault::Local(fault), Some(demo)) => Ok(demo.inject(*fault).await?),
            (Fault::Local(_), None) => unreachable!("checked before the first fault"),
            (Fault::Command(script), _) => Ok(script.run().await?),
        }
    }
}

/// Measures, prints, and tells whether every budget held.
///
/// # Errors
/// [`Error`], when it is not known.
pub async fn run(args: Args, household: &Household) -> Result<bool, Error> {
    let plan = args.plan()?;
    crate::process::raise_file_limit();
    let signals = runtime::signals().map_err(Error::Prepare)?;
    let own = match &args.url {
        Some(_) => None,
        None => {
            say::note("starting a demo");
            Some(interruptible(&signals, OwnDemo::start(&args.own, household)).await??)
        }
    };
    let outcome = match interruptible(&signals, drill(&args, &plan, own.as_ref())).await {
        Ok(outcome) => outcome,
        Err(interrupted) => Err(interrupted),
    };
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

async fn drill(args: &Args, plan: &Plan, own: Option<&OwnDemo>) -> Result<Report, Error> {
    let (url, faults) = prepare(args, plan, own)?;
    let trust = Trust::load(args.ca.as_deref())?;
    let kind = match args.protocol {
        Protocol::Generic => Kind::Generic(Address::parse(&url)?.with_trust(trust.clone())),
        Protocol::Tidemark => Kind::Tidemark(Target::parse(&url, &feeds(args, plan))?.with_trust(trust.clone())),
    };
    let mut report = Report::new(args, plan, &url);
    let stage = Stage::open(kind, &url, &trust, args.clients, plan.saves).await?;
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

/// The address, and who does the faults; everything that can be checked is checked here.
fn prepare(args: &Args, plan: &Plan, own: Option<&OwnDemo>) -> Result<(String, Faults), Error> {
    let mut local = plan.faults.iter().filter_map(|fault| match fault {
        Fault::Local(fault) => Some(*fault),
        Fault::Command(_) => None,
    });
    let first = local.next();
    let directory = match own {
        Some(own) => own.directory().to_owned(),
        None => env::current_dir().map_err(Error::Prepare)?,
    };
    let target = args.target.rsplit('/').next().unwrap_or_default();
    let demo = if first.is_some() || own.is_some() { Some(Demo::of(&directory, target)?) } else { None };
    let url = match (&args.url, &demo) {
        (Some(url), _) => url.clone(),
        (None, Some(demo)) => demo.url()?,
        (None, None) => unreachable!("without an address there is a demo of the drill's own"),
    };
    if let Some(demo) = &demo {
        demo.check(&url, first.into_iter().chain(local))?;
    }
    Ok((url, Faults { demo }))
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
