//! 1,000 servers made by two generators and shown by two dashboards: how old the values are that a client has, looked at every 100 ms, and what
//! that costs. All real processes on this machine; needs `metric-generator` beside the dashboard; `make bench`.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a bench that panics has said what it found")]

mod common;

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use common::{connect, frame};
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use store::DatabaseUrl;
use tokio::time::{Instant, interval, sleep};

const SERVERS: usize = 1_000;
/// Until every server has a value and the lists have settled.
const WARM_UP: Duration = Duration::from_secs(15);
const MEASURED: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(100);

/// What a client has: by server the second of its newest sample.
type Known = Arc<Mutex<HashMap<String, u64>>>;

#[tokio::main]
async fn main() {
    let url = std::env::var("DATABASE_URL").expect("DATABASE_URL, as `make bench` sets it");
    store::migrate(&DatabaseUrl::parse(&url).unwrap()).await.unwrap();
    let mut database = PgConnection::connect(&url).await.unwrap();
    let dashboard = Path::new(env!("CARGO_BIN_EXE_dashboard"));
    let generator = dashboard.with_file_name("metric-generator");
    assert!(generator.is_file(), "build it first: cargo build --release -p metric-generator");

    let generators = [(); 2].map(|()| Service::start(&generator, &[("SERVER_COUNT", SERVERS.to_string())]));
    let dashboards = [0, 1].map(|index: usize| {
        Service::start(dashboard, &[("GENERATOR_URL", format!("http://{}", generators[index].address))])
    });
    let mut clients = Vec::new();
    for dashboard in &dashboards {
        let known = Known::default();
        tokio::spawn(follow(dashboard.address, Arc::clone(&known)));
        clients.push(known);
    }
    sleep(WARM_UP).await;

    let postmaster: i32 =
        sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut database).await.map(parent).unwrap();
    let cpu = || {
        let services = |services: &[Service]| services.iter().map(|service| ticks(service.pid())).sum::<u64>();
        [services(&dashboards), services(&generators), family(postmaster)]
    };
    let (before, began, mut ages, mut looks) = (cpu(), Instant::now(), Vec::new(), interval(LOOK));
    while began.elapsed() < MEASURED {
        looks.tick().await;
        for known in &clients {
            let known = known.lock().unwrap();
            assert_eq!(known.len(), SERVERS);
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
            ages.extend(known.values().map(|second| now - *second as f64));
        }
    }
    let (seconds, after) = (began.elapsed().as_secs_f64(), cpu());
    ages.sort_by(f64::total_cmp);
    let at = |part: f64| ages[((ages.len() - 1) as f64 * part) as usize];
    println!("\n{SERVERS} servers, 2 generators, 2 dashboards, a client of each; {seconds:.0} s, a look every 100 ms");
    println!(
        "age of a value at a client (s): p50 {:.2}, p99 {:.2}, max {:.2} (target: <= 2)",
        at(0.5),
        at(0.99),
        at(1.0)
    );
    for (index, name) in ["both dashboards", "both generators", "Postgres"].iter().enumerate() {
        // A tick is 10 ms: so many per second are percent of one core.
        println!("CPU of {name}: {:.1} % of a core", (after[index] - before[index]) as f64 / seconds);
    }
    let failed = "SELECT count(*) - count(DISTINCT (server_id, second)) FROM tidemark.metrics";
    let doubled: i64 = sqlx::query_scalar(failed).fetch_one(&mut database).await.unwrap();
    println!("samples stored twice: {doubled}");
}

struct Service {
    child: Child,
    address: SocketAddr,
}

impl Service {
    /// Starts it on free ports, and waits until it says where it listens.
    fn start(program: &Path, vars: &[(&str, String)]) -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let mut command = Command::new(program);
        command.env("HOST", "127.0.0.1").env("PORT", free()).env("ADMIN_PORT", free());
        command.envs(vars.iter().map(|(name, value)| (*name, value))).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let address =
            lines.find_map(|line| line.split(' ').find_map(|word| word.strip_prefix("address=")?.parse().ok()));
        let address = address.expect("the service says where it listens");
        // A full pipe would stop it.
        thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps what one client is told.
async fn follow(address: SocketAddr, known: Known) {
    let mut frames = connect(address, "servers").await;
    // The end of the bench is the end of the dashboard.
    while let Some(frame) = frame(&mut frames).await {
        let frame: Value = serde_json::from_str(&frame).unwrap();
        let mut known = known.lock().unwrap();
        for item in frame["items"].as_array().into_iter().flatten() {
            known.insert(item["key"].as_str().unwrap().to_owned(), item["version"].as_u64().unwrap());
        }
    }
}

/// The fields of proc_pid_stat(5) from the third on.
fn stat(pid: i32) -> Option<Vec<i64>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    Some(fields.split(' ').skip(1).map(|field| field.trim().parse().unwrap_or_default()).collect())
}

fn parent(pid: i32) -> i32 {
    i32::try_from(stat(pid).unwrap()[0]).unwrap()
}

/// CPU time so far, ticks of 10 ms: fields 14 and 15.
fn ticks(pid: i32) -> u64 {
    stat(pid).map_or(0, |fields| (fields[10] + fields[11]).unsigned_abs())
}

/// The same for the database: the postmaster, its children, and those that have ended (fields 16 and 17).
fn family(postmaster: i32) -> u64 {
    let ended = stat(postmaster).map_or(0, |fields| (fields[12] + fields[13]).unsigned_abs());
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let children = pids.filter(|pid| stat(*pid).is_some_and(|fields| fields[0] == i64::from(postmaster)));
    ended + ticks(postmaster) + children.map(ticks).sum::<u64>()
}
