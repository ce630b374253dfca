//! A temporary directory that goes when it is dropped.

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use uuid::Uuid;

/// A directory of our own, readable by us only.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one inside `parent`.
    ///
    /// # Errors
    /// When `parent` cannot be written.
    pub fn inside(parent: &Path) -> io::Result<Self> {
        let path = parent.join(format!("tidemark-{}", Uuid::new_v4().simple()));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // If a process still writes here, the guard removes the rest after that process.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
