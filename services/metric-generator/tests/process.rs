//! The program: what it says about its environment, and this machine as its one server.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;

use std::process::Output;

use common::{LONG, json, metrics, program, start};
use serde_json::json;
use sqlx::PgPool;
use test_support::{command, wait_until};
use tokio::time::timeout;

#[tokio::test]
async fn a_wrong_or_missing_variable_ends_the_process_with_2_and_is_named() {
    let good = ("DATABASE_URL", "postgres://user:s3cret@127.0.0.1:1/db");
    for (variable, value, reason) in [
        ("DATABASE_URL", "mysql://user:s3cret@host/db", "postgres://"),
        ("SERVER_COUNT", "0", "1..=1000"),
        ("SERVER_COUNT", "1001", "1..=1000"),
        ("SERVER_COUNT", "abc", "invalid digit"),
        ("SERVER_COUNT", "-1", "SERVER_COUNT"),
        ("SERVER_COUNT", "", "SERVER_COUNT"),
        ("SEED", "-1", "invalid digit"),
        ("SOURCE", "cloud", "generated, host"),
        ("METRICS_RETENTION", "59m", "from 1h to 7days"),
        ("METRICS_RETENTION", "8days", "from 1h to 7days"),
        ("METRICS_RETENTION", "24", "24h"),
        ("PORT", "70000", "65535"),
        ("LOG_FORMAT", "xml", "json"),
    ] {
        let running = command(program(), &[good, (variable, value)]).output();
        let Output { status, stdout, stderr } = timeout(LONG, running).await.unwrap().unwrap();
        let said = String::from_utf8([stdout, stderr].concat()).unwrap();
        assert_eq!(status.code(), Some(2), "{variable}={value}: {said}");
        assert!(said.contains(variable) && said.contains(reason), "{variable}={value}: {said}");
        assert!(!said.contains("s3cret"), "{said}");
    }
    let without = timeout(LONG, command(program(), &[]).output()).await.unwrap().unwrap();
    assert_eq!(without.status.code(), Some(2));
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_host_is_one_server_under_its_own_name_with_its_real_load(pool: PgPool) {
    // The count is for servers that are made up.
    let generator = start(&pool, &[("SOURCE", "host"), ("SERVER_COUNT", "5")]).await;
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned();
    assert_eq!(json(&generator.get("/servers").await), json!({ "serverIds": [name] }));
    let list = format!("/metrics?limit=3&serverId={name}");
    wait_until(LONG, "three seconds are stored", async || metrics(&generator.get(&list).await).len() == 3).await;

    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let bytes = |field: &str| -> f64 {
        let line = meminfo.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let used = 100.0 - 100.0 * bytes("MemAvailable:") / bytes("MemTotal:");
    for sample in metrics(&generator.get(&list).await) {
        let percent = |usage: &str| sample[usage].as_f64().unwrap();
        assert!((0.0..=100.0).contains(&percent("cpu_usage")), "{sample}");
        assert!((percent("memory_usage") - used).abs() < 20.0, "{sample}: {used} % of the memory are used");
        assert!((0.0..=100.0).contains(&percent("disk_usage")) && percent("disk_usage") > 0.0, "{sample}");
    }
}
