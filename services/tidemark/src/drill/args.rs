//! Flags of `tidemark drill`, checked before anything is done.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::ValueEnum;

use super::{
    cluster::{ClusterArgs, ClusterFault},
    fault::{Fault, Script},
    local::LocalFault,
    metric::Budget,
    own::OwnArgs,
};

/// What is saved per second on a demo of the drill's own.
const SAVES: u32 = 20;

/// What clients speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// `tidemark.v1`.
    Tidemark,
    /// WebSocket, and nothing above it.
    Generic,
}

/// Flags of `tidemark drill`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address of the system: http or https (default: a demo of the drill's own). With --protocol generic the address of a WebSocket.
    pub url: Option<String>,
    /// Connect to this address of a machine, whatever the name in the address stands for: past DNS, or past a proxy of this machine.
    #[arg(long, value_name = "IP")]
    pub connect_to: Option<IpAddr>,
    /// How many clients.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub clients: u32,
    /// What the clients speak.
    #[arg(long, value_enum, default_value_t = Protocol::Tidemark)]
    pub protocol: Protocol,
    /// What the clients watch.
    #[arg(long, default_value = "texts")]
    pub feeds: String,
    /// Texts saved per second (default: 20 on a demo of the drill's own, and 0, nothing at all, elsewhere).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub saves: Option<u32>,
    /// What is done, in this order (default on a demo of the drill's own: all of them). On one machine: sigterm, sigkill, freeze, rolling,
    /// database-restart, database-freeze, generator-kill. With --kube: pod-delete, force-delete, rollout, scale, drain, ingress-restart, database-delete.
    #[arg(long, value_name = "FAULTS", value_delimiter = ',')]
    pub faults: Vec<String>,
    /// A fault of your own: a command of the shell that does it, and ends when what it took away is there again.
    #[arg(long, value_name = "NAME=COMMAND")]
    pub run: Vec<Script>,
    /// How often all of it is done.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub repeat: u32,
    /// The quiet stretch before each fault.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub quiet: Duration,
    /// The most that a number may be, in every run: METRIC=VALUE, or FAULT:METRIC=VALUE. Exit code 1 if one is more.
    /// Always: missed, backwards, duplicates, lost, doubled and failed are 0.
    #[arg(long, value_name = "BUDGETS", value_delimiter = ',')]
    pub budget: Vec<Budget>,
    /// PEM file with certificate authorities to trust besides the system's.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Write everything as JSON, to a file or, with `-`, to standard output in place of the table.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub json: Option<PathBuf>,
    /// Write the runs as test cases of JUnit.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// A cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// The drill's own demo.
    #[command(flatten)]
    pub own: OwnArgs,
}

/// What cannot be drilled.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// Nothing to do.
    #[error("say what is to be done: --faults, or --run NAME=COMMAND")]
    NoFaults,
    /// An unknown name.
    #[error("there is no fault {name:?}; there are {}", known.join(", "))]
    UnknownFault {
        /// The name.
        name: String,
        /// All that there are.
        known: Vec<String>,
    },
    /// Nowhere to connect to.
    #[error("--protocol generic needs the address of a WebSocket, as ws://localhost:8080")]
    NoAddress,
    /// A demo is on no cluster.
    #[error("--kube needs the address at which clients reach the system")]
    NoAddressOfCluster,
    /// Nobody would store them.
    #[error("--protocol generic knows no saves; leave --saves out")]
    NoSaves,
    /// Such a budget could never be broken.
    #[error("the budget of {0} bounds nothing: it needs saves, and there are none (--saves)")]
    NeedsSaves(&'static str),
    /// Such a budget could never be broken either.
    #[error("a budget is for the fault {0:?}, which is not done")]
    NoSuchFault(String),
}

/// What is to be done.
#[derive(Debug)]
pub struct Plan {
    /// One after the other.
    pub faults: Vec<Fault>,
    /// Texts per second.
    pub saves: u32,
    /// All of them, also those that hold always.
    pub budgets: Vec<Budget>,
}

impl Args {
    /// The plan.
    ///
    /// # Errors
    /// [`ArgsError`].
    pub fn plan(&self) -> Result<Plan, ArgsError> {
        let own = self.url.is_none();
        let generic = self.protocol == Protocol::Generic;
        if generic && own {
            return Err(ArgsError::NoAddress);
        }
        if self.cluster.kube && own {
            return Err(ArgsError::NoAddressOfCluster);
        }
        if generic && self.saves.is_some_and(|saves| saves > 0) {
            return Err(ArgsError::NoSaves);
        }
        let saves = self.saves.unwrap_or(if own { SAVES } else { 0 });
        let faults = self.all_faults(own)?;
        let asked = |budget: &Budget| faults.iter().any(|fault| Some(fault.name()) == budget.fault.as_deref());
        for budget in &self.budget {
            if budget.metric.of_saves && saves == 0 {
                return Err(ArgsError::NeedsSaves(budget.metric.name));
            }
            if let Some(name) = budget.fault.as_ref().filter(|_| !asked(budget)) {
                return Err(ArgsError::NoSuchFault(name.clone()));
            }
        }
        Ok(Plan { faults, saves, budgets: Budget::never().chain(self.budget.iter().cloned()).collect() })
    }

    fn all_faults(&self, own: bool) -> Result<Vec<Fault>, ArgsError> {
        let script = |name: &str| self.run.iter().find(|script| script.name == name);
        let built_in: Vec<Fault> = if self.cluster.kube {
            ClusterFault::value_variants().iter().copied().map(Fault::Cluster).collect()
        } else {
            LocalFault::value_variants().iter().copied().map(Fault::Local).collect()
        };
        let known = || built_in.iter().map(Fault::name).chain(self.run.iter().map(|script| script.name.as_str()));
        let find = |name: &String| {
            let own = script(name).cloned().map(Fault::Command);
            let built_in = || built_in.iter().find(|fault| fault.name() == name).cloned();
            let unknown =
                || ArgsError::UnknownFault { name: name.clone(), known: known().map(str::to_owned).collect() };
            own.or_else(built_in).ok_or_else(unknown)
        };
        let mut faults: Vec<Fault> = self.faults.iter().map(find).collect::<Result<_, _>>()?;
        if faults.is_empty() && own && self.run.is_empty() {
            faults.clone_from(&built_in);
        }
        // A command is done also if it is not named in the list.
        for script in &self.run {
            if !faults.iter().any(|fault| fault.name() == script.name) {
                faults.push(Fault::Command(script.clone()));
            }
        }
        if faults.is_empty() { Err(ArgsError::NoFaults) } else { Ok(faults) }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    /// The plan that a command line makes.
    pub fn plan(line: &str) -> Result<Plan, ArgsError> {
        Cli::try_parse_from(["drill"].into_iter().chain(line.split_whitespace())).unwrap().args.plan()
    }

    fn names(line: &str) -> Vec<String> {
        plan(line).unwrap().faults.iter().map(|fault| fault.name().to_owned()).collect()
    }

    #[test]
    fn a_demo_of_its_own_gets_every_fault_and_twenty_saves() {
        let all = plan("").unwrap();
        assert_eq!((all.faults.len(), all.saves, all.budgets.len()), (7, 20, 6));
        assert_eq!(plan("http://localhost:3000 --faults sigkill").unwrap().saves, 0, "nothing unless told");
        assert_eq!(plan("http://localhost:3000 --faults sigkill --saves 5").unwrap().saves, 5);
    }

    #[test]
    fn faults_are_done_in_their_order_and_commands_last_unless_named() {
        assert_eq!(names("--faults sigkill,sigterm"), ["sigkill", "sigterm"]);
        assert_eq!(names("--faults mine,freeze --run mine=true --run other=true"), ["mine", "freeze", "other"]);
        assert_eq!(names("ws://a.example --protocol generic --run mine=true"), ["mine"]);
    }

    #[test]
    fn what_cannot_be_drilled_is_refused_with_words() {
        for (line, part) in [
            ("http://localhost:3000", "say what is to be done"),
            ("--faults sigquit", "there are sigterm, sigkill, freeze"),
            ("--protocol generic --run a=true", "needs the address"),
            ("ws://a.example --protocol generic --run a=true --saves 2", "knows no saves"),
            ("http://a.example --run a=true --budget lost=0", "lost bounds nothing"),
            ("--kube --faults drain", "--kube needs the address"),
            ("http://a.example --kube --faults sigkill", "there are pod-delete, force-delete"),
            ("--faults sigkill --budget freeze:lost=0", "\"freeze\", which is not done"),
        ] {
            let error = plan(line).expect_err(line).to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
