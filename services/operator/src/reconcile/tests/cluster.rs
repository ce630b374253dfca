//! An API server that keeps objects in memory and remembers what it was asked: enough of one to see what a reconcile does.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Method, Request, Response};
use kube::{Client, client::Body, core::DeserializeGuard, runtime::controller::Action};
use prometheus::Registry;
use serde_json::{Value, json};

use crate::{
    board::Board,
    context::Context,
    dashboards::Dashboards,
    metrics::Metrics,
    reconcile::{Error, reconcile},
};

/// Where the Boards of the namespace are.
pub const BOARDS: &str = "/apis/tidemark.dev/v1alpha1/namespaces/quay/boards";

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    writes: Vec<String>,
    refusals: BTreeMap<String, (u16, Value)>,
}

/// The cluster, and the operator that works on it.
pub struct Cluster {
    state: Arc<Mutex<State>>,
    context: Arc<Context>,
}

impl Cluster {
    /// With one Board.
    pub fn with(board: &Board) -> Self {
        Self::with_dashboards(board, Dashboards::default())
    }

    /// With one Board, whose dashboards are read through `dashboards`.
    pub fn with_dashboards(board: &Board, dashboards: Dashboards) -> Self {
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let state = Arc::<Mutex<State>>::default();
        let answering = Arc::clone(&state);
        tokio::spawn(async move {
            while let Some((request, respond)) = handle.next_request().await {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                let (code, answer) = answering.lock().unwrap().answer(&parts.method, &parts.uri, body);
                let answer = Response::builder().status(code).body(Body::from(answer.to_string().into_bytes()));
                respond.send_response(answer.unwrap());
            }
        });
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let context = Context { dashboards, ..Context::new(Client::new(service, "default"), metrics) };
        let cluster = Self { state, context: Arc::new(context) };
        cluster.put(&board_path(board), serde_json::to_value(board).unwrap());
        cluster
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        self.context.client.clone()
    }

    /// Puts an object there.
    pub fn put(&self, path: &str, object: Value) {
        self.state.lock().unwrap().objects.insert(path.to_owned(), object);
    }

    /// The object, or null.
    pub fn get(&self, path: &str) -> Value {
        self.state.lock().unwrap().objects.get(path).cloned().unwrap_or_default()
    }

    /// Changes an object that is there.
    pub fn edit(&self, path: &str, change: impl FnOnce(&mut Value)) {
        change(self.state.lock().unwrap().objects.get_mut(path).unwrap());
    }

    /// Takes an object away.
    pub fn remove(&self, path: &str) {
        self.state.lock().unwrap().objects.remove(path).unwrap();
    }

    /// From now on a write there is refused.
    pub fn refuse(&self, path: &str, code: u16, reason: &str, message: &str) {
        let status = json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message});
        self.state.lock().unwrap().refusals.insert(path.to_owned(), (code, status));
    }

    /// From now on it is not refused any more.
    pub fn allow(&self, path: &str) {
        self.state.lock().unwrap().refusals.remove(path).unwrap();
    }

    /// The paths of objects in a collection.
    pub fn list(&self, collection: &str) -> Vec<String> {
        self.state.lock().unwrap().members(collection).map(|(path, _)| path.clone()).collect()
    }

    /// Reconciles the Board at that path, and says what was written.
    pub async fn reconcile(&self, board: &str) -> (Result<Action, Error>, Vec<String>) {
        let board: DeserializeGuard<Board> = serde_json::from_value(self.get(board)).unwrap();
        let result = reconcile(Arc::new(board), Arc::clone(&self.context));
        // A request that nobody answers would be waited for without end.
        let result = tokio::time::timeout(Duration::from_secs(10), result).await.unwrap();
        (result, std::mem::take(&mut self.state.lock().unwrap().writes))
    }
}

/// Where a Board is.
pub fn board_path(board: &Board) -> String {
    format!("{BOARDS}/{}", board.metadata.name.as_deref().unwrap())
}

impl State {
    fn members<'a>(&'a self, collection: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
        let start = format!("{collection}/");
        self.objects.iter().filter(move |(path, _)| path.strip_prefix(&start).is_some_and(|name| !name.contains('/')))
    }

    fn answer(&mut self, method: &Method, uri: &http::Uri, body: Value) -> (u16, Value) {
        let path = uri.path().to_owned();
        if method != Method::GET {
            self.writes
                .push(format!("{method} {}", path.rsplit_once("/quay/").map_or(path.as_str(), |(_, rest)| rest)));
            if let Some(refusal) = self.refusals.get(&path) {
                return refusal.clone();
            }
        }
        let failure = |code: u16, reason| {
            (code, json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason}))
        };
        match *method {
            Method::GET if self.objects.contains_key(&path) => (200, self.objects[&path].clone()),
            // Names of collections are plurals of lower-case letters right after the namespace.
            Method::GET if path.rsplit_once("/quay/").is_some_and(|(_, rest)| !rest.contains('/')) => {
                let items: Vec<_> =
                    self.members(&path).map(|(_, object)| object).filter(|object| selected(object, uri)).collect();
                (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}))
            }
            Method::GET => failure(404, "NotFound"),
            Method::POST => {
                let name = body["metadata"]["name"].as_str().unwrap_or_default();
                let path = format!("{path}/{name}");
                if self.objects.contains_key(&path) {
                    return failure(409, "AlreadyExists");
                }
                let mut made = body;
                // As the API server does with a Secret.
                if let Some(text) = made.as_object_mut().and_then(|made| made.remove("stringData")) {
                    let data = text.as_object().unwrap().keys().map(|key| (key.clone(), json!("cHc=")));
                    made["data"] = Value::Object(data.collect());
                }
                self.objects.insert(path, made.clone());
                (201, made)
            }
            Method::PATCH => {
                let (path, body) = path.strip_suffix("/status").map_or((path.clone(), body.clone()), |board| {
                    (board.to_owned(), json!({"status": body["status"]}))
                });
                let object = self.objects.entry(path).or_insert_with(|| json!({"metadata": {"uid": "uid-of-child"}}));
                merge(object, body);
                (200, object.clone())
            }
            Method::DELETE => (200, self.objects.remove(&path).unwrap_or_default()),
            _ => failure(405, "MethodNotAllowed"),
        }
    }
}

/// Whether the object has the labels that the query asks for.
fn selected(object: &Value, uri: &http::Uri) -> bool {
    let query = uri.query().unwrap_or_default().replace("%2F", "/").replace("%3D", "=").replace("%2C", ",");
    let wanted = query.split('&').find_map(|pair| pair.strip_prefix("labelSelector="));
    wanted.is_none_or(|wanted| {
        wanted
            .split(',')
            .filter_map(|pair| pair.split_once('='))
            .all(|(key, value)| object["metadata"]["labels"][key] == value)
    })
}

/// Maps are merged, everything else is replaced: what server-side apply does with the fields of one manager, as far as these tests see it.
fn merge(object: &mut Value, change: Value) {
    match (object, change) {
        (Value::Object(object), Value::Object(change)) => {
            for (key, change) in change {
                merge(object.entry(key).or_insert(Value::Null), change);
            }
        }
        (object, change) => *object = change,
    }
}
