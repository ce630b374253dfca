//! Ten thousand clients at once: those of a replica that has died come to one that lives.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;

use std::time::Duration;

use common::{
    Client, LONG, Replica,
    crowd::{files, join},
    process::Running,
    queries::Queries,
    save, settings, url,
};
use serde_json::json;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use test_support::wait_until;
use tokio::{net::TcpSocket, task::JoinSet, time::Instant};
use uuid::Uuid;

const CLIENTS: usize = 10_000;
/// Those of the other storm; both ends of each are in this process.
const AHEAD: usize = 3_000;
/// Both tests may run at a time.
const FILES: usize = CLIENTS + 2 * AHEAD + 1_000;
/// Registrations are written at most so often.
const BATCH: Duration = Duration::from_millis(50);
const POLL: Duration = Duration::from_secs(2);
const BEAT: Duration = Duration::from_secs(5);
const FOLD: Duration = Duration::from_secs(10);

/// Visits that another replica has counted, which is no longer there and not swept yet.
async fn left_behind(pool: &PgPool) -> Vec<Uuid> {
    let visits: Vec<Uuid> = (0..CLIENTS).map(|_| Uuid::new_v4()).collect();
    let instance =
        "INSERT INTO tidemark.instances (id, name, lease_until) VALUES ($1, 'dead', now() + interval '1 hour')";
    let rows = "INSERT INTO tidemark.connections (visit, instance, n) SELECT UNNEST($2::uuid[]), $1, 1";
    let dead = Uuid::new_v4();
    sqlx::query(instance).bind(dead).execute(pool).await.unwrap();
    sqlx::query("INSERT INTO tidemark.visits (id) SELECT UNNEST($1::uuid[])")
        .bind(&visits)
        .execute(pool)
        .await
        .unwrap();
    sqlx::query(rows).bind(dead).bind(&visits).execute(pool).await.unwrap();
    visits
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_reconnect_storm_of_ten_thousand_asks_the_database_for_nothing_but_their_registration(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    files(FILES);
    let pool = pool.connect_lazy_with(options.clone());
    let visits = left_behind(&pool).await;
    let (queries, way) = Queries::between(&options);
    let replica = Running::start("dashboard", &way, &[("REPLICA_NAME", "survivor")]).await;
    let set = Client::connect(replica.public, "feeds=texts,visitors", &[]).await.unwrap().greeted().await.1;
    let cursor = set["cursor"].as_str().unwrap().to_owned();
    let owned = "SELECT count(*) FROM tidemark.connections AS c JOIN tidemark.instances AS i ON i.id = c.instance WHERE i.name = 'survivor'";
    let registered = async || sqlx::query_scalar::<_, i64>(owned).fetch_one(&pool).await.unwrap();

    // The last thing that a start asks for.
    wait_until(LONG, "a notification is requested", async || queries.count("request_notification") > 0).await;
    queries.reset();
    let began = Instant::now();
    let mut crowd = JoinSet::new();
    for visit in visits {
        let (addr, query) =
            (replica.public, format!("feeds=texts,visitors&visit={visit}&n=2&since={}", cursor.replace('~', "%7E")));
        crowd.spawn(async move { (join(addr, &query).await, began.elapsed()) });
    }
    let arrived = crowd.join_all().await;
    let took = arrived.iter().map(|(_, at)| *at).max().unwrap();
    wait_until(LONG, "all are registered", async || registered().await == CLIENTS as i64).await;
    let (elapsed, queries) = (began.elapsed(), queries.snapshot());
    let all = queries.all();

    let handshakes: usize = arrived.iter().map(|((.., tries), _)| tries).sum();
    let (registrations, reads, beats) = (
        queries.count("AS new (visit, n)"),
        queries.count("tidemark.read_feeds"),
        queries.count("UPDATE tidemark.instances SET lease_until"),
    );
    println!(
        "{CLIENTS} clients were on after {took:?} and registered after {elapsed:?}, with {handshakes} handshakes; \
         {registrations} registrations, {reads} reads, {beats} beats"
    );
    for ((_, hello, first, _), _) in &arrived {
        assert_eq!((&hello["resumed"], &first["type"]), (&json!(true), &json!("beat")), "{first}");
    }
    // On a machine that brings them faster than they are admitted some are sent away, but hardly anybody twice.
    assert!(handshakes < 2 * CLIENTS, "{handshakes} handshakes");
    // What it asks with nobody there: the poll, the lease and the fold. One more of each falls on the edge.
    let in_time = |every: Duration| (elapsed.as_secs_f64() / every.as_secs_f64()) as usize + 2;
    assert!(registrations <= in_time(BATCH), "{registrations} in {elapsed:?}: {all:#?}");
    assert!(reads <= in_time(POLL), "{reads} in {elapsed:?}: {all:#?}");
    assert!(beats <= in_time(BEAT), "{beats} in {elapsed:?}: {all:#?}");
    let folds = queries.count("tidemark.fold_feeds");
    assert!(folds <= in_time(FOLD), "{folds} in {elapsed:?}: {all:#?}");
    assert_eq!(queries.count_of_work(), registrations + reads + beats + folds, "nothing else: {all:#?}");
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_storm_of_clients_that_know_more_than_the_replica_shares_one_reading(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    files(FILES);
    let pool = pool.connect_lazy_with(options.clone());
    let up_to_date = Replica::start(settings(url(&options))).await;
    // No bell and no poll: this replica knows only what it read at its start.
    let mut behind = settings(url(&options));
    behind.reader.intervals.poll = LONG * 100;
    behind.reader.intervals.poll_without_doorbell = LONG * 100;
    behind.reader.listen = store::DatabaseUrl::parse("postgres://nobody@127.0.0.1:1/nothing").unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let behind = Replica::start_unready(behind, socket.listen(AHEAD as u32).unwrap()).await;
    wait_until(LONG, "the replica is ready", async || behind.ready().await.0).await;
    save(&pool, 5).await;
    let set = up_to_date.connect("feeds=texts").await.until_count(5).await;
    let (cursor, version) = (set["cursor"].as_str().unwrap().to_owned(), set["items"][0]["version"].as_u64().unwrap());
    let reads = async || behind.metric("tidemark_reads_total{path=\"asked\"}").await;

    let storm = async |cursor: &str| {
        let mut crowd = JoinSet::new();
        for _ in 0..AHEAD {
            let (addr, query) = (behind.addr, format!("feeds=texts&since={cursor}"));
            crowd.spawn(async move { join(addr, &query).await });
        }
        crowd.join_all().await
    };
    let began = Instant::now();
    let arrived = storm(&cursor).await;
    println!("{AHEAD} clients that were ahead were on after {:?}", began.elapsed());
    assert!(arrived.iter().all(|(_, hello, first, _)| hello["resumed"] == true && first["type"] == "beat"));
    // A second one for those who asked while the first was under way, and could not know what it would bring.
    let shared = reads().await;
    assert!((1.0..=2.0).contains(&shared), "{shared} readings");
    drop(arrived);

    // Cursors of a past that the database has lost stay ahead, whatever is read: then readings are 10 ms apart.
    let began = Instant::now();
    let arrived = storm(&cursor.replace(&format!("texts.{version}"), "texts.999999")).await;
    let asked = reads().await - shared;
    println!("{AHEAD} clients that stayed ahead were on after {:?}, with {asked} readings", began.elapsed());
    assert!(arrived.iter().all(|(_, _, first, _)| first["reset"] == true && first["items"][0]["value"]["count"] == 5));
    assert!(asked <= began.elapsed().as_secs_f64() * 100.0 + 2.0, "{asked} readings");
    up_to_date.stop().await;
    behind.stop().await;
}
