//! Servers of a test's own, with settings of their own. Their programs are those of the server that the tests run on.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has said what it found")]

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use sqlx::{ConnectOptions, Connection, PgConnection, PgPool, postgres::PgConnectOptions};
use tokio::{
    process::{Child, Command},
    time::timeout,
};
use uuid::Uuid;

use crate::{Output, Proxy, ReservedPort, wait_until};

/// Long against the start and the end of a server, also on a machine that compiles at the same time.
const LONG: Duration = Duration::from_secs(30);

/// A running server; it is killed when this goes.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Where it listens.
    pub addr: SocketAddr,
    options: PgConnectOptions,
    _port: ReservedPort,
    _output: Output,
}

impl Server {
    /// Its address.
    #[must_use]
    pub fn options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    /// A pool of this server's own connections, past every proxy.
    #[must_use]
    pub fn pool(&self) -> PgPool {
        PgPool::connect_lazy_with(self.options.clone())
    }

    /// The address of the same database by another way.
    #[must_use]
    pub fn through(&self, proxy: &Proxy) -> PgConnectOptions {
        self.options.clone().port(proxy.addr().port())
    }

    /// Ends it as its fast shutdown does, so that nobody is left when its files go.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn stop(mut self) {
        if let Some(pid) = self.child.id() {
            Command::new("kill").args(["-INT", &pid.to_string()]).status().await.unwrap();
        }
        timeout(LONG, self.child.wait()).await.expect("the server ends").unwrap();
    }
}

/// Where the files of servers lie, and who may run them: Postgres refuses to be root.
#[derive(Debug)]
pub struct ServerFiles {
    /// A directory of this test's own.
    pub root: PathBuf,
    programs: PathBuf,
    /// Of the account `postgres`.
    pub password: String,
    /// User and group, if another than ourselves.
    account: Option<(u32, u32)>,
}

impl ServerFiles {
    /// Asks the server that the tests run on where its programs are, and who runs it.
    ///
    /// # Errors
    /// What this machine lacks.
    ///
    /// # Panics
    /// If the server that the tests run on is not there.
    pub async fn find() -> Result<Self, String> {
        let mut server = PgConnection::connect(&std::env::var("DATABASE_URL").unwrap()).await.unwrap();
        let programs = "SELECT setting FROM pg_config WHERE name = 'BINDIR'";
        let programs: PathBuf =
            sqlx::query_scalar::<_, String>(programs).fetch_one(&mut server).await.map_err(|e| e.to_string())?.into();
        if !["initdb", "postgres"].iter().all(|program| programs.join(program).is_file()) {
            return Err(format!("no initdb and postgres in {}, where the server has its programs", programs.display()));
        }
        let data: String = sqlx::query_scalar("SHOW data_directory").fetch_one(&mut server).await.unwrap();
        let owner = fs::metadata(&data).map_err(|error| format!("{data}: {error}"))?;
        let root = std::env::temp_dir().join(format!("tidemark-servers-{}", Uuid::new_v4().simple()));
        fs::create_dir(&root).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).unwrap();
        let ours = fs::metadata(&root).unwrap().uid();
        let account = (ours == 0).then(|| (owner.uid(), owner.gid()));
        let place = Self { root, programs, password: Uuid::new_v4().simple().to_string(), account };
        place.hand_over(&place.root);
        Ok(place)
    }

    /// Makes a file the server's.
    ///
    /// # Panics
    /// If it may not.
    pub fn hand_over(&self, path: &Path) {
        if let Some((user, group)) = self.account {
            chown(path, Some(user), Some(group)).unwrap();
        }
    }

    /// A command as the account that runs servers.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env("LC_ALL", "C").current_dir(&self.root);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        if let Some((user, group)) = self.account {
            command.uid(user).gid(group);
        }
        command
    }

    /// Makes the files of a server.
    ///
    /// # Panics
    /// If that fails.
    pub async fn initialise(&self, directory: &Path) {
        let file = self.root.join("password");
        fs::write(&file, &self.password).unwrap();
        self.hand_over(&file);
        let mut initdb = self.command(self.programs.join("initdb"));
        initdb.arg("-D").arg(directory).arg("--pwfile").arg(&file);
        initdb.args(["-U", "postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        let made = initdb.stderr(Stdio::piped()).output().await.unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
    }

    /// Starts a server and waits until it answers.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn serve(&self, directory: &Path, settings: &[(&str, &str)]) -> Server {
        let mut port = ReservedPort::take().unwrap();
        let addr = port.addr();
        let mut command = self.command(self.programs.join("postgres"));
        command.stderr(Stdio::piped());
        command.arg("-D").arg(directory).arg("-p").arg(addr.port().to_string());
        // Its own socket file would need a short path. Everything that is written stays for the standby, however late it asks.
        command.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off"]);
        command.args(["-c", "wal_keep_size=1GB"]);
        for (name, value) in settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        port.hand_over();
        let mut child = command.spawn().unwrap();
        let output = Output::of(&format!("Postgres on {}", directory.display()), &mut child);
        let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(addr.port());
        let options = options.username("postgres").password(&self.password).database("postgres");
        wait_until(LONG, "the server answers", async || {
            assert_eq!(child.try_wait().unwrap(), None, "the server has ended");
            match options.connect().await {
                Ok(connection) => connection.close().await.is_ok(),
                Err(_) => false,
            }
        })
        .await;
        Server { child, addr, options, _port: port, _output: output }
    }
}

impl Drop for ServerFiles {
    fn drop(&mut self) {
        // What a failed test leaves running has been killed, and may still be ending.
        let _ = fs::remove_dir_all(&self.root);
    }
}
