//! `tidemark postgres -- CMD`: a command with a database of its own.

use std::{ffi::OsString, os::unix::process::ExitStatusExt, process::ExitStatus};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    process::{Child, Command},
    signal::unix::{Signal as SignalStream, SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use super::{Cluster, Error, Options};
use crate::{
    process::{Household, StartLimit, describe},
    say,
};

/// What a shell answers when a signal ended the command.
const BY_SIGNAL: i32 = 128;

/// Flags of `tidemark postgres`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    options: Options,
    /// Port of the database (default: a free one).
    #[arg(long)]
    port: Option<u16>,
    /// The command, and what follows it.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Ctrl-C goes to the command by itself, which shares the terminal's group with us; SIGTERM is for us alone and is passed on.
struct Signals {
    interrupt: SignalStream,
    terminate: SignalStream,
}

/// Runs the command with `DATABASE_URL` set, and gives its exit code.
///
/// # Errors
/// When there is no database, or the command cannot be started.
pub async fn run(args: Args, household: &Household) -> Result<i32, Error> {
    let Args { options, port, command } = args;
    let mut signals = Signals {
        interrupt: signal(SignalKind::interrupt()).map_err(Error::Signals)?,
        terminate: signal(SignalKind::terminate()).map_err(Error::Signals)?,
    };
    let limit = StartLimit::new(options.start_timeout);
    let starting = async {
        let mut cluster = Cluster::prepare(options, port, &limit, household).await?;
        let server = cluster.start(&limit).await?;
        Ok((cluster, server))
    };
    let (cluster, mut server) = tokio::select! {
        started = starting => started?,
        _ = signals.interrupt.recv() => return Ok(BY_SIGNAL + Signal::SIGINT as i32),
        _ = signals.terminate.recv() => return Ok(BY_SIGNAL + Signal::SIGTERM as i32),
    };
    let (program, arguments) = command.split_first().map_or((OsString::new(), [].as_slice()), |(p, a)| (p.clone(), a));
    let spawned = Command::new(&program).args(arguments).env("DATABASE_URL", cluster.url()).spawn();
    let code = match spawned {
        Ok(mut child) => tokio::select! {
            code = finish(&mut child, &mut signals) => Ok(code),
            ended = server.wait() => {
                let how = ended.map_or_else(|error| error.to_string(), describe);
                say::note(format_args!("tidemark: the database {how} while the command ran"));
                Ok(finish(&mut child, &mut signals).await)
            }
        },
        Err(source) => Err(Error::Spawn { program: program.into(), source }),
    };
    server.stop(&CancellationToken::new()).await;
    code
}

/// Waits for the command. A first SIGTERM is passed on as it is, a second one as SIGKILL.
async fn finish(child: &mut Child, signals: &mut Signals) -> i32 {
    let mut passed_on = Signal::SIGTERM;
    loop {
        tokio::select! {
            status = child.wait() => return status.map_or(1, exit_code),
            _ = signals.interrupt.recv() => {}
            _ = signals.terminate.recv() => {
                if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
                    let _ = kill(Pid::from_raw(pid), passed_on);
                }
                passed_on = Signal::SIGKILL;
            }
        }
    }
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| BY_SIGNAL + signal)).unwrap_or(1)
}
