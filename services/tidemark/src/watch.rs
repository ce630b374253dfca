//! `tidemark watch`: feeds in a terminal, one line per change.

use std::{
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use chrono::{DateTime, Local, SecondsFormat, Utc};
use protocol::{
    Database, Transport,
    client::{Effect, Machine, Status},
};
use runtime::{Signals, Tasks};
use serde::Serialize;
use serde_json::Value;

use crate::client::{Client, Next, Step, Target, TargetError, Trust, TrustError};

/// How long closing may take at the end.
const STOP: Duration = Duration::from_secs(1);

/// Flags of `tidemark watch`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address of the board: http or https.
    #[arg(default_value = "http://localhost:3000")]
    url: String,
    /// What to watch: feeds, separated by commas; `feed:key` is one key of a feed.
    #[arg(long, default_value = "texts")]
    feeds: String,
    /// PEM file with certificate authorities to trust besides the system's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// One JSON object per line.
    #[arg(long)]
    json: bool,
}

/// Why it ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address or the list of feeds.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The file with certificate authorities.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Closed with 1008.
    #[error("the server refused: {0}")]
    Refused(String),
    /// Nowhere to print to.
    #[error("failed to write")]
    Write(#[source] io::Error),
}

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase", rename_all_fields = "camelCase")]
enum Line {
    /// A value changed.
    Item { replica: String, feed: String, key: String, version: u64, value: Value, age_ms: u64 },
    /// It went away.
    Gone { replica: String, feed: String, key: String },
    /// Another replica serves.
    Handover { from: String, to: String, ms: u64, planned: bool },
    /// The connection.
    Status {
        status: &'static str,
        replica: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// Only if it is not the usual one.
        #[serde(skip_serializing_if = "Option::is_none")]
        transport: Option<&'static str>,
    },
    /// A connection could not be opened.
    Failure { reason: String },
    /// Whether the replica can read the database.
    Database { state: Database },
}

/// Prints until the first signal, the reader of our output goes away, or the server refuses.
///
/// # Errors
/// [`Error`].
pub async fn run(args: Args, signals: &Signals) -> Result<(), Error> {
    let Args { url, feeds, ca, json } = args;
    let target = Target::parse(&url, &feeds)?.with_trust(Trust::load(ca.as_deref())?);
    let tasks = Tasks::default();
    let mut client = Client::new(target, tasks.tracker.clone());
    let (mut seen, mut outcome) = (Seen::default(), Ok(()));
    client
        .run(&signals.stop, |step| {
            let lines = if step.machine.status() == Status::Idle { Vec::new() } else { seen.news(step) };
            if let Err(error) = print(&lines, json, Utc::now()) {
                outcome = Err(Error::Write(error));
            } else if step.machine.status() == Status::Refused {
                outcome = Err(Error::Refused(step.machine.reason().unwrap_or_default().to_owned()));
            }
            if outcome.is_ok() { Next::Continue } else { Next::Stop }
        })
        .await;
    drop(client);
    tasks.stop(STOP).await;
    match outcome {
        // `tidemark watch | head -1` has all it wanted.
        Err(Error::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

/// What was told already.
#[derive(Debug, Default)]
struct Seen {
    status: Option<(Status, Option<Transport>)>,
    database: Database,
    failure: Option<String>,
}

impl Seen {
    fn news(&mut self, step: Step<'_>) -> Vec<Line> {
        let Step { machine, effects, failure, now, cause: _ } = step;
        let mut lines = Vec::new();
        let (status, transport) = (machine.status(), machine.transport());
        let changed = self.status.replace((status, transport)) != Some((status, transport));
        // The end of a connection that was live is told by the change. Of attempts the reason is news, and only once; of those beside a
        // connection that serves it is none.
        if let (Some(reason), false) = (failure, changed || status == Status::Live)
            && self.failure.as_deref() != Some(reason)
        {
            self.failure = Some(reason.to_owned());
            lines.push(Line::Failure { reason: reason.to_owned() });
        }
        if changed {
            self.failure = None;
            let (replica, reason) = (machine.replica().map(str::to_owned), machine.reason().map(str::to_owned));
            let transport = transport.filter(|transport| *transport != Transport::WebSocket).map(Transport::as_str);
            lines.push(Line::Status { status: status.as_str(), replica, reason, transport });
        }
        for effect in effects {
            match effect {
                Effect::Items { keys } => lines.extend(keys.iter().map(|name| item(machine, name, now))),
                Effect::Handover { from, to, ms, planned } => {
                    lines.push(Line::Handover { from: from.clone(), to: to.clone(), ms: *ms, planned: *planned });
                }
                Effect::Open { .. } | Effect::Close { .. } => {}
            }
        }
        let database = machine.values.database;
        if std::mem::replace(&mut self.database, database) != database {
            lines.push(Line::Database { state: database });
        }
        lines
    }
}

fn item(machine: &Machine, name: &str, now: u64) -> Line {
    let (feed, key) = name.split_once(':').unwrap_or((name, ""));
    let (feed, key, replica) = (feed.to_owned(), key.to_owned(), machine.replica().unwrap_or_default().to_owned());
    let Some(known) = machine.values.items.get(name) else { return Line::Gone { replica, feed, key } };
    let known_at = machine.values.known_at.get(&feed).copied().unwrap_or_default();
    let age_ms = now.saturating_sub_signed(known_at);
    Line::Item { replica, feed, key, version: known.version, value: known.value.clone(), age_ms }
}

fn print(lines: &[Line], json: bool, now: DateTime<Utc>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in lines {
        if json {
            writeln!(out, "{}", as_json(line, now))?;
        } else {
            writeln!(out, "{}  {}", now.with_timezone(&Local).format("%H:%M:%S%.3f"), as_text(line))?;
        }
    }
    out.flush()
}

fn as_json(line: &Line, now: DateTime<Utc>) -> String {
    #[derive(Serialize)]
    struct Stamped<'a> {
        time: String,
        #[serde(flatten)]
        line: &'a Line,
    }
    let stamped = Stamped { time: now.to_rfc3339_opts(SecondsFormat::Millis, true), line };
    serde_json::to_string(&stamped).unwrap_or_default()
}

fn as_text(line: &Line) -> String {
    match line {
        Line::Item { replica, feed, key, version, value, age_ms } => {
            format!("{replica}  {}  {}  version {version}  {age_ms} ms old", name(feed, key), short(value))
        }
        Line::Gone { replica, feed, key } => format!("{replica}  {}  is gone", name(feed, key)),
        Line::Handover { from, to, ms, planned: true } => format!("{from} -> {to}  moved in {ms} ms"),
        Line::Handover { from, to, ms, planned: false } => format!("{from} -> {to}  live again after {ms} ms"),
        Line::Status { status, replica, reason, transport } => match (*status, replica, reason) {
            ("live", Some(replica), _) if transport.is_some() => format!("{replica}  live over SSE"),
            ("live", Some(replica), _) => format!("{replica}  live"),
            ("moving", Some(replica), _) => format!("{replica}  asks to move"),
            ("reconnecting", Some(replica), _) => format!("{replica}  lost, reconnecting"),
            (status, _, Some(reason)) => format!("{status}: {reason}"),
            (status, ..) => status.to_owned(),
        },
        Line::Failure { reason } => format!("no connection: {reason}"),
        Line::Database { state: Database::Down } => "the database is down: values grow older".to_owned(),
        Line::Database { state: Database::Up } => "the database is up again".to_owned(),
    }
}

fn name(feed: &str, key: &str) -> String {
    if key.is_empty() { feed.to_owned() } else { format!("{feed}:{key}") }
}

/// A value of one field is that field.
fn short(value: &Value) -> String {
    match value.as_object() {
        Some(fields) if fields.len() == 1 => fields.values().map(Value::to_string).collect(),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use protocol::{Frame, Hello, Item, Set, client::Event};
    use serde_json::json;

    use super::*;
    use crate::client::Cause;

    fn hello() -> Frame {
        Frame::Hello(Hello {
            protocol: protocol::PROTOCOL.into(),
            replica: "dashboard-1".into(),
            version: "0.1.0".into(),
            store: "s".into(),
            timeline: 1,
            beat_ms: 5_000,
            resumed: false,
        })
    }

    fn set(count: u64) -> Frame {
        let item = Item { feed: "texts".into(), key: String::new(), version: 42, value: json!({ "count": count }) };
        Frame::Set(Set {
            cursor: "c".into(),
            age_ms: [("texts".to_owned(), 7)].into(),
            items: vec![item],
            ..Set::default()
        })
    }

    #[test]
    fn each_change_is_one_line() {
        let (mut machine, mut seen) = (Machine::default(), Seen::default());
        let frame = |frame| Event::Frame { conn: 1, frame: Some(frame) };
        let lost = Event::Closed { conn: 1, code: 1006, reason: String::new() };
        let mut told = Vec::new();
        for (now, event) in [(0, Event::Start), (5, frame(hello())), (6, frame(set(7))), (100, lost)] {
            let effects = machine.step(now, event, 0.5);
            told.extend(seen.news(Step {
                machine: &machine,
                effects: &effects,
                cause: Cause::Time,
                failure: None,
                now,
            }));
        }
        let text: Vec<_> = told.iter().map(as_text).collect();
        let expected = [
            "connecting",
            "dashboard-1  live",
            "dashboard-1  texts  7  version 42  7 ms old",
            "dashboard-1  lost, reconnecting",
        ];
        assert_eq!(text, expected);
        let expected = r#"{"time":"1970-01-01T00:00:00.000Z","type":"item","replica":"dashboard-1","feed":"texts","key":"","version":42,"value":{"count":7},"ageMs":7}"#;
        assert_eq!(as_json(&told[2], DateTime::UNIX_EPOCH), expected);
    }
}
