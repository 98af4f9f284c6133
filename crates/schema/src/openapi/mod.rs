//! `/openapi/v3` and `/openapi/v2`, made anew for each answer and kept by nobody here.
//!
//! A document is written schema by schema, so that its text is all that is ever held. Hashes come
//! from the facts the documents are made of, not from the documents.

mod components;
mod custom;
mod descriptions;
mod gnostic;
mod paths;
mod roots;

pub use custom::{CustomKind, openapi_v3_custom};
pub use descriptions::description;

use crate::resources::resources;
use crate::types::Schema;
use components::{Closure, Flavour};
use descriptions::Descriptions;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

/// Hash of the tables and descriptions, made by the build script.
const FACTS_HASH: &str = env!("SCHEMA_FACTS_HASH");

/// The answer of `/openapi/v3`: paths with the URL of their document, whose hash is its ETag.
pub fn openapi_v3_index() -> Value {
    let mut paths = Map::new();
    let versions = group_versions().into_iter().map(|(group, version)| path_of(group, version));
    for path in versions.chain(roots::roots().into_iter().map(|root| root.path)) {
        let url = format!("/openapi/v3/{path}?hash={}", hash(&path));
        paths.insert(path, json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

/// Hash of a v3 document; `None`: there is none of that path.
pub fn openapi_v3_hash(path: &str) -> Option<String> {
    (group_version_of(path).is_some() || root(path).is_some()).then(|| hash(path))
}

/// Hash of the v2 document.
pub fn openapi_v2_hash() -> String {
    hash("v2")
}

/// The document of a path such as `api/v1`, `apis/apps/v1` or `apis/apps`, as JSON; `None`: there is none.
pub fn openapi_v3(path: &str) -> Option<Vec<u8>> {
    let Some((group, version)) = group_version_of(path) else {
        return Some(root(path)?.document().to_string().into_bytes());
    };
    let texts = Descriptions::unpack();
    let mut closure = Closure::default();
    add_kinds(&mut closure, group, version);
    let mut out = Vec::with_capacity(1 << 20);
    out.extend_from_slice(
        b"{\"openapi\":\"3.0.0\",\"info\":{\"title\":\"Kubernetes\",\"version\":\"v1.36.0\"},\"paths\":",
    );
    write_object(&mut out, paths::paths(group, version).into_iter().map(|p| (p.path.clone(), p.render(Flavour::V3))));
    out.extend_from_slice(b",\"components\":{\"schemas\":");
    write_object(&mut out, definitions(&closure, Flavour::V3, &texts, &[("", "v1"), (group, version)]));
    out.extend_from_slice(b",\"securitySchemes\":");
    out.extend_from_slice(security().to_string().as_bytes());
    out.extend_from_slice(b"}}");
    Some(out)
}

/// `/openapi/v2` as JSON, with custom resources.
pub fn openapi_v2(custom: &[CustomKind<'_>]) -> Vec<u8> {
    let texts = Descriptions::unpack();
    let mut out = Vec::with_capacity(4 << 20);
    out.extend_from_slice(
        b"{\"swagger\":\"2.0\",\"info\":{\"title\":\"Kubernetes\",\"version\":\"v1.36.0\"},\"paths\":",
    );
    write_object(&mut out, v2_paths(custom));
    out.extend_from_slice(b",\"definitions\":");
    let custom = custom::kinds(custom, Flavour::V2);
    write_object(&mut out, definitions(&v2_closure(), Flavour::V2, &texts, &group_versions()).chain(custom));
    out.extend_from_slice(b",\"securityDefinitions\":");
    out.extend_from_slice(security().to_string().as_bytes());
    out.extend_from_slice(b",\"security\":[{\"BearerToken\":[]}]}");
    out
}

/// `/openapi/v2` as gnostic protobuf (`application/com.github.proto-openapi.spec.v2@v1.0+protobuf`).
pub fn openapi_v2_protobuf(custom: &[CustomKind<'_>]) -> Vec<u8> {
    let texts = Descriptions::unpack();
    let kinds = custom::kinds(custom, Flavour::V2);
    let closure = v2_closure();
    let all = definitions(&closure, Flavour::V2, &texts, &group_versions()).chain(kinds).collect::<Vec<_>>();
    gnostic::document(v2_paths(custom), all.into_iter(), &security())
}

/// A v2 document as gnostic protobuf, with what other servers have added to it.
pub fn openapi_v2_to_protobuf(document: &Value) -> Vec<u8> {
    let members = |key: &str| {
        let map = document.get(key).and_then(Value::as_object);
        map.into_iter().flatten().map(|(name, value)| (name.clone(), value.clone()))
    };
    gnostic::document(members("paths"), members("definitions"), &security())
}

fn v2_paths<'a>(custom: &'a [CustomKind<'_>]) -> impl Iterator<Item = (String, Value)> + 'a {
    let items = group_versions().into_iter().flat_map(|(g, v)| paths::paths(g, v));
    let custom = custom.iter().flat_map(|kind| paths::custom(kind, Flavour::V2));
    items.map(|p| (p.path.clone(), p.render(Flavour::V2))).chain(custom)
}

fn v2_closure() -> Closure {
    let mut closure = Closure::default();
    for (group, version) in group_versions() {
        add_kinds(&mut closure, group, version);
    }
    closure
}

fn security() -> Value {
    json!({"BearerToken": {"type": "apiKey", "name": "authorization", "in": "header", "description": "Bearer Token authentication"}})
}

/// Group versions in the order they are served, each once.
fn group_versions() -> Vec<(&'static str, &'static str)> {
    let mut out: Vec<_> = resources().iter().map(|r| (r.group, r.version)).collect();
    out.dedup();
    out
}

fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn group_version_of(path: &str) -> Option<(&'static str, &'static str)> {
    group_versions().into_iter().find(|(g, v)| path_of(g, v) == path)
}

fn root(path: &str) -> Option<roots::Root> {
    roots::roots().into_iter().find(|root| root.path == path)
}

fn hash(what: &str) -> String {
    let digest = Sha512::digest(format!("{FACTS_HASH} {what}"));
    digest.iter().map(|b| format!("{b:02X}")).collect()
}

/// The kinds that operations of the group version speak of, and what every document has.
fn add_kinds(closure: &mut Closure, group: &str, version: &str) {
    for fact in resources().iter().filter(|r| r.group == group && r.version == version) {
        let Some(schema) = fact.schema().filter(|_| !fact.kind.ends_with("Options")) else { continue };
        closure.add(schema);
        if fact.has_verb("list") {
            Schema::find(&format!("{}List", schema.name())).into_iter().for_each(|list| closure.add(list));
        }
    }
    for shared in ["DeleteOptions", "Status", "APIResourceList", "WatchEvent"] {
        let schema = Schema::find(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{shared}"));
        schema.into_iter().for_each(|schema| closure.add(schema));
    }
    closure.specials.insert("io.k8s.apimachinery.pkg.apis.meta.v1.Patch".into());
}

fn definitions<'a>(
    closure: &'a Closure,
    flavour: Flavour,
    texts: &'a Descriptions,
    groups: &'a [(&'a str, &'a str)],
) -> impl Iterator<Item = (String, Value)> + 'a {
    let groups = if groups.first() == groups.last() { &groups[..1] } else { groups };
    let structs = closure.schemas.iter().filter_map(|name| Schema::find(name));
    let structs = structs.map(move |s| (s.name().to_owned(), components::definition(s, flavour, texts, groups)));
    structs.chain(closure.specials.iter().map(move |name| (name.clone(), components::special(name, flavour, texts))))
}

/// Writes a JSON object entry by entry.
fn write_object(out: &mut Vec<u8>, entries: impl Iterator<Item = (String, Value)>) {
    out.push(b'{');
    for (i, (key, value)) in entries.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(Value::from(key).to_string().as_bytes());
        out.push(b':');
        out.extend_from_slice(value.to_string().as_bytes());
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(path: &str) -> Value {
        serde_json::from_slice(&openapi_v3(path).expect("served")).expect("JSON")
    }

    #[test]
    fn the_index_names_every_document() {
        let index = openapi_v3_index();
        let paths = index["paths"].as_object().expect("a map");
        assert_eq!(paths.len(), 22 + 20 + 5);
        for (path, entry) in paths {
            let url = entry["serverRelativeURL"].as_str().expect("a string");
            assert_eq!(Some(url.to_owned()), openapi_v3_hash(path).map(|h| format!("/openapi/v3/{path}?hash={h}")));
        }
        assert_eq!(openapi_v3("apis/apps/v1beta1"), None);
    }

    #[test]
    fn every_reference_is_there() {
        let versions = group_versions().into_iter().map(|(group, version)| path_of(group, version));
        for path in versions.chain(["api", "apis", "apis/apps", "version"].map(str::to_owned)) {
            let doc = parsed(&path);
            let schemas = doc["components"]["schemas"].as_object().expect("a map");
            let text = doc.to_string();
            for part in text.split("\"#/components/schemas/").skip(1) {
                let name = part.split('"').next().expect("a first part");
                assert!(schemas.contains_key(name), "{path}: {name}");
            }
        }
    }

    #[test]
    fn groups_have_documents_of_their_own() {
        let get = &parsed("apis/rbac.authorization.k8s.io")["paths"]["/apis/rbac.authorization.k8s.io/"]["get"];
        assert_eq!(get["operationId"], "getRbacAuthorizationAPIGroup");
        assert_eq!(get["tags"], json!(["rbacAuthorization"]));
        let issuer = parsed(".well-known/openid-configuration");
        assert_eq!(issuer["components"].get("schemas"), None);
    }

    #[test]
    fn schemas_and_operations_carry_what_kubectl_looks_for() {
        let doc = parsed("apis/apps/v1");
        let spec = &doc["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(spec["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(spec["items"]["$ref"], "#/components/schemas/io.k8s.api.core.v1.Container");
        let op = &doc["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(op["x-kubernetes-group-version-kind"]["kind"], "Deployment");
        assert_eq!(op["operationId"], "patchAppsV1NamespacedDeployment");
        let names: Vec<&str> =
            op["parameters"].as_array().expect("a list").iter().filter_map(|p| p["name"].as_str()).collect();
        assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
    }

    #[test]
    fn v2_is_json_and_protobuf() {
        let doc: Value = serde_json::from_slice(&openapi_v2(&[])).expect("JSON");
        assert_eq!(doc["swagger"], "2.0");
        assert!(doc["definitions"]["io.k8s.api.core.v1.Pod"]["properties"]["spec"]["$ref"].is_string());
        let bytes = openapi_v2_protobuf(&[]);
        let mut reader = crate::wire::Reader::new(&bytes);
        let mut fields = Vec::new();
        while let Some((number, _)) = reader.next_field().expect("protobuf") {
            fields.push(number);
        }
        assert_eq!(fields, [1, 2, 8, 9, 12, 13]);
    }

    /// Writes the documents for comparison with others: `SCHEMA_DUMP=dir cargo test -p schema dump`.
    #[test]
    fn dump() {
        let Ok(dir) = std::env::var("SCHEMA_DUMP") else { return };
        let versions = group_versions().into_iter().map(|(group, version)| path_of(group, version));
        for path in versions.chain(roots::roots().into_iter().map(|root| root.path)) {
            let name = path.replace('/', "__");
            std::fs::write(format!("{dir}/{name}.json"), openapi_v3(&path).expect("served")).expect("writable");
        }
        std::fs::write(format!("{dir}/index.json"), openapi_v3_index().to_string()).expect("writable");
        std::fs::write(format!("{dir}/v2.json"), openapi_v2(&[])).expect("writable");
        std::fs::write(format!("{dir}/v2.pb"), openapi_v2_protobuf(&[])).expect("writable");
    }
}
