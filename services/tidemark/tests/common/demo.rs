//! The demo, as a user starts it. Needs the programs of the services beside `tidemark`: `make services`.

use std::{fs, net::SocketAddr, path::Path};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use tidemark::{
    client::Trust,
    process::is_running,
    save::{Outcome, Retry, Saver},
};
use uuid::Uuid;

use super::{Place, Run, names};

/// A place with a page in it, as small as a page can be.
pub fn place() -> Place {
    let programs = Path::new(env!("CARGO_BIN_EXE_tidemark")).parent().unwrap();
    for program in ["app", "dashboard", "metric-generator"] {
        assert!(programs.join(program).is_file(), "build it first: cargo build -p {program}");
    }
    let place = Place::new();
    fs::create_dir(place.work.join("page")).unwrap();
    fs::write(place.work.join("page/index.html"), "<!doctype html><title>a small page</title>").unwrap();
    place
}

pub struct Demo {
    pub run: Run,
    pub place: Place,
    pub address: SocketAddr,
}

impl Demo {
    pub async fn start(flags: &[&str]) -> Self {
        let place = place();
        let run = place.start(&[&["demo", "--port", "0", "--page-dir", "page"], flags].concat());
        run.out.line("Ctrl-C stops everything").await;
        let line = run.out.line("Tidemark runs at").await;
        let port = line.split(['/', ':', ' ']).find_map(|part| part.parse().ok()).unwrap();
        Self { run, place, address: ([127, 0, 0, 1], port).into() }
    }

    pub fn entries(&self) -> Vec<Value> {
        serde_json::from_slice(&fs::read(self.place.work.join(".tidemark/demo.json")).unwrap()).unwrap()
    }

    pub fn names(&self) -> Vec<String> {
        self.entries().iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
    }

    pub fn pid(&self, name: &str) -> i32 {
        let entries = self.entries();
        let entry = entries.iter().find(|entry| entry["name"] == name).unwrap();
        entry["pid"].as_i64().unwrap().try_into().unwrap()
    }

    /// All processes but the front's.
    pub fn children(&self) -> Vec<i32> {
        self.names().iter().filter(|name| *name != "front").map(|name| self.pid(name)).collect()
    }

    pub fn kill(&self, name: &str, signal: Signal) {
        kill(Pid::from_raw(self.pid(name)), signal).unwrap();
    }

    /// Stores a text as a client does: a busy app answers 503, and then the same id is sent again.
    pub async fn save(&self, text: &str) {
        let saver = Saver::new(&format!("http://{}", self.address), &Trust::system()).unwrap();
        let saved = saver.save(Uuid::new_v4(), text, Retry::default()).await;
        assert_eq!(saved.last.outcome, Outcome::Stored, "{text}: {:?}", saved.failures);
    }

    /// The one text that a query gives.
    pub async fn sql(&self, query: &'static str) -> String {
        let entries = self.entries();
        let url = entries.iter().find(|entry| entry["service"] == "postgres").unwrap()["url"].as_str().unwrap();
        let mut connection = PgConnection::connect(url).await.unwrap();
        sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap()
    }

    pub async fn stop(mut self, signal: Signal) {
        let children = self.children();
        self.run.signal(signal);
        assert_eq!(self.run.end().await, Some(0), "{}", self.run.err.text());
        assert!(!children.iter().any(|pid| is_running(*pid)), "no process is left");
        assert_eq!(names(&self.place.temporary), [""; 0]);
        assert!(!self.place.work.join(".tidemark").exists());
        assert_eq!(self.run.err.text(), "");
    }
}
