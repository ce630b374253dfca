//! The schema: brought up to date by this program, or waited for.

use std::time::Duration;

use anyhow::Context;
use runtime::{Condition, Signals, error_chain};
use store::DatabaseUrl;
use tokio::time::sleep;

/// Between two attempts. The database is often started at the same time.
const RETRY: Duration = Duration::from_millis(500);

/// `app migrate`: brings the schema up to date, however long the database takes to appear.
///
/// # Errors
/// When a migration fails, when the database does not know the account, or when the process is told to stop before the end.
pub async fn migrate(database: DatabaseUrl, signals: Signals) -> anyhow::Result<()> {
    let mut waiting = Waiting::default();
    let work = async {
        loop {
            match store::migrate(&database).await {
                Err(error) if error.is_passing() => waiting.say(&error_chain(&error)),
                done => return done,
            }
            sleep(RETRY).await;
        }
    };
    signals.stop.run_until_cancelled(work).await.context("told to stop before the schema was up to date")??;
    tracing::info!("the schema is up to date");
    Ok(())
}

/// While the app serves: brings the schema up to date, or waits until somebody else has, and says so in the readiness condition. It never
/// gives up: the page needs no database, and whatever is in the way may be repaired meanwhile.
pub async fn follow(database: DatabaseUrl, migrate: bool, schema: Condition) {
    let mut waiting = Waiting::default();
    while let Err(reason) = attempt(&database, migrate).await {
        waiting.say(&reason);
        schema.set(false, reason);
        sleep(RETRY).await;
    }
    tracing::info!("the schema is up to date");
    schema.set(true, "up to date");
}

async fn attempt(database: &DatabaseUrl, migrate: bool) -> Result<(), String> {
    if migrate {
        return store::migrate(database).await.map_err(|error| error_chain(&error));
    }
    match store::pending_migrations(database).await.map_err(|error| error_chain(&error))? {
        0 => Ok(()),
        pending => Err(format!("waiting for somebody else to migrate: {pending} migrations are not applied")),
    }
}

/// Says what is waited for: once for each reason, not twice a second.
#[derive(Default)]
struct Waiting(String);

impl Waiting {
    fn say(&mut self, reason: &str) {
        if self.0 != reason {
            tracing::warn!("waiting for the database: {reason}");
            reason.clone_into(&mut self.0);
        }
    }
}
