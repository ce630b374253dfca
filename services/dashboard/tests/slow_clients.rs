//! Clients that read less than there is to tell: they get the newest value, nothing is queued for them, and the others notice nothing.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{
    Client, LONG,
    crowd::{Arrival, shake_hands},
    process::Running,
};
use serde_json::Value;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};

const SLOW: usize = 20;
/// Changes a second.
const CHANGES: u32 = 200;
/// How long they read one frame a second. The first half fills the buffers.
const SLOWLY: Duration = Duration::from_secs(45);
/// Changes that are compared at a time: 3 s.
const ROUND: usize = 600;
const SEND_BUFFER: usize = 16 * 1024;
const RECEIVE_BUFFER: usize = 4 * 1024;

/// When each change was acknowledged by the database; the first one is the count 1.
type Acknowledged = Arc<Mutex<Vec<Instant>>>;

async fn change(pool: PgPool, acknowledged: Acknowledged) {
    let mut connection = pool.acquire().await.unwrap();
    let mut every = interval(Duration::from_secs(1) / CHANGES);
    every.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        every.tick().await;
        let insert = sqlx::query("INSERT INTO tidemark.texts (id, body) VALUES (gen_random_uuid(), 'a text')");
        insert.execute(&mut *connection).await.unwrap();
        acknowledged.lock().unwrap().push(Instant::now());
    }
}

/// How long each change took from its acknowledgement to this client, ms, in the order of the changes.
async fn watch(mut client: Client, acknowledged: Acknowledged, until: Instant) -> Vec<f64> {
    let (mut seen, mut latencies) = (0, Vec::new());
    while Instant::now() < until {
        let Some(count) = count(&client.next().await.json()) else { continue };
        let now = Instant::now();
        let known = acknowledged.lock().unwrap().clone();
        // One that is here before its writer knows of it took no time.
        let took = |change: usize| known.get(change).map_or(0.0, |at| now.duration_since(*at).as_secs_f64() * 1e3);
        latencies.extend((seen..count).map(took));
        seen = count;
    }
    latencies
}

fn count(frame: &Value) -> Option<usize> {
    frame["items"][0]["value"]["count"].as_u64().map(|count| count as usize)
}

struct Slow {
    stream: TcpStream,
    bytes: usize,
}

impl Slow {
    async fn connect(addr: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(RECEIVE_BUFFER as u32).unwrap();
        match shake_hands(socket.connect(addr).await.unwrap(), "feeds=texts").await {
            Arrival::On { stream, .. } => Self { stream, bytes: 0 },
            other => panic!("{other:?}"),
        }
    }

    /// Exactly one frame, and not a byte more.
    async fn frame(&mut self) -> Value {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).await.expect("it is not closed");
        assert_eq!(head[0], 0x81, "a text frame");
        let length = match head[1] {
            126 => usize::from(self.stream.read_u16().await.unwrap()),
            short => usize::from(short),
        };
        let mut json = vec![0; length];
        self.stream.read_exact(&mut json).await.unwrap();
        self.bytes += length + if length < 126 { 2 } else { 4 };
        serde_json::from_slice(&json).unwrap()
    }
}

fn percentile(values: &[f64], part: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * part) as usize]
}

async fn metric(replica: &Running, line: &str) -> f64 {
    let text = replica.metrics().await;
    text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' ')).unwrap().trim().parse().unwrap()
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn who_reads_one_frame_a_second_gets_the_newest_value_and_costs_the_others_nothing(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let pool = pool.connect_lazy_with(options.clone());
    let send_buffer = SEND_BUFFER.to_string();
    let small = [("SEND_BUFFER_BYTES", send_buffer.as_str()), ("UNSENT_BYTES", "4096")];
    // Two replicas tell the same changes at the same time; slow clients are on one of them. Whatever else this machine does happens to both.
    let (laden, free) =
        (Running::start("dashboard", &options, &small).await, Running::start("dashboard", &options, &small).await);
    let mut slow = Vec::new();
    for _ in 0..SLOW {
        slow.push(Slow::connect(laden.public).await);
    }
    let acknowledged = Acknowledged::default();
    let (began, half) = (Instant::now(), Instant::now() + SLOWLY / 2);
    let until = began + SLOWLY;
    let witness = async |replica: &Running| {
        let mut client = Client::connect(replica.public, "feeds=texts", &[]).await.unwrap();
        client.greeted().await;
        client
    };
    let (with, without) = (witness(&laden).await, witness(&free).await);
    let (with, without) =
        [with, without].map(|client| tokio::spawn(watch(client, Arc::clone(&acknowledged), until))).into();
    let writer = tokio::spawn(change(pool, Arc::clone(&acknowledged)));

    let mut reading = JoinSet::new();
    for mut client in slow {
        reading.spawn(async move {
            let mut every = interval(Duration::from_secs(1));
            while Instant::now() < until {
                every.tick().await;
                client.frame().await;
            }
            client
        });
    }
    sleep_until(half).await;
    let resident = laden.resident_kib();
    let slow = reading.join_all().await;
    let grown = laden.resident_kib().saturating_sub(resident);

    let (mut longest, mut most_held) = (Duration::ZERO, 0);
    for mut client in slow {
        let (read, newest, from) = (client.bytes, acknowledged.lock().unwrap().len(), Instant::now());
        let catching_up = async { while count(&client.frame().await).is_none_or(|count| count < newest) {} };
        timeout(LONG, catching_up).await.unwrap();
        longest = longest.max(from.elapsed());
        most_held = most_held.max(client.bytes - read);
    }
    writer.abort();
    let (with, without) = (with.await.unwrap(), without.await.unwrap());
    let p99 =
        |latencies: &[f64]| latencies.chunks_exact(ROUND).map(|round| percentile(round, 0.99)).collect::<Vec<f64>>();
    let ratios: Vec<f64> = p99(&with).iter().zip(p99(&without)).map(|(with, without)| with / without).collect();
    let ratio = percentile(&ratios, 0.5);
    println!(
        "{SLOW} slow clients: the newest value after {longest:?} of reading freely, {most_held} bytes in buffers, {grown} KiB more in the service; \
         the others: p50 {:.1} ms with and {:.1} ms without them, p99 {:.1} and {:.1} ms, ratio of p99 {ratio:.2} (median of {} rounds: {ratios:.2?})",
        percentile(&with, 0.5),
        percentile(&without, 0.5),
        percentile(&with, 0.99),
        percentile(&without, 0.99),
        ratios.len(),
    );
    assert_eq!(metric(&laden, "tidemark_stalled_total").await, 0.0);
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    // The kernel takes twice what it is told. What is older than this is with nobody.
    assert!(most_held <= 2 * (SEND_BUFFER + RECEIVE_BUFFER), "{most_held}");
    // What would have been queued for them, even at 20 frames a second: 900 KiB.
    assert!(grown < 450, "{grown} KiB");
    assert!(ratios.len() >= 5, "{} rounds: the machine was too slow for {CHANGES} changes a second", ratios.len());
    assert!(ratio <= 1.2, "{ratio:.2}: {ratios:.2?}");
}
