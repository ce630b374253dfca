//! How many live connections a Board has: asked of its dashboards' admin ports, at most every 30 s, and never worth waiting for.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::{
    board::Board,
    names::{DASHBOARD, NAME},
    reconcile::LOOK_AGAIN,
};

/// The metric of the dashboards.
const METRIC: &str = "tidemark_connections";
/// A dashboard in the same cluster answers within milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);
/// No page of metrics is as long as this.
const LONGEST: usize = 1 << 20;
/// A little less than the time between two looks, so that each look asks.
const FRESH: Duration = LOOK_AGAIN.saturating_sub(Duration::from_secs(1));

/// What each Board's dashboards answered last.
#[derive(Debug)]
pub struct Connections {
    http: Client<HttpConnector, Empty<Bytes>>,
    port: u16,
    last: Mutex<HashMap<String, (Instant, Option<i64>)>>,
}

impl Default for Connections {
    fn default() -> Self {
        Self::at(9090)
    }
}

impl Connections {
    /// Asks at this port.
    pub fn at(port: u16) -> Self {
        let http = Client::builder(TokioExecutor::new()).build_http();
        Self { http, port, last: Mutex::default() }
    }

    /// The sum over all dashboards that answer; `None` if there are some and none answers.
    pub async fn of(&self, board: &Board, pods: &[Pod]) -> Option<i64> {
        let key = board.uid().unwrap_or_default();
        let asked = self.last.lock().await.get(&key).copied();
        if let Some((_, known)) = asked.filter(|(at, _)| at.elapsed() < FRESH) {
            return known;
        }
        let addresses: Vec<_> = pods.iter().filter_map(running_dashboard).collect();
        let answers: Vec<i64> = join_all(addresses.iter().map(|ip| self.ask(ip))).await.into_iter().flatten().collect();
        let sum = (addresses.is_empty() || !answers.is_empty()).then(|| answers.iter().sum());
        let mut last = self.last.lock().await;
        // Boards that are gone leave nothing behind.
        last.retain(|_, (at, _)| at.elapsed() < 2 * LOOK_AGAIN);
        last.insert(key, (Instant::now(), sum));
        sum
    }

    async fn ask(&self, ip: &str) -> Option<i64> {
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        let url = format!("http://{host}:{}/metrics", self.port).parse().ok()?;
        let answer = async {
            let body = self.http.get(url).await.ok()?.into_body();
            let body = Limited::new(body, LONGEST).collect().await.ok()?.to_bytes();
            gauge(std::str::from_utf8(&body).ok()?)
        };
        timeout(PATIENCE, answer).await.ok().flatten()
    }
}

fn running_dashboard(pod: &Pod) -> Option<&str> {
    let status = pod.status.as_ref()?;
    let dashboard = pod.labels().get(NAME).is_some_and(|name| name == DASHBOARD);
    (dashboard && status.phase.as_deref() == Some("Running")).then_some(status.pod_ip.as_deref()).flatten()
}

/// The metric's value, summed over its series.
fn gauge(metrics: &str) -> Option<i64> {
    let values = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(METRIC).filter(|rest| rest.starts_with([' ', '{']))?;
        rest.rsplit(' ').next()?.parse::<f64>().ok()
    });
    // A count of sockets: far below what a float cannot hold exactly.
    #[expect(clippy::cast_possible_truncation, reason = "a count of sockets")]
    values.reduce(|sum, value| sum + value).map(|sum| sum as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_read_out_of_the_metrics_page() {
        let page = "# HELP tidemark_connections Open\n# TYPE tidemark_connections gauge\ntidemark_connections 41\ntidemark_connections_total 7\n";
        assert_eq!(gauge(page), Some(41));
        assert_eq!(gauge("tidemark_connections{path=\"ws\"} 2\ntidemark_connections{path=\"sse\"} 3\n"), Some(5));
        assert_eq!(gauge("tidemark_moves_total 3\n"), None);
    }

    #[tokio::test]
    async fn a_dashboard_that_does_not_answer_is_no_number() {
        let pod = |name: &str| {
            let pod = serde_json::json!({
                "metadata": {"name": "dashboard-1", "labels": {NAME: name}},
                "status": {"phase": "Running", "podIP": "127.0.0.1"}
            });
            serde_json::from_value::<Pod>(pod).unwrap()
        };
        // Nobody listens on port 1.
        assert_eq!(Connections::at(1).of(&Board::new("harbor", Default::default()), &[pod(DASHBOARD)]).await, None);
        assert_eq!(Connections::at(1).of(&Board::new("harbor", Default::default()), &[pod("app")]).await, Some(0));
    }
}
