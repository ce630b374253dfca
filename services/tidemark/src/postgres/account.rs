//! Who runs the server: Postgres refuses to be root.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, chown},
    path::Path,
};

use nix::unistd::{User, geteuid};
use tokio::process::Command;

/// The user `nobody` on almost every system.
const NOBODY: u32 = 65_534;

/// Another user, when we are root. Otherwise the server runs as ourselves.
#[derive(Debug, Clone)]
pub struct Account {
    /// Name of the user.
    pub name: String,
    uid: u32,
    gid: u32,
}

impl Account {
    /// `postgres` if there is such a user, else `nobody`; `None` if we are not root.
    pub fn for_server() -> Option<Self> {
        geteuid().is_root().then(|| {
            ["postgres", "nobody"].into_iter().find_map(|name| User::from_name(name).ok().flatten()).map_or(
                Self { name: NOBODY.to_string(), uid: NOBODY, gid: NOBODY },
                |user| Self { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() },
            )
        })
    }

    /// Whether this user gets there: every directory on the way lets everybody through, or belongs to them.
    pub fn reaches(&self, path: &Path) -> bool {
        fs::canonicalize(path).is_ok_and(|path| {
            path.ancestors().filter(|step| step.is_dir()).all(|directory| {
                fs::metadata(directory).is_ok_and(|meta| meta.mode() & 0o001 != 0 || meta.uid() == self.uid)
            })
        })
    }
}

/// Gives a file or directory to the account, if there is one.
pub fn hand_over(account: Option<&Account>, path: &Path) -> io::Result<()> {
    account.map_or(Ok(()), |account| chown(path, Some(account.uid), Some(account.gid)))
}

/// Makes the program run as the account, if there is one. The standard library drops all other groups of root then.
pub fn run_as(account: Option<&Account>, command: &mut Command) {
    if let Some(account) = account {
        command.uid(account.uid).gid(account.gid);
    }
}
