//! The way in: HTTP/3, the redirect, and that nothing else leads to the services.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use http::{StatusCode, Uri, header::ALT_SVC};
use protocol::{Frame, Set, events::Event};
use serde_json::Value;
use tidemark::{
    client::Trust,
    save::{Outcome, Retry, Saver},
};
use tokio::process::Command;
use uuid::Uuid;

use crate::{
    http3::Http3,
    kubectl::{Kubectl, items},
    report::Report,
};

/// A beat comes after 5 s at the latest, and a save is pushed within milliseconds.
const NEXT: Duration = Duration::from_secs(10);

/// Looks at all of it.
///
/// # Errors
/// When the authority's file cannot be used.
pub async fn run(kubectl: &Kubectl, base: &Uri, plain: &Uri, authority: &Path, report: &mut Report) -> Result<()> {
    let http3 = Http3::trusting(authority)?;
    report.check("the page over HTTP/3", page(&http3, base)).await;
    report.check("/all over HTTP/3", list(&http3, base)).await;
    report
        .check("/events over HTTP/3: hello, set, and a newer set after a save", events(&http3, base, authority))
        .await;
    report.check("Alt-Svc names HTTP/3 and the port of this machine", alternative(base, authority)).await;
    report.check("http is redirected to https", redirected(plain, base)).await;
    report.check("the services are reached through the ingress alone", internal(kubectl)).await;
    Ok(())
}

async fn page(http3: &Http3, base: &Uri) -> Result<String> {
    let answer = http3.get(base, "/").await?;
    ensure!(answer.status == StatusCode::OK, "{}", answer.status);
    let html = String::from_utf8_lossy(&answer.body);
    ensure!(html.contains("<title>"), "no page: {html}");
    Ok(format!("{} bytes", answer.body.len()))
}

async fn list(http3: &Http3, base: &Uri) -> Result<String> {
    let answer = http3.get(base, "/all?limit=5").await?;
    ensure!(answer.status == StatusCode::OK, "{}", answer.status);
    let list: Value = serde_json::from_slice(&answer.body)?;
    Ok(format!("{} texts", list["texts"].as_array().context("no texts")?.len()))
}

async fn events(http3: &Http3, base: &Uri, authority: &Path) -> Result<String> {
    let saver = Saver::new(&base.to_string(), &Trust::with_ca(authority)?)?;
    let mut events = http3.follow(base, "/events?feeds=texts").await?;
    let hello = events.next(NEXT).await?;
    let Some(Frame::Hello(hello)) = frame(&hello) else { bail!("no hello: {hello:?}") };
    let first = events.next(NEXT).await?;
    let version = texts(&first).with_context(|| format!("no set: {first:?}"))?;
    let began = Instant::now();
    let saved = saver.save(Uuid::new_v4(), "from the check of the ingress", Retry::default()).await;
    ensure!(saved.last.outcome == Outcome::Stored, "{}", saved.last.outcome);
    loop {
        let event = events.next(NEXT).await?;
        if let Some(newer) = texts(&event) {
            ensure!(newer > version, "version {newer} after {version}");
            return Ok(format!(
                "served by {}, newer {} ms after the save began",
                hello.replica,
                began.elapsed().as_millis()
            ));
        }
        ensure!(began.elapsed() < NEXT, "no set after the save");
    }
}

/// The frame of an event that is named as it is.
fn frame(event: &Event) -> Option<Frame> {
    let frame = Frame::parse(event.data.as_bytes())?;
    let named = match &frame {
        Frame::Hello(_) => "hello",
        Frame::Set(set) if set.cursor == event.id => "set",
        Frame::Beat(_) => "beat",
        Frame::Move(_) => "move",
        Frame::Set(_) | Frame::Unknown => return None,
    };
    (event.kind == named).then_some(frame)
}

/// The version of the number of texts, if the event tells it.
fn texts(event: &Event) -> Option<u64> {
    let Some(Frame::Set(Set { items, .. })) = frame(event) else { return None };
    items.iter().find(|item| item.feed == "texts").map(|item| item.version)
}

/// `Alt-Svc` comes over TCP: it tells browsers that there is more.
async fn alternative(base: &Uri, authority: &Path) -> Result<String> {
    let head = curl(&["--cacert", &authority.display().to_string(), &base.to_string()]).await?;
    let alt_svc = header(&head, ALT_SVC.as_str()).with_context(|| format!("no Alt-Svc in {head}"))?;
    let port = base.port_u16().unwrap_or(443);
    ensure!(alt_svc.contains(&format!("h3=\":{port}\"")), "{alt_svc}");
    Ok(alt_svc.to_owned())
}

async fn redirected(plain: &Uri, base: &Uri) -> Result<String> {
    let head = curl(&[&plain.to_string()]).await?;
    let location = header(&head, "location").with_context(|| format!("no redirect: {head}"))?;
    let target: Uri = location.parse()?;
    ensure!(target.scheme_str() == Some("https") && target.host() == base.host(), "{location}");
    ensure!(target.port_u16().unwrap_or(443) == base.port_u16().unwrap_or(443), "{location}");
    Ok(location.to_owned())
}

async fn internal(kubectl: &Kubectl) -> Result<String> {
    let services = kubectl.get("services").await?;
    let open: Vec<_> = items(&services)
        .filter(|service| service["spec"]["type"] != "ClusterIP")
        .map(|service| &service["metadata"]["name"])
        .collect();
    ensure!(open.is_empty(), "{open:?} can be reached from outside");
    Ok(format!("{} Services, all ClusterIP", items(&services).count()))
}

/// The head of an answer, redirects not followed.
async fn curl(args: &[&str]) -> Result<String> {
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--max-time", "10", "--output", "/dev/null", "--dump-header", "-"])
        .args(args);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8(output.stdout)?)
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_counts_if_its_name_and_its_id_are_those_of_its_frame() {
        let data =
            r#"{"type":"set","cursor":"c","items":[{"feed":"texts","key":"","version":42,"value":{"count":7}}]}"#;
        let event = |kind: &str, id: &str| Event { kind: kind.into(), id: id.into(), data: data.into() };
        assert_eq!(texts(&event("set", "c")), Some(42));
        assert_eq!(texts(&event("beat", "c")), None);
        assert_eq!(texts(&event("set", "")), None);
        let beat = Event { kind: "beat".into(), id: "c".into(), data: r#"{"type":"beat"}"#.into() };
        assert!(
            matches!(frame(&beat), Some(Frame::Beat(_))),
            "the id of a frame without a cursor is that of the last one"
        );
    }
}
