//! Loads the page and the list over HTTP/3, begins to follow the events, and says what came: proof that it is there, without a browser.

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, ensure};
use clap::Parser;
use e2e::http3::Http3;
use http::{Uri, header::ALT_SVC};

/// Longest time for an event: both come at once.
const SOON: Duration = Duration::from_secs(5);

/// Loads a Board's page, list and first events over HTTP/3.
#[derive(Debug, Parser)]
struct Args {
    /// Where users reach the Board.
    #[arg(default_value = "https://localhost")]
    url: Uri,
    /// The authority of its certificate.
    #[arg(long, default_value = ".tidemark/tls/ca.crt")]
    ca: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Args { url, ca } = Args::parse();
    let http3 = Http3::trusting(&ca)?;
    for path in ["/", "/all?limit=1"] {
        let answer = http3.get(&url, path).await?;
        let alt_svc = answer.headers.get(ALT_SVC).map_or("none", |value| value.to_str().unwrap_or("unreadable"));
        println!("{path}: {} over HTTP/3, {} bytes, Alt-Svc {alt_svc}", answer.status, answer.body.len());
        ensure!(answer.status.is_success(), "{path} was answered with {}", answer.status);
    }
    let mut events = http3.follow(&url, "/events?feeds=texts").await?;
    let (hello, first) = (events.next(SOON).await?, events.next(SOON).await?);
    println!("/events?feeds=texts: {}, {} over HTTP/3", hello.kind, first.kind);
    ensure!(hello.kind == "hello" && first.kind == "set", "values did not come as events");
    Ok(())
}
