//! A primary and a streaming standby, real servers of this test alone.

use std::fs;

use test_support::{Proxy, Server, ServerFiles, wait_until};

use super::LONG;

/// Both servers. The standby receives its log through a proxy, so that it can be made to lag.
pub struct Pair {
    pub primary: Server,
    pub standby: Server,
    pub log: Proxy,
    place: ServerFiles,
}

impl Pair {
    /// Makes both. The error says what this machine lacks.
    pub async fn start() -> Result<Self, String> {
        let place = ServerFiles::find().await?;
        let (primary, standby) = (place.root.join("primary"), place.root.join("standby"));
        place.initialise(&primary).await;
        // Nothing has run in it: a copy of the files is a base backup, and needs no program that some packages leave out.
        let copied = place.command("cp").arg("-Rp").args([&primary, &standby]).status().await.unwrap();
        assert!(copied.success());
        fs::write(standby.join("standby.signal"), "").unwrap();
        place.hand_over(&standby.join("standby.signal"));

        let primary = place.serve(&primary, &[]).await;
        let log = Proxy::start(primary.addr).await.unwrap();
        let from = format!("host=127.0.0.1 port={} user=postgres password={}", log.addr().port(), place.password);
        // A cut connection is made again after this time, ms; 5 s is the default.
        let standby =
            place.serve(&standby, &[("primary_conninfo", &from), ("wal_retrieve_retry_interval", "100")]).await;
        Ok(Self { primary, standby, log, place })
    }

    /// Waits until the standby has everything that the primary has written.
    pub async fn replicated(&self) {
        let (primary, standby) = (self.primary.pool(), self.standby.pool());
        wait_until(LONG, "the standby has caught up", async || {
            let written: String =
                sqlx::query_scalar("SELECT pg_current_wal_lsn()::text").fetch_one(&primary).await.unwrap();
            let has = sqlx::query_scalar("SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn").bind(written);
            has.fetch_one(&standby).await.unwrap()
        })
        .await;
    }

    /// The standby receives no more, and becomes a primary of its own. The old one goes on.
    pub async fn promote(&self) {
        self.log.cut();
        let promoted: bool = sqlx::query_scalar("SELECT pg_promote()").fetch_one(&self.standby.pool()).await.unwrap();
        assert!(promoted);
    }

    pub async fn stop(self) {
        let Self { primary, standby, place, .. } = self;
        primary.stop().await;
        standby.stop().await;
        drop(place);
    }
}
