//! The cluster as users reach it: `kubectl`.

use std::{
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::{io::AsyncWriteExt, process::Command, time::sleep};

/// Between two looks at something that is waited for. A look is a process of its own and costs a tenth of a second of a core, which the system
/// under test lacks meanwhile.
const LOOK: Duration = Duration::from_millis(500);

/// Longest time that a single command may take.
const COMMAND: Duration = Duration::from_secs(240);

/// One namespace of the cluster.
#[derive(Debug, Clone)]
pub struct Kubectl {
    context: String,
    /// The namespace.
    pub namespace: String,
}

impl Kubectl {
    /// The namespace of the cluster that `kubectl` knows under this context.
    pub fn new(context: &str, namespace: &str) -> Self {
        Self { context: context.to_owned(), namespace: namespace.to_owned() }
    }

    /// Another namespace of the same cluster.
    pub fn within(&self, namespace: &str) -> Self {
        Self::new(&self.context, namespace)
    }

    /// Runs `kubectl` with these words, separated by blanks; gives what it printed.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub async fn run(&self, words: &str) -> Result<String> {
        self.args(&words.split_whitespace().collect::<Vec<_>>()).await
    }

    /// The same for arguments that have blanks.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn args(&self, args: &[&str]) -> Result<String> {
        let output = self.output(args, None).await?;
        ensure!(
            output.status.success(),
            "kubectl {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Applies a manifest.
    ///
    /// # Errors
    /// With the API server's words.
    pub async fn apply(&self, manifest: &str) -> Result<String> {
        self.input(&["apply", "-f", "-"], manifest).await
    }

    /// Runs `kubectl` with something to read.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub async fn input(&self, args: &[&str], input: &str) -> Result<String> {
        let output = self.output(args, Some(input)).await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Asks the Board's own Postgres; gives the rows without a header.
    ///
    /// # Errors
    /// With the words of Postgres.
    pub async fn sql(&self, statement: &str) -> Result<String> {
        let psql = r#"PGPASSWORD="$POSTGRES_PASSWORD" psql -h 127.0.0.1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" -v ON_ERROR_STOP=1 -tA"#;
        self.input(&["exec", "-i", "postgres-0", "--", "sh", "-c", psql], statement).await
    }

    /// An object, or a list of them, as JSON; `Null` if it is not there.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub async fn get(&self, words: &str) -> Result<Value> {
        let text = self.run(&format!("get --ignore-not-found --output=json {words}")).await?;
        if text.trim().is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&text)?) }
    }

    /// The names of the objects of a list.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn names(&self, words: &str) -> Result<Vec<String>> {
        let list = self.get(words).await?;
        let names = items(&list).filter_map(|item| item["metadata"]["name"].as_str());
        Ok(names.map(str::to_owned).collect())
    }

    /// Waits until the condition holds for what is read; gives how long that took.
    ///
    /// # Errors
    /// When it does not hold in time, with what was seen last.
    pub async fn until(
        &self,
        words: &str,
        within: Duration,
        mut holds: impl FnMut(&Value) -> bool,
    ) -> Result<Duration> {
        let began = Instant::now();
        loop {
            let seen = self.get(words).await;
            if let Ok(value) = &seen
                && holds(value)
            {
                return Ok(began.elapsed());
            }
            if began.elapsed() > within {
                let mut told = format!("{:#}", seen.map(|value| value["status"].clone())?);
                told.truncate(2_000);
                bail!("{words}: not within {} s; the last status was {told}", within.as_secs());
            }
            sleep(LOOK).await;
        }
    }

    async fn output(&self, args: &[&str], input: Option<&str>) -> Result<Output> {
        let mut command = Command::new("kubectl");
        command.args(["--context", &self.context, "--namespace", &self.namespace]).args(args).kill_on_drop(true);
        run(command, input).await.with_context(|| format!("kubectl {}", args.join(" ")))
    }
}

/// The objects of a list.
pub fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

/// The condition of this type, if the object has one.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// Runs a command to its end, within [`COMMAND`].
async fn run(mut command: Command, input: Option<&str>) -> Result<Output> {
    command
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(text.as_bytes()).await?;
    }
    Ok(tokio::time::timeout(COMMAND, child.wait_with_output()).await.context("no end in time")??)
}
