//! Requests to the Kubernetes API: where objects are, what is tried again, and how long is waited for something.

use std::time::Duration;

use kube::{
    Api, Client, Config, Resource,
    api::{ListParams, PatchParams},
    config::KubeConfigOptions,
    core::{ApiResource, Selector},
};
use serde::de::{DeserializeOwned, Error as _};
use tokio::time::{Instant, sleep, timeout};
use tower::retry::backoff::{Backoff, ExponentialBackoffMaker, MakeBackoff};

use super::{
    Error, Kind, Place,
    objects::{self, Pod, Workload, finished, resource, serves, wanted},
};

/// Who changes things, in the eyes of the API server.
const MANAGER: &str = "tidemark-drill";
/// Between two looks at something that is waited for. Each is two requests, which the system under test lacks meanwhile.
const LOOK: Duration = Duration::from_millis(500);
/// Longest time in which something comes back, or a budget lets a pod go: half of the time after which a Deployment says that it makes no progress.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// Longest time for connecting, and for an answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Longest wait between two attempts, as `kubectl drain` has it between two evictions.
const LONGEST: Duration = Duration::from_secs(5);

/// The API server, and the namespace of the drill.
#[derive(Clone)]
pub struct Kube {
    /// The API server.
    pub client: Client,
    namespace: String,
}

/// What was seen of an object's pods. Those that have ended for good are left out.
#[derive(Debug)]
pub struct Look {
    /// So many are wanted.
    pub wanted: usize,
    /// Whether a new template is kept back.
    pub paused: bool,
    /// So many are there, whatever their state.
    pub pods: Vec<Pod>,
}

impl Kube {
    /// As the user of the kubeconfig, or in a pod as its service account; sees that the API server answers.
    pub async fn connect(context: Option<&str>, namespace: Option<&str>) -> Result<Self, Error> {
        let mut config = if context.is_some() {
            let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
            Config::from_kubeconfig(&options).await.map_err(|error| Error::Config(error.to_string()))?
        } else {
            Config::infer().await.map_err(|error| Error::Config(error.to_string()))?
        };
        config.connect_timeout = Some(ANSWER);
        config.read_timeout = Some(ANSWER);
        config.reset_reader_on_write = true;
        // It would wait for minutes between two attempts; see `persist`.
        config.default_retry = false;
        let namespace = namespace.unwrap_or(&config.default_namespace).to_owned();
        let server = config.cluster_url.to_string();
        let client = Client::try_from(config).map_err(|error| Error::Config(error.to_string()))?;
        // Later requests are tried again for minutes; a wrong context is told at once.
        client.apiserver_version().await.map_err(|error| Error::request(format!("reach {server}"), error))?;
        Ok(Self::new(client, namespace))
    }

    /// With a client.
    pub fn new(client: Client, namespace: String) -> Self {
        Self { client, namespace }
    }

    /// Where an object is.
    pub fn namespace<'a>(&'a self, place: &'a Place) -> &'a str {
        place.namespace.as_deref().unwrap_or(&self.namespace)
    }

    /// Objects of a kind in a namespace.
    pub fn of<T>(&self, resource: &ApiResource, namespace: &str) -> Api<T>
    where
        T: Resource<DynamicType = ApiResource, Scope = kube::core::DynamicResourceScope>,
    {
        Api::namespaced_with(self.client.clone(), namespace, resource)
    }

    /// Pods of a namespace.
    pub fn pods(&self, namespace: &str) -> Api<Pod> {
        self.of(&resource(Kind::Pod), namespace)
    }

    /// Reads a Deployment, StatefulSet or DaemonSet.
    pub async fn workload(&self, place: &Place) -> kube::Result<Workload> {
        self.of(&resource(place.kind), self.namespace(place)).get(&place.name).await
    }

    /// Looks at the pods of an object. A Deployment finds its pods by their labels as well: nobody else's may have them.
    pub async fn look(&self, place: &Place) -> kube::Result<Look> {
        let (wanted, paused, params) = if place.kind == Kind::Pod {
            (1, false, ListParams::default().fields(&format!("metadata.name={}", place.name)))
        } else {
            let workload = self.workload(place).await?;
            let (wanted, paused) = (wanted(&workload), workload.spec.paused == Some(true));
            let selector = Selector::try_from(workload.spec.selector)
                .map_err(|error| kube::Error::SerdeError(serde_json::Error::custom(error)))?;
            (usize::try_from(wanted).unwrap_or(0), paused, ListParams::default().labels_from(&selector))
        };
        let pods = list(&self.pods(self.namespace(place)), &params).await?;
        Ok(Look { wanted, paused, pods: pods.into_iter().filter(|pod| !finished(pod)).collect() })
    }

    /// Waits until an object has the pods that it wants, all of them ready, nothing else is left of it, and none of those in `gone`. `replicas` is
    /// how many it has to want.
    pub async fn whole(&self, place: &Place, replicas: Option<usize>, gone: &[String]) -> Result<Instant, Error> {
        until(&place.to_string(), || async {
            let look = self.look(place).await?;
            let wants = replicas.is_none_or(|replicas| replicas == look.wanted);
            let old = look.pods.iter().filter(|pod| gone.iter().any(|uid| uid == objects::uid(pod))).count();
            Ok(match (wants, old) {
                (false, _) => Some(format!("it wants {} pods, not {}", look.wanted, replicas.unwrap_or_default())),
                (true, 0) if look.is_whole() => None,
                (true, _) => Some(format!("{look}, {old} of the old ones left")),
            })
        })
        .await
    }
}

impl Look {
    /// How many serve.
    pub fn serving(&self) -> usize {
        self.pods.iter().filter(|pod| serves(pod)).count()
    }

    /// Whether there are as many as wanted, all of them serve, and none is on its way.
    pub fn is_whole(&self) -> bool {
        self.serving() == self.wanted && self.pods.len() == self.wanted
    }
}

impl std::fmt::Display for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} pods wanted are there, {} of them ready", self.pods.len(), self.wanted, self.serving())
    }
}

/// For a change that is the drill's.
pub fn ours() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

/// All objects that match.
pub async fn list<T: Clone + DeserializeOwned + std::fmt::Debug>(
    api: &Api<T>,
    params: &ListParams,
) -> kube::Result<Vec<T>> {
    api.list(params).await.map(|list| list.items)
}

/// Waits until `look` says that nothing is missing. Gives the moment of the last look that still missed something: what was seen half a second too
/// late must not make a verdict milder.
pub async fn until<F>(what: &str, look: impl Fn() -> F) -> Result<Instant, Error>
where
    F: Future<Output = kube::Result<Option<String>>>,
{
    let began = Instant::now();
    let mut at = began;
    loop {
        let asked = Instant::now();
        let missing = match look().await {
            Ok(None) => return Ok(at),
            Ok(Some(missing)) => {
                at = asked;
                missing
            }
            Err(error) if passes(&error) => format!("the API server does not answer: {error}"),
            Err(error) => return Err(Error::request(format!("look at {what}"), error)),
        };
        if began.elapsed() >= PATIENCE {
            return Err(Error::Slow { what: what.to_owned(), after: PATIENCE, missing });
        }
        sleep(LOOK).await;
    }
}

/// Tries again as long as the reason may pass, with longer and longer waits: a budget does not let a pod go yet (429), or the API server is away.
pub async fn persist<T, F: Future<Output = kube::Result<T>>>(request: impl Fn() -> F) -> kube::Result<T> {
    let deadline = Instant::now() + PATIENCE;
    let mut backoff = ExponentialBackoffMaker::default().make_backoff();
    loop {
        match request().await {
            Err(error) if passes(&error) && Instant::now() < deadline => {
                // Its waits have no upper end of their own.
                let _ = timeout(LONGEST, backoff.next_backoff()).await;
            }
            done => return done,
        }
    }
}

/// Whether a failure may pass by itself.
fn passes(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code == 429 || status.code >= 500,
        kube::Error::Service(_) | kube::Error::HyperError(_) => true,
        _ => false,
    }
}
