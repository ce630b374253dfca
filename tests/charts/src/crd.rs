//! The custom resource's own schema, as strict as `kubectl apply` with its field validation is.

use serde_json::{Value, json};

/// The schema of `spec` in a CustomResourceDefinition, which here refuses unknown fields.
pub fn spec_schema(crd: &Value) -> Value {
    let mut schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone();
    close(&mut schema);
    schema
}

fn close(node: &mut Value) {
    if node.get("properties").is_some() && node.get("additionalProperties").is_none() {
        node["additionalProperties"] = json!(false);
    }
    match node {
        Value::Object(fields) => fields.values_mut().for_each(close),
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

/// What in a value is against a schema, with the path; empty when nothing is.
///
/// # Panics
/// When the schema is none.
pub fn violations(schema: &Value, value: &Value) -> Vec<String> {
    let validator = jsonschema::validator_for(schema).unwrap();
    validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// The default that a schema has for the value at a path such as `dashboard.replicas`.
pub fn default_at<'a>(schema: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(schema, |node, key| node["properties"].get(key))?.get("default")
}
