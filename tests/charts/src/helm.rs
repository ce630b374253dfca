//! Helm as a program: what it renders, and what it refuses.

use std::{
    env,
    io::Write,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use crate::{Chart, parse};

/// Where the tests install: neither the product's release name nor its namespace, so that a name in a template cannot go unseen.
const RELEASE: &str = "harbor";
const NAMESPACE: &str = "quay";

/// One object that a template rendered.
#[derive(Debug)]
pub struct Object {
    /// The template's path inside the chart.
    pub template: String,
    /// The object itself.
    pub value: Value,
}

/// Everything that `helm template` rendered.
#[derive(Debug)]
pub struct Rendered(pub Vec<Object>);

impl Rendered {
    /// The only object of this kind.
    ///
    /// # Panics
    /// When there is none, or more than one.
    pub fn only(&self, kind: &str) -> &Value {
        let found: Vec<_> = self.0.iter().filter(|object| object.value["kind"] == kind).collect();
        let [object] = found[..] else { panic!("{} objects of kind {kind}", found.len()) };
        &object.value
    }

    /// `template kind/name` of every object, sorted.
    pub fn contents(&self) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let line = |Object { template, value }: &Object| {
            format!("{template} {}/{}", text(&value["kind"]), text(&value["metadata"]["name"]))
        };
        let mut lines: Vec<_> = self.0.iter().map(line).collect();
        lines.sort();
        lines
    }
}

impl Chart {
    /// The objects that the chart makes of these values, for the release `harbor` in the namespace `quay`.
    ///
    /// # Panics
    /// When Helm refuses.
    pub fn render(self, values: &Value) -> Rendered {
        let output = self.helm(&["template", RELEASE], values);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Rendered(String::from_utf8(output.stdout).unwrap().split("---\n").filter_map(object).collect())
    }

    /// What Helm says when it refuses these values.
    ///
    /// # Panics
    /// When it does not refuse them.
    pub fn refusal(self, values: &Value) -> String {
        let output = self.helm(&["template", RELEASE], values);
        assert!(!output.status.success(), "{values} was rendered");
        String::from_utf8(output.stderr).unwrap()
    }

    /// What Helm says when the cluster has this version of Kubernetes: its output, or why it refuses.
    ///
    /// # Errors
    /// When it refuses.
    pub fn on_kubernetes(self, version: &str) -> Result<String, String> {
        let output = self.helm(&["template", RELEASE, "--kube-version", version], &Value::Null);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// The notes of a dry installation.
    ///
    /// # Panics
    /// When it fails.
    pub fn notes(self, values: &Value) -> String {
        let output = self.helm(&["install", RELEASE, "--dry-run=client", "--output", "json"], values);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let release: Value = serde_json::from_slice(&output.stdout).unwrap();
        release["info"]["notes"].as_str().unwrap().to_owned()
    }

    /// What a strict `helm lint` complains of; empty when it is content.
    pub fn complaints(self) -> String {
        let output = self.helm(&["lint", "--strict"], &Value::Null);
        if output.status.success() { String::new() } else { String::from_utf8_lossy(&output.stdout).into_owned() }
    }

    /// Runs `helm COMMAND CHART` with the values on its standard input. `HELM` names another program.
    fn helm(self, command: &[&str], values: &Value) -> Output {
        let program = env::var("HELM").unwrap_or_else(|_| "helm".to_owned());
        let mut child = Command::new(&program)
            .args(command)
            .arg(self.folder())
            .args(["--namespace", NAMESPACE, "--values", "-"])
            // Whatever cluster this machine knows has no part in it.
            .env("KUBECONFIG", self.folder().join("no-cluster"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}; the variable HELM names another one"));
        // `null`, no values at all, is written as the empty object.
        let input = if values.is_null() { "{}".to_owned() } else { values.to_string() };
        // A Helm that ends before it reads closes the pipe; then its own message says why.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }
}

/// A document of Helm's output: a comment with the template's path, and the object.
fn object(document: &str) -> Option<Object> {
    let (source, yaml) = document.trim_start().split_once('\n')?;
    let (_, template) = source.strip_prefix("# Source: ")?.split_once('/')?;
    Some(Object { template: template.to_owned(), value: parse(yaml) })
}
