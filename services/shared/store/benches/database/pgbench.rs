//! Postgres's own load generator. Its client costs a fraction of what a client in Rust costs, which shares the cores with
//! the server here.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::process::Command;

use crate::test_bed::TestBed;

/// The level of the writers' transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    ReadCommitted,
    Serializable,
}

impl Isolation {
    pub fn as_sql(self) -> &'static str {
        match self {
            Self::ReadCommitted => "READ COMMITTED",
            Self::Serializable => "SERIALIZABLE",
        }
    }
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    pub url: &'a str,
    pub statement: &'a str,
    pub clients: usize,
    pub isolation: Isolation,
    /// By how much each flush of the log is longer than the disk makes it.
    pub flush_delay: Duration,
    pub duration: Duration,
}

#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Transactions per second.
    pub rate: f64,
    pub committed: u64,
    /// Transactions that failed with 40001.
    pub refused: u64,
}

pub struct PgBench {
    program: PathBuf,
}

impl PgBench {
    /// In the `PATH`, beside the server's programs, or where Debian has it. `None`: there is none that can report refused
    /// transactions (15 or later).
    pub async fn find(bed: &mut TestBed) -> Option<Self> {
        let beside = sqlx::query_scalar("SELECT setting FROM pg_config WHERE name = 'BINDIR'");
        let beside: Option<String> = beside.fetch_optional(&mut bed.admin).await.unwrap();
        let path = env::var_os("PATH").unwrap_or_default();
        let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
        let places = env::split_paths(&path)
            .chain(beside.map(PathBuf::from))
            .chain(debian.map(|entry| entry.path().join("bin")))
            .map(|directory| directory.join("pgbench"));
        for program in places.filter(|program| program.is_file()) {
            if major(&program).await.is_some_and(|major| major >= 15) {
                return Some(Self { program });
            }
        }
        None
    }

    pub async fn run(&self, run: Run<'_>) -> Outcome {
        let Run { url, statement, clients, isolation, flush_delay, duration } = run;
        let script = env::temp_dir().join(format!("tidemark-bench-{}.sql", std::process::id()));
        fs::write(&script, statement).unwrap();
        // With no sibling required, the backend that flushes for all that wait sleeps first, and holds the lock that it would
        // hold during a slow flush.
        let options = format!(
            "-c default_transaction_isolation={} -c commit_delay={} -c commit_siblings=0",
            isolation.as_sql().to_lowercase().replace(' ', "\\ "),
            flush_delay.as_micros()
        );
        let mut command = Command::new(&self.program);
        command.args(["--no-vacuum", "--protocol=prepared", "--max-tries=1", "--jobs=2"]);
        command.arg(format!("--client={clients}")).arg(format!("--time={}", duration.as_secs()));
        command.arg("--file").arg(&script).arg(url).env("PGOPTIONS", options);
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
        fs::remove_file(&script).unwrap();
        let report = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "pgbench: {report}{}", String::from_utf8_lossy(&output.stderr));
        let number = |label: &str| {
            let line = report.lines().find_map(|line| line.strip_prefix(label)).unwrap_or_else(|| panic!("{report}"));
            let digits = line.trim().split([' ', '/', '(']).next().unwrap_or_default();
            digits.parse::<f64>().unwrap_or_else(|_| panic!("{report}"))
        };
        Outcome {
            rate: number("tps = "),
            committed: number("number of transactions actually processed:") as u64,
            refused: number("number of failed transactions:") as u64,
        }
    }
}

async fn major(program: &Path) -> Option<u32> {
    let output = Command::new(program).arg("--version").output().await.ok()?;
    // pgbench (PostgreSQL) 15.18
    let version = String::from_utf8_lossy(&output.stdout).split(' ').nth(2)?.to_owned();
    version.split(['.', 'd', 'b', 'r', '\n']).next()?.parse().ok()
}
