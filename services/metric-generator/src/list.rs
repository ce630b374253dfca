//! `GET /servers`: who is alive. `GET /metrics?limit=&serverId=`: samples, newest first.

use std::time::{Duration, SystemTime};

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use store::{Sample, Usage};

use crate::{error::Error, routes::Stored};

/// A quarter of an hour of one server, or one second of as many servers as there can be.
const MAX_LIMIT: u32 = 1_000;

/// A server without a sample for so long is gone. Long enough for a short absence of its generator or of the database.
const ALIVE: Duration = Duration::from_secs(15);

/// Strings, so that a wrong limit gets its own message.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    limit: Option<String>,
    server_id: Option<String>,
}

/// Ids of servers.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Servers {
    server_ids: Vec<String>,
}

/// Samples.
#[derive(Serialize)]
pub struct Metrics {
    metrics: Vec<Item>,
}

/// A sample as callers see it.
#[derive(Serialize)]
struct Item {
    id: String,
    cpu_usage: f32,
    memory_usage: f32,
    disk_usage: f32,
    timestamp: DateTime<Utc>,
}

impl From<&Sample> for Item {
    fn from(sample: &Sample) -> Self {
        let Sample { server, second, usage: Usage { cpu, memory, disk } } = sample;
        Self { id: server.to_string(), cpu_usage: *cpu, memory_usage: *memory, disk_usage: *disk, timestamp: *second }
    }
}

/// Answers which servers have a sample of the last 15 s, in natural order. The clock that is asked is the one that the samples are made by.
///
/// # Errors
/// [`Error::Unavailable`] while the database does not answer.
pub async fn servers(State(stored): State<Stored>) -> Result<Json<Servers>, Error> {
    let latest = stored.latest.get().ok_or(Error::Unavailable)?;
    let since = DateTime::<Utc>::from(SystemTime::now() - ALIVE);
    let alive = latest.all().iter().filter(|sample| sample.second > since);
    Ok(Json(Servers { server_ids: alive.map(|sample| sample.server.to_string()).collect() }))
}

/// Answers samples: with a limit of 1 the newest of each server, or of the one that is asked for; else the newest ones of one server or of all.
///
/// # Errors
/// [`Error`] if the query is wrong, the server unknown, or the database does not answer.
pub async fn metrics(
    State(stored): State<Stored>,
    query: Result<Query<Request>, QueryRejection>,
) -> Result<Json<Metrics>, Error> {
    let Query(Request { limit, server_id }) = query.map_err(|_| Error::QueryMalformed)?;
    let limit = limit.and_then(|text| runtime::parse_limit(&text, MAX_LIMIT)).ok_or(Error::LimitInvalid)?;
    let metrics: Vec<Item> = match (limit, server_id) {
        (1, server) => {
            let latest = stored.latest.get().ok_or(Error::Unavailable)?;
            match server {
                Some(server) => vec![latest.of(&server).ok_or(Error::ServerUnknown)?.into()],
                None => latest.all().iter().map(Item::from).collect(),
            }
        }
        (limit, server) => {
            let list = stored.samples.newest(server.as_deref(), limit).await?;
            if server.is_some() && list.is_empty() {
                return Err(Error::ServerUnknown);
            }
            list.iter().map(Item::from).collect()
        }
    };
    Ok(Json(Metrics { metrics }))
}
