//! `.tidemark/demo.json`: who runs, for people's scripts and for tests.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::Error;
use crate::{guard::Guard, process::is_running};

const DIRECTORY: &str = ".tidemark";
const FILE: &str = "demo.json";

/// One running part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// `front`, `app`, `dashboard`, `metric-generator` or `postgres`.
    pub service: String,
    /// Name of the replica.
    pub name: String,
    /// Its process.
    pub pid: i32,
    /// Its own address.
    pub url: String,
    /// Its admin address.
    pub admin: Option<String>,
}

impl Entry {
    /// This process.
    pub fn front(url: String) -> Self {
        let pid = Pid::this().as_raw();
        Self { service: "front".into(), name: "front".into(), pid, url, admin: None }
    }

    pub fn database(name: &str, pid: i32, url: String) -> Self {
        Self { service: name.to_owned(), name: name.to_owned(), pid, url, admin: None }
    }
}

/// The file, and what stands in it.
#[derive(Debug)]
pub(super) struct Roster {
    directory: PathBuf,
    entries: Mutex<Vec<Entry>>,
}

impl Roster {
    /// Takes the place, unless another demo that still runs has it.
    pub fn create(guard: &Guard) -> Result<Arc<Self>, Error> {
        let directory = std::path::absolute(DIRECTORY).map_err(Error::Prepare)?;
        Self::create_in(directory, guard)
    }

    fn create_in(directory: PathBuf, guard: &Guard) -> Result<Arc<Self>, Error> {
        let file = directory.join(FILE);
        if let Some(front) = front_of(&file).filter(|front| is_running(front.pid)) {
            return Err(Error::Running { pid: front.pid, url: front.url, file });
        }
        fs::create_dir_all(&directory).map_err(|source| Error::Roster { path: directory.clone(), source })?;
        guard.path(&file);
        guard.empty_directory(&directory);
        Ok(Arc::new(Self { directory, entries: Mutex::default() }))
    }

    /// Adds a part, or replaces the one of the same name.
    pub fn set(&self, entry: Entry) -> Result<(), Error> {
        self.change(|entries| match entries.iter_mut().find(|known| known.name == entry.name) {
            Some(known) => *known = entry,
            None => entries.push(entry),
        })
    }

    /// Removes a part.
    pub fn unset(&self, name: &str) {
        if let Err(error) = self.change(|entries| entries.retain(|known| known.name != name)) {
            crate::say::note(error);
        }
    }

    /// All parts, by service and age.
    pub fn entries(&self) -> Vec<Entry> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Removes the file, and its directory if nothing else is there.
    pub fn remove_file(&self) {
        let _ = fs::remove_file(self.directory.join(FILE));
        let _ = fs::remove_dir(&self.directory);
    }

    /// The lock is held while the file is written, so that the newest state is written last.
    fn change(&self, change: impl FnOnce(&mut Vec<Entry>)) -> Result<(), Error> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut entries);
        let order = ["front", "app", "dashboard", "metric-generator", "postgres"];
        // The number at the end of a name may have more digits than that of another.
        entries.sort_by_key(|Entry { service, name, .. }| {
            (order.iter().position(|known| known == service), name.len(), name.clone())
        });
        let path = self.directory.join(FILE);
        self.write(&path, &entries).map_err(|source| Error::Roster { path, source })
    }

    /// Under another name first: a reader finds the old file or the new one, never half of one.
    fn write(&self, path: &Path, entries: &[Entry]) -> io::Result<()> {
        let new = self.directory.join("demo.json.new");
        // The database's address has its password in it.
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec_pretty(entries)?)?;
        file.write_all(b"\n")?;
        fs::rename(new, path)
    }
}

/// Where a demo that runs in a directory says who runs.
pub(crate) fn file_in(directory: &Path) -> PathBuf {
    directory.join(DIRECTORY).join(FILE)
}

/// Who runs.
pub(crate) fn read(file: &Path) -> io::Result<Vec<Entry>> {
    Ok(serde_json::from_slice(&fs::read(file)?)?)
}

fn front_of(file: &Path) -> Option<Entry> {
    read(file).ok()?.into_iter().find(|entry| entry.service == "front")
}
