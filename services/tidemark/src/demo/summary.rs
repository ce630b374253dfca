//! What the demo says when everything is ready.

use std::{fmt::Write, net::SocketAddr, time::Duration};

use super::roster::Entry;

/// The address to open. A browser treats `localhost` as a secure place, which an address is not everywhere.
pub(super) fn front_url(address: SocketAddr) -> String {
    if address.ip().is_loopback() && address.is_ipv4() {
        format!("http://localhost:{}", address.port())
    } else {
        format!("http://{address}")
    }
}

/// Who runs, and how to take one away.
pub(super) fn text(url: &str, entries: &[Entry], took: Duration) -> String {
    let mut text = format!("\nTidemark runs at {url} (ready after {:.1} s)\n\n", took.as_secs_f32());
    let _ = writeln!(text, "  {:<20}{:<9}{:<25}admin", "name", "pid", "address");
    for Entry { name, pid, url, admin, .. } in entries.iter().filter(|entry| entry.service != "front") {
        let _ = match admin {
            Some(admin) => writeln!(text, "  {name:<20}{pid:<9}{url:<25}{admin}"),
            None => writeln!(text, "  {name:<20}{pid:<9}{url}"),
        };
    }
    let find = |service: &str| entries.iter().find(|entry| entry.service == service);
    let roll = find("front").map_or_else(String::new, |Entry { pid, .. }| {
        format!("A rolling update of all dashboards: kill -USR1 {pid}.\n")
    });
    if let Some(Entry { name, pid, .. }) = find("dashboard") {
        let _ = write!(
            text,
            "\nOpen the page twice, save a text, and take away who serves it:\n  \
             kill {pid:<12}{name} leaves gently and moves its pages elsewhere first\n  \
             kill -9 {pid:<9}{name} dies at once; its pages are live again within a second\n\
             A fresh replica starts 3 s later. {roll}The same in a terminal: tidemark watch {url}\n\
             .tidemark/demo.json always names who runs. Ctrl-C stops everything."
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_every_replica_and_the_commands_that_kill_one() {
        let entry = |service: &str, pid| Entry {
            service: service.into(),
            name: format!("{service}-1"),
            pid,
            url: "http://127.0.0.1:4001".into(),
            admin: Some("http://127.0.0.1:4002".into()),
        };
        let entries =
            [entry("app", 11), entry("dashboard", 12), Entry::database("postgres", 13, "postgres://x".into())];
        let text = text("http://localhost:3000", &entries, Duration::from_millis(1_240));
        for part in ["http://localhost:3000 (ready after 1.2 s)", "app-1", "kill 12 ", "kill -9 12 ", "postgres://x"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn the_address_is_one_that_a_browser_can_open() {
        assert_eq!(front_url("127.0.0.1:3000".parse().unwrap()), "http://localhost:3000");
        assert_eq!(front_url("192.0.2.1:80".parse().unwrap()), "http://192.0.2.1:80");
    }
}
