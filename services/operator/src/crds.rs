//! The CRD as a file: generated from [`Board`], committed, and compared by a test.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use kube::CustomResourceExt;

use crate::board::Board;

/// The file's name, in `k8s/crds` and in the chart.
pub const FILE: &str = "boards.yaml";

/// Where the operator's chart has the same file.
pub const CHART_DIR: &str = "charts/tidemark-operator/files";

const HEADER: &str = "# Generated from services/operator/src/board by `cargo run -p operator -- crds`; do not edit.\n";

/// The file could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The CRD does not fit into YAML.
    #[error("failed to write the CRD as YAML")]
    Serialize(#[from] serde_saphyr::ser::Error),
    /// A file or directory cannot be written.
    #[error("failed to write {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The file's content.
///
/// # Errors
/// When the CRD does not fit into YAML.
pub fn yaml() -> Result<String, Error> {
    Ok(format!("{HEADER}{}", serde_saphyr::to_string(&Board::crd())?))
}

/// Writes the file into `dir`, and into the chart if there is one. Says which files it wrote.
///
/// # Errors
/// When a file cannot be written.
pub fn write(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let (content, chart) = (yaml()?, Path::new(CHART_DIR));
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| Error::Write { path, source }
    };
    fs::create_dir_all(dir).map_err(failed(dir))?;
    let mut written = Vec::new();
    for dir in [Some(dir), chart.is_dir().then_some(chart)].into_iter().flatten() {
        let path = dir.join(FILE);
        fs::write(&path, &content).map_err(failed(&path))?;
        written.push(path);
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_crd_is_the_one_of_the_code() {
        let root = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../..");
        let chart = root.join(CHART_DIR);
        for dir in [Some(root.join("k8s/crds")), chart.is_dir().then_some(chart)].into_iter().flatten() {
            let path = dir.join(FILE);
            let committed = fs::read_to_string(&path).unwrap_or_default();
            assert!(
                committed == yaml().unwrap(),
                "{} is not what the code says; run `cargo run -p operator -- crds` and commit it",
                path.display()
            );
        }
    }
}
