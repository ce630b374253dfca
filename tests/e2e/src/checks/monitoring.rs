//! Every query of the Grafana dashboard, asked of the real Prometheus.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{kubectl::Kubectl, report::Report};

/// Where Prometheus answers, through the API server.
const PROMETHEUS: &str = "/api/v1/namespaces/monitoring/services/prometheus:9090/proxy/api/v1/query?query=";

/// How long a query may take to have data: some scrapes, and what a rate needs.
const DATA: Duration = Duration::from_secs(60);

/// Asks them all.
///
/// # Errors
/// When the dashboard cannot be read.
pub async fn run(kubectl: &Kubectl, dashboard: &Path, report: &mut Report) -> Result<()> {
    let text = fs::read_to_string(dashboard).with_context(|| dashboard.display().to_string())?;
    let queries = queries(&serde_json::from_str(&text)?);
    ensure!(!queries.is_empty(), "the dashboard asks nothing");
    for (panel, query) in queries {
        report.check(&format!("Grafana, {panel}: {query}"), answered(kubectl, &query)).await;
    }
    Ok(())
}

/// (title of the panel, query) of each query, with the dashboard's variables filled in.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Vec<&Value> = dashboard["panels"].as_array().into_iter().flatten().collect();
    while let Some(panel) = open.pop() {
        open.extend(panel["panels"].as_array().into_iter().flatten());
        let title = panel["title"].as_str().unwrap_or_default();
        for query in panel["targets"].as_array().into_iter().flatten().filter_map(|target| target["expr"].as_str()) {
            found.push((title.to_owned(), query.replace("$__rate_interval", "1m").replace("$namespace", "tidemark")));
        }
    }
    found.reverse();
    found
}

async fn answered(kubectl: &Kubectl, query: &str) -> Result<String> {
    let path = format!("{PROMETHEUS}{}", encoded(query));
    let began = Instant::now();
    loop {
        let answer: Value = serde_json::from_str(&kubectl.args(&["get", "--raw", &path]).await?)?;
        let series = answer["data"]["result"].as_array().map_or(0, Vec::len);
        if series > 0 {
            return Ok(format!("{series} series"));
        }
        if began.elapsed() > DATA {
            bail!("no data: {answer}");
        }
        sleep(Duration::from_secs(1)).await;
    }
}

fn encoded(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte.into()),
            _ => drop(write!(out, "%{byte:02X}")),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn queries_are_found_in_rows_too_with_their_variables_filled_in() {
        let panel = |title: &str, expr: &str| json!({ "title": title, "targets": [{ "expr": expr }] });
        let dashboard = json!({ "panels": [panel("a", "up{namespace=\"$namespace\"}"), { "panels": [panel("b", "rate(x[$__rate_interval])")] }] });
        let expected = [("b", "rate(x[1m])"), ("a", "up{namespace=\"tidemark\"}")];
        let mut found = queries(&dashboard);
        found.sort_by(|a, b| b.cmp(a));
        assert_eq!(found, expected.map(|(panel, query)| (panel.to_owned(), query.to_owned())));
    }
}
