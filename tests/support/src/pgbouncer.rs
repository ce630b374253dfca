//! A PgBouncer of a test's own, between the programs under test and the server.

use std::{
    env, fs,
    net::SocketAddr,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
};

use tokio::process::{Child, Command};

use crate::{Output, ReservedPort, through};

/// The user that PgBouncer runs as when the test is root, because it refuses to be root: `nobody` on almost every system.
const NOBODY: u32 = 65_534;

/// When a client gives its server connection back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolMode {
    /// After each transaction.
    Transaction,
    /// At its end.
    Session,
}

/// A running PgBouncer that leads to every database of one server. It ends when dropped.
#[derive(Debug)]
pub struct PgBouncer {
    port: ReservedPort,
    /// Killed when dropped.
    _child: Child,
    _directory: Directory,
    _output: Output,
}

impl PgBouncer {
    /// Server connections to each database in the mode [`PoolMode::Transaction`]: so few that clients really share them.
    pub const POOL_SIZE: usize = 2;

    /// Starts one in front of the server of this address, `postgres://user:password@host:port/…`, and waits until it listens.
    ///
    /// # Panics
    /// If there is no PgBouncer on this machine, or if it does not start.
    pub async fn start(server: &str, mode: PoolMode) -> Self {
        let program = find().await;
        let Ok(mut port) = ReservedPort::take() else { panic!("no free port") };
        let directory = Directory::new();
        let users = directory.write("users", &users(server));
        let settings = directory.write("pgbouncer.ini", &settings(port.addr().port(), server, mode, &users));
        let mut command = Command::new(&program);
        command.arg(settings).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        if directory.belongs_to_nobody {
            command.uid(NOBODY).gid(NOBODY);
        }
        port.hand_over();
        let Ok(mut child) = command.spawn() else { panic!("failed to start {}", program.display()) };
        let output = Output::of("PgBouncer", &mut child);
        output.err().line(&format!("listening on {}", port.addr())).await;
        Self { port, _child: child, _directory: directory, _output: output }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// The same database through it.
    #[must_use]
    pub fn url(&self, url: &str) -> String {
        through(url, self.addr())
    }
}

async fn find() -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/find-pgbouncer");
    match Command::new(script).output().await {
        Ok(found) if found.status.success() => PathBuf::from(String::from_utf8_lossy(&found.stdout).trim()),
        _ => panic!("PgBouncer is missing; `make need-pgbouncer` installs it or names the command that does"),
    }
}

/// User, password and `host:port` of an address.
fn parts(server: &str) -> Option<(&str, &str, &str)> {
    let (credentials, rest) = server.split_once("://")?.1.rsplit_once('@')?;
    let (user, password) = credentials.split_once(':')?;
    Some((user, password, rest.split(['/', '?']).next()?))
}

fn settings(port: u16, server: &str, mode: PoolMode, users: &Path) -> String {
    let Some((_, _, authority)) = parts(server) else { panic!("an address without user, password or host") };
    let (host, server_port) = authority.rsplit_once(':').unwrap_or((authority, "5432"));
    let (mode, pool_size) = match mode {
        PoolMode::Transaction => ("transaction", PgBouncer::POOL_SIZE),
        PoolMode::Session => ("session", 50),
    };
    // Programs that are not optimised take 0.1 s for each login by password.
    format!(
        "[databases]
* = host={host} port={server_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {}
pool_mode = {mode}
default_pool_size = {pool_size}
",
        users.display()
    )
}

fn users(server: &str) -> String {
    let Some((user, password, _)) = parts(server) else { panic!("an address without user or password") };
    format!("\"{user}\" \"{password}\"\n")
}

/// A directory that PgBouncer can read. It is removed when dropped.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    belongs_to_nobody: bool,
}

impl Directory {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("tidemark-pgbouncer-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = env::temp_dir().join(name);
        let made = fs::create_dir(&path).and_then(|()| {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
            let root = fs::metadata(&path)?.uid() == 0;
            if root {
                chown(&path, Some(NOBODY), Some(NOBODY))?;
            }
            Ok(root)
        });
        match made {
            Ok(belongs_to_nobody) => Self { path, belongs_to_nobody },
            Err(error) => panic!("failed to make {}: {error}", path.display()),
        }
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path.join(name);
        let written = fs::write(&path, content)
            .and_then(|()| if self.belongs_to_nobody { chown(&path, Some(NOBODY), Some(NOBODY)) } else { Ok(()) });
        if let Err(error) = written {
            panic!("failed to write {}: {error}", path.display());
        }
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What stays is a small file in the directory for temporary ones.
        let _ = fs::remove_dir_all(&self.path);
    }
}
