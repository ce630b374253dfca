//! Configuration from the environment, beside what [`ServiceArgs`] has.
//!
//! | variable | default | meaning |
//! |---|---|---|
//! | `DATABASE_URL` | – | `postgres://user:password@host:port/database` |
//! | `PAGE_DIR` | `frontend/dist` | the built page |

use std::path::PathBuf;

use axum::http::HeaderValue;
use clap::Parser;
use runtime::{Secret, ServiceArgs, invalid};
use store::DatabaseUrl;

use crate::Settings;

/// The app: stores texts, lists them, and serves the page.
#[derive(Debug, Parser)]
#[command(name = "app", version)]
pub struct Args {
    /// What every service is told.
    #[command(flatten)]
    pub service: ServiceArgs,
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Secret,
    /// Directory of the built page.
    #[arg(long, env = "PAGE_DIR", default_value = "frontend/dist")]
    page_dir: PathBuf,
}

impl Args {
    /// The settings, or the end of the process with code 2 and the name of the variable that is wrong.
    pub fn settings(self) -> Settings {
        let Self { service, database_url, page_dir } = self;
        let database = DatabaseUrl::parse(database_url.expose()).unwrap_or_else(|error| invalid("DATABASE_URL", error));
        if HeaderValue::from_str(&service.replica_name).is_err() {
            invalid("REPLICA_NAME", "it has characters that a header cannot carry");
        }
        if !page_dir.join("index.html").is_file() {
            let found = format!("{} has no index.html; build the page first", page_dir.display());
            invalid("PAGE_DIR", found);
        }
        Settings { replica: service.replica_name, database, page_dir }
    }
}
