//! Boards that are wrong: refused with a sentence, or told by a condition, while everything else goes on and nothing is deleted.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::children::available;
use crate::{
    kubectl::{Kubectl, condition, items},
    report::Report,
};

/// How long the operator may take to tell what is wrong. A node tells of an image that it cannot fetch after some seconds.
const TOLD: Duration = Duration::from_secs(60);

/// How long a Board may take from nothing to available.
const AVAILABLE: Duration = Duration::from_secs(180);

/// What the trials need of the Board that is there.
#[derive(Debug, Clone)]
pub struct Trials {
    /// The namespace of the good Board; the trials make namespaces beside it.
    pub kubectl: Kubectl,
    /// The operator's namespace.
    pub operator: Kubectl,
    /// The image of Postgres that the cluster has.
    pub postgres_image: String,
    /// The manifest that users begin with.
    pub sample: PathBuf,
}

#[derive(Debug, Clone, Copy)]
enum Trial {
    Install,
    Image,
    Storage,
    Secret,
    Decode,
}

const TRIALS: [(Trial, &str); 5] = [
    (Trial::Install, "k8s/samples without Helm, the operator killed in the middle"),
    (Trial::Image, "an image that does not exist"),
    (Trial::Storage, "a storage class that does not exist"),
    (Trial::Secret, "a Secret that does not exist"),
    (Trial::Decode, "a Board that does not decode"),
];

impl Trials {
    /// Runs all of them; removes the namespaces that they make.
    pub async fn run(&self, report: &mut Report) {
        for (what, spec, words) in refused() {
            report.check(&format!("refused: {what}"), self.refused(spec, words)).await;
        }
        for (trial, what) in TRIALS {
            report.check(what, self.trial(trial)).await;
        }
        report.check("an immutable field changed", self.immutable()).await;
        report.check("a feed whose table comes later", super::feeds::run(&self.kubectl)).await;
    }

    /// Runs one of them in a namespace of its own.
    async fn trial(&self, trial: Trial) -> Result<String> {
        let namespace = format!("trial-{trial:?}").to_lowercase();
        let kubectl = self.kubectl.within(&namespace);
        kubectl.run(&format!("create namespace {namespace}")).await?;
        let outcome = match trial {
            Trial::Install => self.install(&kubectl).await,
            Trial::Image => self.image(&kubectl).await,
            Trial::Storage => self.storage(&kubectl).await,
            Trial::Secret => self.secret(&kubectl).await,
            Trial::Decode => self.undecodable(&kubectl).await,
        };
        kubectl.run(&format!("delete namespace {namespace} --wait=false")).await?;
        outcome
    }

    async fn refused(&self, spec: Value, words: &str) -> Result<String> {
        let Err(error) = self.kubectl.within("default").apply(&board("refused", spec)).await else {
            self.kubectl.within("default").run("delete board refused").await?;
            bail!("it was accepted");
        };
        let told = format!("{error:#}");
        ensure!(told.contains(words), "{told}");
        Ok(String::new())
    }

    /// The next operator finishes what the killed one began.
    async fn install(&self, trial: &Kubectl) -> Result<String> {
        trial.apply(&self.sample(&trial.namespace)?).await?;
        trial.until("statefulset postgres", TOLD, |set| !set.is_null()).await?;
        self.operator.run("delete pod --selector=app.kubernetes.io/name=operator --grace-period=0 --force").await?;
        ensure!(trial.get("deployment app").await?.is_null(), "the install was over before the operator was killed");
        let took = available(trial, &trial.namespace, AVAILABLE).await?;
        Ok(format!("available after {:.1} s", took.as_secs_f64()))
    }

    async fn image(&self, trial: &Kubectl) -> Result<String> {
        let image = "dashboard:does-not-exist";
        trial.apply(&board("image", self.spec(json!({ "dashboard": { "image": image } })))).await?;
        let told = told(trial, "image", "ImageUnavailable", image).await?;
        trial.until("deployment app", AVAILABLE, |app| app["status"]["readyReplicas"] == 2).await?;
        trial
            .args(&[
                "patch",
                "board/image",
                "--type=json",
                "--patch",
                r#"[{"op":"remove","path":"/spec/dashboard/image"}]"#,
            ])
            .await?;
        available(trial, "image", AVAILABLE).await?;
        Ok(told)
    }

    async fn storage(&self, trial: &Kubectl) -> Result<String> {
        let class = "does-not-exist";
        let spec =
            json!({ "database": { "postgres": { "image": self.postgres_image, "storage": { "className": class } } } });
        trial.apply(&board("storage", spec)).await?;
        let told = told(trial, "storage", "StorageUnavailable", class).await?;
        // The class appears: that is the fix that needs no new Board.
        let classes = trial.get("storageclasses").await?;
        let like = items(&classes).next().context("the cluster has no StorageClass")?;
        let made = json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": class },
            "provisioner": like["provisioner"], "reclaimPolicy": "Delete", "volumeBindingMode": like["volumeBindingMode"],
        });
        trial.apply(&made.to_string()).await?;
        let healed = available(trial, "storage", AVAILABLE).await;
        trial.run(&format!("delete storageclass {class}")).await?;
        healed?;
        Ok(told)
    }

    /// A database that is there already, and whose Secret comes late: the good Board's own, in a database beside it.
    async fn secret(&self, trial: &Kubectl) -> Result<String> {
        let name = "elsewhere";
        trial.apply(&board("secret", json!({ "database": { "external": { "secretName": name } } }))).await?;
        let told = told(trial, "secret", "SecretMissing", name).await?;
        self.kubectl.sql("CREATE DATABASE trial").await?;
        let url = self.kubectl.run("get secret postgres --output=go-template={{.data.url|base64decode}}").await?;
        let url = url.trim().replace("@postgres:", &format!("@postgres.{}.svc:", self.kubectl.namespace));
        let (server, _) = url.rsplit_once('/').context("the Secret's url has no database")?;
        trial.run(&format!("create secret generic {name} --from-literal=url={server}/trial")).await?;
        let healed = available(trial, "secret", AVAILABLE).await;
        trial.run("delete board secret").await?;
        trial.until("pods", AVAILABLE, |pods| items(pods).count() == 0).await?;
        self.kubectl.sql("DROP DATABASE trial WITH (FORCE)").await?;
        healed?;
        Ok(told)
    }

    /// The definition lets such a Board in only for the moment in which it is loosened; an operator that is older than the definition meets the same.
    async fn undecodable(&self, trial: &Kubectl) -> Result<String> {
        let definition = "customresourcedefinition/boards.tidemark.dev";
        let strict =
            trial.get(definition).await?["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
                .clone();
        let set = |schema: &Value| {
            json!([{ "op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec", "value": schema }]).to_string()
        };
        let loose = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        trial.args(&["patch", definition, "--type=json", "--patch", &set(&loose)]).await?;
        let odd = board("odd", json!({ "database": { "postgres": {} }, "app": { "replicas": "two" } }));
        // The API server takes a moment to serve the new definition.
        let mut applied = trial.apply(&odd).await;
        for _ in 0..50 {
            if applied.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            applied = trial.apply(&odd).await;
        }
        let told = match applied {
            Ok(_) => self.event(trial).await,
            Err(error) => Err(error),
        };
        // Other Boards go on: a child of the good one is put back meanwhile.
        let others = self.goes_on().await;
        let _ = trial.run("delete board odd").await;
        trial.args(&["patch", definition, "--type=json", "--patch", &set(&strict)]).await?;
        others?;
        told
    }

    async fn event(&self, trial: &Kubectl) -> Result<String> {
        let events = "events --field-selector=involvedObject.name=odd";
        trial.until(events, TOLD, |events| items(events).any(|event| event["type"] == "Warning")).await?;
        let events = trial.get(events).await?;
        let message = items(&events).filter_map(|event| event["message"].as_str()).next().unwrap_or_default();
        Ok(message.to_owned())
    }

    async fn goes_on(&self) -> Result<()> {
        self.kubectl.run("delete service app").await?;
        self.kubectl.until("service app", TOLD, |service| !service.is_null()).await?;
        Ok(())
    }

    /// A volume cannot change its size: told, without a loop, and nothing is deleted.
    async fn immutable(&self) -> Result<String> {
        let (kubectl, size) = (&self.kubectl, "/spec/database/postgres/storage/size");
        let before = kubectl.get("board tidemark").await?.pointer(size).context("the Board has no size")?.clone();
        let patch = |size: &Value| {
            json!({ "spec": { "database": { "postgres": { "storage": { "size": size } } } } }).to_string()
        };
        let volume = kubectl.get("persistentvolumeclaim data-postgres-0").await?["metadata"]["uid"].clone();
        let set = kubectl.get("statefulset postgres").await?["metadata"]["uid"].clone();
        kubectl.args(&["patch", "board/tidemark", "--type=merge", "--patch", &patch(&json!("2Gi"))]).await?;
        let told = told(kubectl, "tidemark", "ImmutableField", "2Gi").await;
        let quiet = super::idle::run(kubectl).await;
        kubectl.args(&["patch", "board/tidemark", "--type=merge", "--patch", &patch(&before)]).await?;
        let told = told?;
        quiet.context("the operator goes round in circles")?;
        available(kubectl, "tidemark", TOLD).await?;
        ensure!(
            kubectl.get("persistentvolumeclaim data-postgres-0").await?["metadata"]["uid"] == volume,
            "the volume is another one"
        );
        ensure!(kubectl.get("statefulset postgres").await?["metadata"]["uid"] == set, "the StatefulSet is another one");
        Ok(told)
    }

    /// The Board that users begin with, in this namespace and under its name, with the image of Postgres that this cluster has.
    fn sample(&self, namespace: &str) -> Result<String> {
        let postgres = format!("    postgres:\n      image: {}\n", self.postgres_image);
        Ok(std::fs::read_to_string(&self.sample)
            .with_context(|| self.sample.display().to_string())?
            .replace("name: tidemark\n", &format!("name: {namespace}\n"))
            .replace("namespace: tidemark\n", &format!("namespace: {namespace}\n"))
            .replace("host: localhost\n", "host: sample.example\n")
            .replace("    postgres:\n", &postgres))
    }

    /// A spec with the image of Postgres that this cluster has.
    fn spec(&self, mut spec: Value) -> Value {
        spec["database"] = json!({ "postgres": { "image": self.postgres_image } });
        spec
    }
}

/// What the API server refuses: what it is, the spec, and the words that the answer must have.
fn refused() -> [(&'static str, Value, &'static str); 9] {
    [
        ("no dashboards", json!({ "dashboard": { "replicas": 0 } }), "dashboard.replicas must be between 1 and 100"),
        ("500 dashboards", json!({ "dashboard": { "replicas": 500 } }), "dashboard.replicas must be between 1 and 100"),
        ("no apps", json!({ "app": { "replicas": 0 } }), "app.replicas must be between 1 and 100"),
        (
            "1001 servers",
            json!({ "metricGenerator": { "serverCount": 1001 } }),
            "metricGenerator.serverCount must be between 1 and 1000",
        ),
        ("two feeds of one name", feeds(&[("orders", "public.a"), ("orders", "public.b")]), "Duplicate value"),
        ("a feed that is there already", feeds(&[("visitors", "public.a")]), "must not be texts, visitors or servers"),
        ("a table without its schema", feeds(&[("orders", "orders")]), "a feed's table must be named with its schema"),
        (
            "two databases",
            json!({ "database": { "postgres": {}, "external": { "secretName": "elsewhere" } } }),
            "database must be exactly one of postgres and external",
        ),
        ("an illegal host", json!({ "host": "Not_A_Host" }), "host must be a DNS name"),
    ]
}

/// A spec with feeds of these names and tables.
fn feeds(feeds: &[(&str, &str)]) -> Value {
    let feeds: Vec<_> = feeds.iter().map(|(name, table)| json!({ "name": name, "table": table })).collect();
    json!({ "feeds": feeds })
}

fn board(name: &str, spec: Value) -> String {
    json!({ "apiVersion": "tidemark.dev/v1alpha1", "kind": "Board", "metadata": { "name": name }, "spec": spec })
        .to_string()
}

/// Waits for the condition `Degraded` with this reason, whose message names this; gives the message.
async fn told(kubectl: &Kubectl, board: &str, reason: &str, names: &str) -> Result<String> {
    let object = format!("board {board}");
    let message = |board: &Value| {
        let degraded = condition(board, "Degraded")?;
        let told = degraded["status"] == "True" && degraded["reason"] == reason;
        degraded["message"].as_str().filter(|message| told && message.contains(names)).map(str::to_owned)
    };
    kubectl.until(&object, TOLD, |board| message(board).is_some()).await?;
    message(&kubectl.get(&object).await?).context("the condition went away at once")
}
