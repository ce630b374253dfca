//! What a Board's dashboards report on their admin ports: open live connections, and feeds that are
//! not ok. Requested at most every 30 s; a dashboard that does not answer holds nothing up.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

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
    exposition::samples,
    feed_problem::FeedProblem,
    names::{DASHBOARD, NAME},
    reconcile::LOOK_AGAIN,
};

/// The dashboards' gauge of open connections.
const CONNECTIONS: &str = "tidemark_connections";
/// The port of the dashboards on which they have their metrics.
const PORT: u16 = 9090;
/// A dashboard in the same cluster answers within milliseconds.
const TIMEOUT: Duration = Duration::from_secs(1);
/// No page of metrics is as long as this.
const LONGEST: usize = 1 << 20;
/// How long a report is used. A little less than the interval between two reconciles, so that each
/// of them has a new one.
const FRESH: Duration = LOOK_AGAIN.saturating_sub(Duration::from_secs(1));

/// What the dashboards of one Board report together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Open live connections of all dashboards that answered; `None` if there are some and none
    /// answered.
    pub connections: Option<i64>,
    /// The feeds that are not ok for at least one of them; `None` if none answered.
    pub feed_problems: Option<BTreeSet<FeedProblem>>,
}

/// The page of one dashboard.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    connections: i64,
    feed_problems: Vec<FeedProblem>,
}

/// Requests reports, and keeps the last one of each Board.
#[derive(Debug)]
pub struct Dashboards {
    http: Client<HttpConnector, Empty<Bytes>>,
    port: u16,
    fresh: Duration,
    last: Mutex<HashMap<String, (Instant, Report)>>,
}

impl Default for Dashboards {
    fn default() -> Self {
        Self::new(PORT, FRESH)
    }
}

impl Dashboards {
    /// Dashboards whose admin port is this one. A report is used for as long as `fresh`.
    pub fn new(port: u16, fresh: Duration) -> Self {
        let http = Client::builder(TokioExecutor::new()).build_http();
        Self { http, port, fresh, last: Mutex::default() }
    }

    /// The report of a Board's dashboards, one request for each of those that run.
    pub async fn report(&self, board: &Board, pods: &[Pod]) -> Report {
        let key = board.uid().unwrap_or_default();
        let last = self.last.lock().await.get(&key).cloned();
        if let Some((_, known)) = last.filter(|(at, _)| at.elapsed() < self.fresh) {
            return known;
        }
        let addresses: Vec<_> = pods.iter().filter_map(running_dashboard).collect();
        let answers: Vec<_> =
            join_all(addresses.iter().map(|ip| self.request(ip))).await.into_iter().flatten().collect();
        let report = Report {
            connections: (addresses.is_empty() || !answers.is_empty())
                .then(|| answers.iter().map(|answer| answer.connections).sum()),
            feed_problems: (!answers.is_empty())
                .then(|| answers.into_iter().flat_map(|answer| answer.feed_problems).collect()),
        };
        let mut last = self.last.lock().await;
        // Boards that are gone leave nothing behind.
        last.retain(|_, (at, _)| at.elapsed() < 2 * LOOK_AGAIN);
        last.insert(key, (Instant::now(), report.clone()));
        report
    }

    async fn request(&self, ip: &str) -> Option<Answer> {
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        let url = format!("http://{host}:{}/metrics", self.port).parse().ok()?;
        let answer = async {
            let body = self.http.get(url).await.ok()?.into_body();
            let body = Limited::new(body, LONGEST).collect().await.ok()?.to_bytes();
            read(std::str::from_utf8(&body).ok()?)
        };
        timeout(TIMEOUT, answer).await.ok().flatten()
    }
}

fn running_dashboard(pod: &Pod) -> Option<&str> {
    let status = pod.status.as_ref()?;
    let dashboard = pod.labels().get(NAME).is_some_and(|name| name == DASHBOARD);
    (dashboard && status.phase.as_deref() == Some("Running")).then_some(status.pod_ip.as_deref()).flatten()
}

/// A page of metrics; `None` if it is not a dashboard's, because that always has its connections.
fn read(page: &str) -> Option<Answer> {
    let connections = samples(page).filter(|sample| sample.metric == CONNECTIONS).map(|sample| sample.value);
    // Far below what a float cannot hold exactly.
    #[expect(clippy::cast_possible_truncation, reason = "a count of sockets")]
    let connections = connections.reduce(|sum, value| sum + value)? as i64;
    let feed_problems = samples(page).filter_map(|sample| FeedProblem::from_sample(&sample)).collect();
    Some(Answer { connections, feed_problems })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::{FakeDashboard, dashboard_pod, harbor};

    fn problem(feed: &str, reason: &str) -> FeedProblem {
        FeedProblem { feed: feed.into(), reason: reason.into() }
    }

    #[test]
    fn connections_and_problems_are_read_out_of_the_metrics_page() {
        let page = "# HELP tidemark_connections Open\n# TYPE tidemark_connections gauge\ntidemark_connections 41\ntidemark_connections_total 7\n";
        assert_eq!(read(page), Some(Answer { connections: 41, feed_problems: Vec::new() }));
        let page = "tidemark_connections{path=\"ws\"} 2\ntidemark_connections{path=\"sse\"} 3 1763719200000\n\
                    tidemark_feed_problem{reason=\"swapped\",feed=\"orders\"} 1\n";
        assert_eq!(read(page), Some(Answer { connections: 5, feed_problems: vec![problem("orders", "swapped")] }));
        assert_eq!(read("tidemark_moves_total 3\n"), None);
    }

    #[tokio::test]
    async fn a_dashboard_that_does_not_answer_reports_nothing() {
        // Nobody listens on port 1.
        let report = async |pods: &[Pod]| Dashboards::new(1, FRESH).report(&harbor(json!({})), pods).await;
        assert_eq!(report(&[dashboard_pod("dashboard-1", "127.0.0.1")]).await, Report::default());
        let mut app = dashboard_pod("app-1", "127.0.0.1");
        app.labels_mut().insert(NAME.into(), "app".into());
        assert_eq!(report(&[app]).await, Report { connections: Some(0), feed_problems: None });
    }

    #[tokio::test]
    async fn one_request_per_dashboard_and_interval_gives_connections_and_all_problems() {
        let dashboard = FakeDashboard::start().await;
        dashboard.serve(&[("orders", "swapped"), ("open", "gone")], 3);
        let (board, pods) = (harbor(json!({})), [dashboard_pod("dashboard-1", "127.0.0.1")]);
        let dashboards = Dashboards::new(dashboard.port, FRESH);
        let first = dashboards.report(&board, &pods).await;
        let problems = BTreeSet::from([problem("open", "gone"), problem("orders", "swapped")]);
        assert_eq!(first, Report { connections: Some(3), feed_problems: Some(problems) });
        dashboard.serve(&[], 4);
        assert_eq!(dashboards.report(&board, &pods).await, first);
        assert_eq!(dashboard.requests(), 1);

        // One of two is away: the other one's report counts.
        let dashboards = Dashboards::new(dashboard.port, Duration::ZERO);
        let pods = [pods[0].clone(), dashboard_pod("dashboard-2", "127.0.0.2")];
        let report = Report { connections: Some(4), feed_problems: Some(BTreeSet::new()) };
        assert_eq!(dashboards.report(&board, &pods).await, report);
    }
}
