//! From the moment a save is sent to the database until a client has the frame, on an idle system, against a bare LISTEN/NOTIFY and one
//! read on the same database. Both in turn, in one run; `make bench`.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a bench that panics has said what it found")]

mod common;

use std::time::{Duration, Instant};

use common::{Frames, connect, frame};

use dashboard::{Settings, admission::Limits, drain::Window, origin::AllowedOrigins, sockets::SocketOptions};
use runtime::{Listeners, Signals};
use sqlx::{Connection, PgConnection, postgres::PgListener};
use store::{DatabaseUrl, ReaderConfig, VisitorsConfig};
use tokio::net::TcpListener;

const SAMPLES: usize = 100;
/// Longer than a reader stays awake after a change, and with no common measure with the poll.
const IDLE: Duration = Duration::from_millis(313);

#[tokio::main]
async fn main() {
    let url = std::env::var("DATABASE_URL").expect("DATABASE_URL, as `make bench` sets it");
    let database = DatabaseUrl::parse(&url).unwrap();
    store::migrate(&database).await.unwrap();
    let mut writer = PgConnection::connect(&url).await.unwrap();
    let bare = "CREATE TABLE IF NOT EXISTS public.bare_bell (body text NOT NULL)";
    sqlx::query(bare).execute(&mut writer).await.unwrap();

    let (users, admin) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let addr = users.local_addr().unwrap();
    let signals = Signals::default();
    let settings = Settings {
        replica: "bench".into(),
        origins: AllowedOrigins::default(),
        limits: Limits::default(),
        sockets: SocketOptions::default(),
        drain: Window { least: Duration::ZERO, most: Duration::ZERO },
        beat: Duration::from_secs(5),
        stall: Duration::from_secs(30),
        reader: ReaderConfig::new(database.clone(), "bench"),
        servers: dashboard::servers::ServersConfig::new(None),
        visitors: VisitorsConfig::new(database, "bench"),
    };
    let served = tokio::spawn(dashboard::run(settings, Listeners { users, admin }, signals.clone()));
    let mut client = connect(addr, "texts").await;
    next_set(&mut client).await;
    let mut listener = PgListener::connect(&url).await.unwrap();
    listener.listen("bare_bell").await.unwrap();
    let mut reader = PgConnection::connect(&url).await.unwrap();

    let (mut tidemark, mut bell) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        tokio::time::sleep(IDLE).await;
        let began = Instant::now();
        let insert = sqlx::query("INSERT INTO tidemark.texts (id, body) VALUES (gen_random_uuid(), 'a text')")
            .execute(&mut writer);
        let (inserted, ()) = tokio::join!(insert, next_set(&mut client));
        inserted.unwrap();
        tidemark.push(began.elapsed().as_secs_f64() * 1e3);

        tokio::time::sleep(IDLE).await;
        let began = Instant::now();
        let insert = "WITH row AS (INSERT INTO public.bare_bell VALUES ('a text')) SELECT pg_notify('bare_bell', '')";
        let hear = async {
            listener.recv().await.unwrap();
            sqlx::query("SELECT count(*) FROM (SELECT 1 FROM public.bare_bell LIMIT 1) AS one")
                .execute(&mut reader)
                .await
                .unwrap();
        };
        let (inserted, ()) = tokio::join!(sqlx::query(insert).execute(&mut writer), hear);
        inserted.unwrap();
        bell.push(began.elapsed().as_secs_f64() * 1e3);
    }
    println!("\nSave sent to the database -> seen, idle system (ms, {SAMPLES} samples each, in turn)");
    println!("{:>34} {:>8} {:>8}", "", "p50", "p99");
    for (name, times) in [("frame at a client", &mut tidemark), ("bare LISTEN/NOTIFY and one read", &mut bell)] {
        times.sort_by(f64::total_cmp);
        println!("{name:>34} {:>8.2} {:>8.2}", times[SAMPLES / 2], times[SAMPLES * 99 / 100]);
    }
    println!("ratio of the p50: {:.2} (targets: p50 <= 3 ms, ratio <= 1.5)", tidemark[SAMPLES / 2] / bell[SAMPLES / 2]);
    signals.stop.cancel();
    signals.hurry.cancel();
    served.await.unwrap().unwrap();
}

async fn next_set(frames: &mut Frames) {
    while !frame(frames).await.expect("a frame").contains("\"set\"") {}
}
