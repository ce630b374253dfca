//! A Board for the tests. Its names differ from those of the product, so that a swapped one shows.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
};

use crate::{
    board::Board,
    names::DASHBOARD,
    reconcile::{dereference::Seen, validate},
};

/// The Board `harbor` in the namespace `quay`, with this spec.
pub fn harbor(spec: Value) -> Board {
    let metadata = json!({
        "name": "harbor", "namespace": "quay", "uid": "uid-of-harbor", "generation": 3, "creationTimestamp": "2026-11-21T08:00:00Z"
    });
    let board = json!({"apiVersion": "tidemark.dev/v1alpha1", "kind": "Board", "metadata": metadata, "spec": spec});
    serde_json::from_value(board).unwrap()
}

/// The same after the second step.
pub fn valid(spec: Value, seen: &Seen) -> validate::Valid {
    validate::validate(&harbor(spec), seen).unwrap()
}

/// Owner references of every child of `harbor` but the Secret.
pub fn owners() -> Value {
    json!([{
        "apiVersion": "tidemark.dev/v1alpha1", "kind": "Board", "name": "harbor", "uid": "uid-of-harbor", "controller": true
    }])
}

/// Labels of the pods of one service of `harbor`.
pub fn pod_labels(service: &str) -> Value {
    json!({
        "app.kubernetes.io/name": service,
        "app.kubernetes.io/instance": "harbor",
        "app.kubernetes.io/part-of": "tidemark",
        "app.kubernetes.io/managed-by": "tidemark-operator"
    })
}

/// Metadata of a child of `harbor`.
pub fn metadata(name: &str, service: &str) -> Value {
    let mut labels = pod_labels(service);
    labels["app.kubernetes.io/version"] = json!(env!("CARGO_PKG_VERSION"));
    json!({"name": name, "namespace": "quay", "labels": labels, "ownerReferences": owners()})
}

/// A pod of a dashboard of `harbor` that runs.
pub fn dashboard_pod(name: &str, ip: &str) -> Pod {
    let metadata = json!({"name": name, "namespace": "quay", "labels": pod_labels(DASHBOARD)});
    serde_json::from_value(json!({"metadata": metadata, "status": {"phase": "Running", "podIP": ip}})).unwrap()
}

/// The admin port of a dashboard: answers every request with a page of metrics.
pub struct FakeDashboard {
    /// The port, on 127.0.0.1.
    pub port: u16,
    page: Arc<Mutex<String>>,
    requests: Arc<AtomicUsize>,
}

impl FakeDashboard {
    /// Without connections and problems.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (page, requests) = (Arc::<Mutex<String>>::default(), Arc::<AtomicUsize>::default());
        let (answer, count) = (Arc::clone(&page), Arc::clone(&requests));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = BufReader::new(stream);
                let (answer, count) = (Arc::clone(&answer), Arc::clone(&count));
                tokio::spawn(async move {
                    let mut line = String::new();
                    while stream.read_line(&mut line).await.unwrap_or(0) > 0 {
                        // An empty line ends the request.
                        if line.trim_end().is_empty() {
                            count.fetch_add(1, Ordering::Relaxed);
                            let page = answer.lock().unwrap().clone();
                            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", page.len());
                            stream.write_all(format!("{head}{page}").as_bytes()).await.unwrap();
                        }
                        line.clear();
                    }
                });
            }
        });
        let dashboard = Self { port, page, requests };
        dashboard.serve(&[], 0);
        dashboard
    }

    /// From now on it reports these problems, as (feed, reason), and connections.
    pub fn serve(&self, problems: &[(&str, &str)], connections: u32) {
        let mut page = format!("# TYPE tidemark_connections gauge\ntidemark_connections {connections}\n");
        for (feed, reason) in problems {
            page.push_str(&format!("tidemark_feed_problem{{feed=\"{feed}\",reason=\"{reason}\"}} 1\n"));
        }
        *self.page.lock().unwrap() = page;
    }

    /// The requests so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}
