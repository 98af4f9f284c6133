//! OpenAPI v3 of custom resources: the schema as given, completed, and the paths that clients look kinds up by.

use super::{Definition, discovery};
use crate::registry::{Registry, Resource};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Group and version of a document's path, `apis/<group>/<version>`.
fn parts(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix("apis/")?.split_once('/').filter(|(_, version)| !version.contains('/'))
}

/// Adds the documents of custom resources to the index.
pub fn add_to_index(registry: &Registry, index: &mut Value) {
    for (group, versions) in discovery::groups(registry) {
        for version in versions {
            let path = format!("apis/{group}/{version}");
            let Some(document) = document(registry, &path) else { continue };
            let hash = pki::sha256_hex(document.to_string().as_bytes()).to_uppercase();
            index["paths"][&path] = json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")});
        }
    }
}

/// The document of a path; `None`: no custom resource is served there.
pub fn document(registry: &Registry, path: &str) -> Option<Value> {
    let (group, version) = parts(path)?;
    let all = registry.all().into_iter().filter(|r| r.group == group && r.version == version);
    let mut found: Vec<(Arc<Resource>, Arc<Definition>)> =
        all.filter_map(|r| r.custom.clone().map(|c| (r, c))).collect();
    found.sort_by(|(a, _), (b, _)| a.resource.cmp(&b.resource));
    if found.is_empty() {
        return None;
    }
    let (mut schemas, mut paths) = (Map::new(), Map::new());
    for (resource, custom) in &found {
        let gvk = json!({"group": group, "version": version, "kind": resource.kind});
        let list_gvk = json!({"group": group, "version": version, "kind": custom.list_kind});
        let name = schema_name(group, version, &resource.kind);
        let reference = json!({"$ref": format!("#/components/schemas/{name}")});
        schemas.insert(name, with_type(&custom.source, &gvk));
        let list = json!({"type": "object", "required": ["items"], "x-kubernetes-group-version-kind": [list_gvk],
            "properties": {"apiVersion": {"type": "string"}, "kind": {"type": "string"},
                "metadata": {"type": "object"}, "items": {"type": "array", "items": reference}}});
        schemas.insert(schema_name(group, version, &custom.list_kind), list);
        add_paths(&mut paths, resource, &gvk, &reference);
    }
    Some(json!({"openapi": "3.0.0", "info": {"title": "Kubernetes CRD Swagger", "version": "v0.1.0"},
        "paths": paths, "components": {"schemas": schemas}}))
}

/// `io.cert-manager.v1.Certificate` for group `cert-manager.io`.
fn schema_name(group: &str, version: &str, kind: &str) -> String {
    let reversed: Vec<&str> = group.split('.').rev().collect();
    format!("{}.{version}.{kind}", reversed.join("."))
}

fn with_type(source: &Value, gvk: &Value) -> Value {
    let mut schema = source.clone();
    if !schema.get("properties").is_some_and(Value::is_object) {
        schema["properties"] = json!({});
    }
    for field in ["apiVersion", "kind"] {
        schema["properties"][field] = json!({"type": "string"});
    }
    if schema["properties"].get("metadata").is_none() {
        schema["properties"]["metadata"] = json!({"type": "object"});
    }
    schema["x-kubernetes-group-version-kind"] = json!([gvk]);
    schema
}

fn add_paths(paths: &mut Map<String, Value>, resource: &Resource, gvk: &Value, reference: &Value) {
    let root = format!("/apis/{}/{}", resource.group, resource.version);
    let scope = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{root}{scope}/{}", resource.resource);
    let text = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    let write: Vec<_> = ["dryRun", "fieldManager", "fieldValidation"].map(text).into();
    let answer = json!({"200": {"description": "OK", "content": {"application/json": {"schema": reference}}}});
    let operation = |action: &str, parameters: &[Value]| {
        json!({"responses": answer, "parameters": parameters, "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk})
    };
    let body = json!({"content": {"application/json": {"schema": reference}}});
    let mut post = operation("post", &write);
    let mut put = operation("put", &write);
    post["requestBody"] = body.clone();
    put["requestBody"] = body;
    paths.insert(collection.clone(), json!({"get": operation("list", &[]), "post": post}));
    paths.insert(
        format!("{collection}/{{name}}"),
        json!({"get": operation("get", &[]), "put": put, "patch": operation("patch", &write),
            "delete": operation("delete", &[text("dryRun")])}),
    );
}
