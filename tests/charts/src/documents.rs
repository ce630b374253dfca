//! What a chart says about its values: the comments of `values.yaml`, the schema, the table of the README.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::Chart;

/// The paths of all values that are no groups of others, such as `image.tag`, with their defaults.
pub fn leaves(values: &Value) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    collect(values, "", &mut found);
    found
}

fn collect(value: &Value, path: &str, found: &mut BTreeMap<String, Value>) {
    match value.as_object() {
        Some(group) if !group.is_empty() => {
            for (key, value) in group {
                collect(value, &format!("{path}{}{key}", if path.is_empty() { "" } else { "." }), found);
            }
        }
        _ => {
            found.insert(path.to_owned(), value.clone());
        }
    }
}

/// What is missing in the documents of a chart: one line each; empty when all is there.
pub fn undocumented(chart: Chart) -> Vec<String> {
    let (values, schema) = (chart.yaml("values.yaml"), chart.yaml("values.schema.json"));
    let leaves = leaves(&values);
    let (commented, rows) = (commented(&chart.file("values.yaml")), rows(&chart.file("README.md")));
    let mut missing = Vec::new();
    for (path, value) in &leaves {
        if !commented.contains(path) {
            missing.push(format!("{path}: no `# --` comment above it in values.yaml"));
        }
        if described(&schema, path).is_none() {
            missing.push(format!("{path}: no description in values.schema.json"));
        }
        let shown = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match rows.get(path) {
            None => missing.push(format!("{path}: no row in README.md")),
            Some(default) if !default.contains(&shown) => {
                missing.push(format!("{path}: the default is {shown}, README.md says {default}"));
            }
            Some(_) => {}
        }
    }
    missing.extend(rows.keys().filter(|row| !leaves.contains_key(*row)).map(|row| format!("{row}: no such value")));
    missing
}

/// Groups of the schema that let unknown keys through, and properties without a description; `open` are the paths that may.
pub fn undescribed(schema: &Value, open: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    walk(schema, "", open, &mut found);
    found
}

fn walk(node: &Value, path: &str, open: &[&str], found: &mut Vec<String>) {
    if node["type"] == "object" && node.get("additionalProperties").is_none() && !open.contains(&path) {
        found.push(format!("{path}: lets unknown keys through"));
    }
    for (key, child) in ["properties", "$defs"].iter().filter_map(|key| node[key].as_object()).flatten() {
        walk(child, &format!("{path}/{key}"), open, found);
    }
    for (key, child) in node["properties"].as_object().into_iter().flatten() {
        if !child["description"].is_string() {
            found.push(format!("{path}/{key}: has no description"));
        }
    }
    if let Some(items) = node.get("items") {
        walk(items, &format!("{path}/*"), open, found);
    }
}

/// The description of a value in the schema.
fn described<'a>(schema: &'a Value, path: &str) -> Option<&'a str> {
    let resolve = |node: &'a Value| match node["$ref"].as_str() {
        Some(reference) => schema.pointer(reference.trim_start_matches('#')),
        None => Some(node),
    };
    let (group, last) = path.rsplit_once('.').unwrap_or(("", path));
    let mut node = schema;
    for key in group.split('.').filter(|key| !key.is_empty()) {
        node = resolve(node["properties"].get(key)?)?;
    }
    node["properties"].get(last)?["description"].as_str()
}

/// The paths of keys in a YAML file that have a comment of the form `# -- …` right above them.
fn commented(yaml: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut above: Vec<(usize, &str)> = Vec::new();
    let mut comment = false;
    for line in yaml.lines() {
        let text = line.trim_start();
        if let Some((key, _)) = text.split_once(':').filter(|_| !text.starts_with('#')) {
            let indent = line.len() - text.len();
            above.retain(|(outer, _)| *outer < indent);
            above.push((indent, key));
            if comment {
                found.insert(above.iter().map(|(_, key)| *key).collect::<Vec<_>>().join("."));
            }
        }
        comment = text.starts_with("# -- ");
    }
    found
}

/// The first two columns of the README's table: a value's path and its default.
fn rows(markdown: &str) -> BTreeMap<String, String> {
    let row = |line: &str| {
        let (path, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
        Some((path.to_owned(), rest.split_once(" | ")?.0.to_owned()))
    };
    markdown.lines().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_counts_only_for_the_key_right_below_it() {
        let yaml = "# -- One.\na: 1\nb: 2\ngroup:\n  # -- Inner.\n  c: 3\n\n  # A plain comment.\n  d: 4\n";
        assert_eq!(commented(yaml), BTreeSet::from(["a".to_owned(), "group.c".to_owned()]));
    }

    #[test]
    fn an_open_group_and_a_property_without_description_are_found() {
        let schema = serde_json::json!({
            "type": "object",
            "properties": { "a": { "type": "object", "description": "A." }, "b": { "type": "string" } },
        });
        assert_eq!(undescribed(&schema, &["/a"]), [": lets unknown keys through", "/b: has no description"]);
    }
}
