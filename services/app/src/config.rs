//! Configuration from the environment, beside what [`ServiceArgs`] has.
//!
//! | variable | default | meaning |
//! |---|---|---|
//! | `DATABASE_URL` | – | `postgres://user:password@host:port/database` |
//! | `PAGE_DIR` | `frontend/dist` | the built page |
//! | `MIGRATE` | `true` | bring the schema up to date at the start; `false`: wait until somebody else has (`app migrate`) |

use std::path::PathBuf;

use axum::http::HeaderValue;
use clap::{ArgAction, Parser};
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
    /// Bring the schema up to date at the start; `false`: wait until somebody else has.
    #[arg(long, env = "MIGRATE", default_value_t = true, action = ArgAction::Set)]
    migrate: bool,
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the program can do beside serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Subcommand)]
pub enum Command {
    /// Wait for the database, bring its schema up to date, and end: 0, or 1 when a migration fails.
    Migrate,
}

impl Args {
    /// The database, or the end of the process with code 2.
    pub fn database(&self) -> DatabaseUrl {
        DatabaseUrl::parse(self.database_url.expose()).unwrap_or_else(|error| invalid("DATABASE_URL", error))
    }

    /// The settings, or the end of the process with code 2 and the name of the variable that is wrong.
    pub fn settings(self) -> Settings {
        let database = self.database();
        let Self { service, database_url: _, page_dir, migrate, command: _ } = self;
        if HeaderValue::from_str(&service.replica_name).is_err() {
            invalid("REPLICA_NAME", "it has characters that a header cannot carry");
        }
        if !page_dir.join("index.html").is_file() {
            let found = format!("{} has no index.html; build the page first", page_dir.display());
            invalid("PAGE_DIR", found);
        }
        Settings { replica: service.replica_name, database, page_dir, migrate }
    }
}
