//! The database's files: made by `initdb` in a temporary directory, or in the one that `--data` names.

use std::{
    env, fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tokio::process::Command;
use uuid::Uuid;

use super::{
    Error, Options,
    account::{Account, hand_over, run_as},
    binaries::Binaries,
    port::ReservedPort,
    server::Server,
};
use crate::{
    guard::Ending,
    process::{Household, Process, StartLimit, describe},
    scratch::Scratch,
};

/// The superuser. Tests make their own databases with it.
const USER: &str = "postgres";

/// Many tests at once, each with several pools, need more than the 100 of Postgres's default.
const MAX_CONNECTIONS: u16 = 200;

/// Where the server listens.
#[derive(Debug)]
enum Port {
    /// The user's choice.
    Fixed(u16),
    /// Ours as long as the cluster exists: a server that is started again listens on it again.
    Reserved(ReservedPort),
}

impl Port {
    fn number(&self) -> u16 {
        match self {
            Self::Fixed(number) => *number,
            Self::Reserved(port) => port.number(),
        }
    }
}

/// An initialised database directory, and how to start a server on it.
#[derive(Debug)]
pub struct Cluster {
    binaries: Binaries,
    account: Option<Account>,
    directory: PathBuf,
    password: String,
    port: Port,
    /// Whether the data must survive a crash of the machine.
    durable: bool,
    household: Household,
    /// What goes at the end.
    scratch: Scratch,
}

impl Cluster {
    /// Finds the server and makes the database, or takes the one that is there.
    ///
    /// # Errors
    /// See [`Error`]; each says what to do.
    pub async fn prepare(
        options: Options,
        port: Option<u16>,
        limit: &StartLimit,
        household: &Household,
    ) -> Result<Self, Error> {
        let Options { data, postgres_bin, start_timeout: _ } = options;
        let account = Account::for_server();
        let scratch = scratch(account.as_ref()).map_err(prepare(&env::temp_dir()))?;
        household.guard.path(scratch.path());
        let found = Binaries::find(postgres_bin.as_deref())?;
        let binaries = reachable(found, account.as_ref(), scratch.path(), limit, household).await?;
        let durable = data.is_some();
        let root = match data {
            Some(data) => kept(&data, account.as_ref())?,
            None => scratch.path().to_owned(),
        };
        let mut cluster = Self {
            binaries,
            account,
            directory: root.join("postgres"),
            password: String::new(),
            port: match port {
                Some(number) => Port::Fixed(number),
                None => Port::Reserved(ReservedPort::take().map_err(Error::Port)?),
            },
            durable,
            household: household.clone(),
            scratch,
        };
        cluster.initialise(&root, limit).await?;
        Ok(cluster)
    }

    /// Starts a server and waits until it takes connections.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn start(&mut self, limit: &StartLimit) -> Result<Server, Error> {
        if let Port::Reserved(port) = &mut self.port {
            port.hand_over();
        }
        Server::start(&self.directory, self.server_command(), limit, &self.household).await
    }

    /// The superuser's address.
    pub fn url(&self) -> String {
        format!("postgres://{USER}:{}@127.0.0.1:{}/postgres", self.password, self.port.number())
    }

    /// `initdb`, unless it has been done. It works on a directory of another name, so that a half-made database is never taken for a whole one.
    async fn initialise(&mut self, root: &Path, limit: &StartLimit) -> Result<(), Error> {
        let password_file = root.join("password");
        if self.directory.join("PG_VERSION").is_file() {
            let text = fs::read_to_string(&password_file).map_err(prepare(&password_file))?;
            self.password = text.trim().to_owned();
            return Ok(());
        }
        self.password = Uuid::new_v4().simple().to_string();
        let in_work = root.join("postgres.new");
        if in_work.exists() {
            fs::remove_dir_all(&in_work).map_err(prepare(&in_work))?;
        }
        fs::write(&password_file, &self.password).map_err(prepare(&password_file))?;
        fs::set_permissions(&password_file, fs::Permissions::from_mode(0o600)).map_err(prepare(&password_file))?;
        hand_over(self.account.as_ref(), &password_file).map_err(prepare(&password_file))?;

        let mut command = self.command(&self.binaries.initdb());
        command.arg("-D").arg(&in_work).arg("--pwfile").arg(&password_file);
        command.args(["-U", USER, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]);
        if !self.durable {
            command.arg("--no-sync");
        }
        run("initdb", "making the database", command, limit, &self.household).await?;
        fs::rename(&in_work, &self.directory).map_err(prepare(&self.directory))
    }

    fn server_command(&self) -> Command {
        let mut command = self.command(&self.binaries.postgres());
        command.arg("-D").arg(&self.directory).arg("-p").arg(self.port.number().to_string());
        command.args(["-c", "listen_addresses=127.0.0.1"]);
        // A socket file's path may be too long, and nobody needs it.
        command.args(["-c", "unix_socket_directories="]);
        command.arg("-c").arg(format!("max_connections={MAX_CONNECTIONS}"));
        if !self.durable {
            command.args(["-c", "fsync=off"]);
        }
        command
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        // Messages in English whatever the user's language, as ours are.
        command.env("LC_ALL", "C").current_dir(self.scratch.path());
        run_as(self.account.as_ref(), &mut command);
        command
    }
}

/// Runs a program that has to end well before the limit.
async fn run(
    program: &'static str,
    step: &'static str,
    command: Command,
    limit: &StartLimit,
    household: &Household,
) -> Result<(), Error> {
    let path = PathBuf::from(command.as_std().get_program());
    let spawned = Process::spawn(household, program, command, Ending::Kill);
    let mut process = spawned.map_err(|source| Error::Spawn { program: path.clone(), source })?;
    match limit.apply(process.wait()).await {
        Some(Ok(status)) if status.success() => Ok(()),
        Some(status) => {
            let how = status.map_or_else(|error| error.to_string(), describe);
            Err(Error::Ended { program, how, tail: process.last_words().await })
        }
        // The guard ends it.
        None => Err(Error::Slow { step, limit: limit.describe().to_string(), program, tail: process.tail() }),
    }
}

fn prepare(path: &Path) -> impl Fn(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Prepare { path: path.clone(), source }
}

/// A temporary directory that the account can reach: the user's own, else `/tmp`.
fn scratch(account: Option<&Account>) -> io::Result<Scratch> {
    let mut parent = env::temp_dir();
    if account.is_some_and(|account| !account.reaches(&parent)) {
        parent = PathBuf::from("/tmp");
    }
    let scratch = Scratch::inside(&parent)?;
    hand_over(account, scratch.path())?;
    Ok(scratch)
}

/// The directory of `--data`: new, empty, or made by an earlier run.
fn kept(data: &Path, account: Option<&Account>) -> Result<PathBuf, Error> {
    let unreachable = |path: &Path| {
        let user = account.filter(|account| !account.reaches(path))?;
        Some(Error::Unreachable { user: user.name.clone(), path: path.to_owned() })
    };
    let data = std::path::absolute(data).map_err(prepare(data))?;
    let parent = data.parent().unwrap_or(&data);
    fs::create_dir_all(parent).map_err(prepare(parent))?;
    if let Some(error) = unreachable(parent) {
        return Err(error);
    }
    if !data.exists() {
        fs::DirBuilder::new().mode(0o700).create(&data).map_err(prepare(&data))?;
    }
    let mut entries = fs::read_dir(&data).map_err(prepare(&data))?.filter_map(Result::ok);
    if entries.any(|entry| !["password", "postgres", "postgres.new"].iter().any(|ours| entry.file_name() == *ours)) {
        return Err(Error::Foreign(data));
    }
    hand_over(account, &data).map_err(prepare(&data))?;
    unreachable(&data).map_or(Ok(data), Err)
}

/// Binaries that the account can run. Those of an npm package in root's home are copied (60 MB) to where it can.
async fn reachable(
    binaries: Binaries,
    account: Option<&Account>,
    scratch: &Path,
    limit: &StartLimit,
    household: &Household,
) -> Result<Binaries, Error> {
    if account.is_none_or(|account| account.reaches(binaries.directory())) {
        return Ok(binaries);
    }
    let prefix = binaries.directory().parent().unwrap_or(binaries.directory());
    let place = scratch.join("server");
    let mut command = Command::new("cp");
    // `cp -R` keeps the symbolic links among the libraries; -p the modes.
    command.arg("-Rp").arg(prefix).arg(&place);
    run("cp", "copying Postgres", command, limit, household).await?;
    hand_over(account, &place).map_err(prepare(&place))?;
    Binaries::in_directory(&place.join("bin")).ok_or(Error::NotThere(place))
}
