//! The database's files: made by `initdb` in a temporary directory, or in the one that `--data` names.

use std::{
    env, fs, io,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tokio::process::Command;
use uuid::Uuid;

use super::{
    Error, Options,
    account::{Account, hand_over, run_as},
    binaries::Binaries,
    server::Server,
};
use crate::{
    guard::Ending,
    process::{Household, Process, describe},
    scratch::Scratch,
};

/// The superuser. Tests make their own databases with it.
const USER: &str = "postgres";

/// Many tests at once, each with several pools, need more than the 100 of Postgres's default.
const MAX_CONNECTIONS: u16 = 200;

/// Another program may take the port that was free a moment ago.
const PORT_ATTEMPTS: u32 = 3;

/// An initialised database directory, and how to start a server on it.
#[derive(Debug)]
pub struct Cluster {
    binaries: Binaries,
    account: Option<Account>,
    directory: PathBuf,
    password: String,
    port: u16,
    port_is_fixed: bool,
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
    pub async fn prepare(options: Options, port: Option<u16>, household: &Household) -> Result<Self, Error> {
        let Options { data, postgres_bin } = options;
        let account = Account::for_server();
        let scratch = scratch(account.as_ref()).map_err(prepare(&env::temp_dir()))?;
        household.guard.path(scratch.path());
        let binaries = reachable(Binaries::find(postgres_bin.as_deref())?, account.as_ref(), scratch.path())?;
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
            port: port.map_or_else(free_port, Ok).map_err(Error::Port)?,
            port_is_fixed: port.is_some(),
            durable,
            household: household.clone(),
            scratch,
        };
        cluster.initialise(&root).await?;
        Ok(cluster)
    }

    /// Starts a server and waits until it takes connections.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn start(&mut self) -> Result<Server, Error> {
        for _ in 1..PORT_ATTEMPTS {
            match Server::start(&self.directory, self.server_command(), &self.household).await {
                Err(Error::Ended { tail, .. }) if !self.port_is_fixed && tail.contains("Address already in use") => {
                    self.port = free_port().map_err(Error::Port)?;
                }
                outcome => {
                    // Whoever was told this address must find the next server there too.
                    self.port_is_fixed |= outcome.is_ok();
                    return outcome;
                }
            }
        }
        Server::start(&self.directory, self.server_command(), &self.household).await
    }

    /// The superuser's address.
    pub fn url(&self) -> String {
        format!("postgres://{USER}:{}@127.0.0.1:{}/postgres", self.password, self.port)
    }

    /// `initdb`, unless it has been done. It works on a directory of another name, so that a half-made database is never taken for a whole one.
    async fn initialise(&mut self, root: &Path) -> Result<(), Error> {
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
        let mut initdb = Process::spawn(&self.household, "initdb", command, Ending::Kill)
            .map_err(|source| Error::Spawn { program: self.binaries.initdb(), source })?;
        let status = initdb.wait().await.map_err(prepare(&in_work))?;
        if !status.success() {
            return Err(Error::Ended { program: "initdb", how: describe(status), tail: initdb.last_words().await });
        }
        fs::rename(&in_work, &self.directory).map_err(prepare(&self.directory))
    }

    fn server_command(&self) -> Command {
        let mut command = self.command(&self.binaries.postgres());
        command.arg("-D").arg(&self.directory).arg("-p").arg(self.port.to_string());
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
        // Messages in English whatever the user's language: one of them is looked for above.
        command.env("LC_ALL", "C").current_dir(self.scratch.path());
        run_as(self.account.as_ref(), &mut command);
        command
    }
}

/// A free port on the loopback interface. Nobody holds it when this returns: who uses it must be ready to try another.
///
/// # Errors
/// When the system has none.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
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
fn reachable(binaries: Binaries, account: Option<&Account>, scratch: &Path) -> Result<Binaries, Error> {
    if account.is_none_or(|account| account.reaches(binaries.directory())) {
        return Ok(binaries);
    }
    let prefix = binaries.directory().parent().unwrap_or(binaries.directory());
    let (place, copy) = (scratch.join("server"), Path::new("cp"));
    // `cp -R` keeps the symbolic links among the libraries; -p the modes.
    let copied = std::process::Command::new(copy).arg("-Rp").arg(prefix).arg(&place).status();
    match copied.map_err(|source| Error::Spawn { program: copy.to_owned(), source })? {
        status if status.success() => hand_over(account, &place).map_err(prepare(&place))?,
        status => {
            return Err(Error::Ended { program: "cp", how: describe(status), tail: String::new() });
        }
    }
    Binaries::in_directory(&place.join("bin")).ok_or(Error::NotThere(place))
}
