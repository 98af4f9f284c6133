//! OpenAPI of other servers: v3 documents are theirs to answer, v2 is merged into one document.

use super::availability::aggregator;
use super::proxy;
use super::remote::Remote;
use super::service::ApiService;
use crate::body::Body;
use crate::custom::openapi as custom;
use crate::handlers::Request;
use crate::server::ApiServer;
use api::Status;
use http::Response;
use http::header::{ACCEPT, ETAG, IF_NONE_MATCH};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const REFERENCE: &str = "#/definitions/";

/// The documents of one APIService.
#[derive(Clone, Debug, Default)]
pub struct Documents {
    /// Where the v3 document is, with the hash of its content.
    v3: Option<String>,
    /// Tag of the v2 document, and of it what concerns the group.
    v2: Option<(String, Arc<Value>)>,
}

/// Fetches the documents; what cannot be fetched stays as it was.
pub async fn fetch(remote: &Remote, service: &ApiService, known: Documents) -> Documents {
    let v3 = fetch_v3(remote, service).await.or(known.v3);
    let v2 = fetch_v2(remote, service, known.v2).await;
    Documents { v3, v2 }
}

async fn fetch_v3(remote: &Remote, service: &ApiService) -> Option<String> {
    let (code, _, body) = remote.get("/openapi/v3", &aggregator(), &[(ACCEPT, "application/json")]).await.ok()?;
    let index: Value = serde_json::from_slice(&body).ok().filter(|_| code == 200)?;
    let path = format!("apis/{}/{}", service.group, service.version);
    index.get("paths")?.get(path)?.get("serverRelativeURL")?.as_str().map(str::to_owned)
}

async fn fetch_v2(
    remote: &Remote,
    service: &ApiService,
    known: Option<(String, Arc<Value>)>,
) -> Option<(String, Arc<Value>)> {
    let mut headers = vec![(ACCEPT, "application/json")];
    if let Some((tag, _)) = known.as_ref().filter(|(tag, _)| !tag.is_empty()) {
        headers.push((IF_NONE_MATCH, tag));
    }
    let Ok((200, answered, body)) = remote.get("/openapi/v2", &aggregator(), &headers).await else { return known };
    let tag = answered.get(ETAG).and_then(|v| v.to_str().ok()).map_or_else(|| pki::sha256_hex(&body), str::to_owned);
    let document: Value = serde_json::from_slice(&body).ok()?;
    Some((tag, Arc::new(of_group(&document, &service.group))))
}

/// The paths of a group, and the definitions that they need.
fn of_group(document: &Value, group: &str) -> Value {
    let prefix = format!("/apis/{group}/");
    let paths = document["paths"].as_object().into_iter().flatten();
    let paths: Map<_, _> =
        paths.filter(|(path, _)| path.starts_with(&prefix)).map(|(p, v)| (p.clone(), v.clone())).collect();
    let paths = Value::Object(paths);
    let mut needed = BTreeSet::new();
    let mut open = vec![&paths];
    while let Some(value) = open.pop() {
        match value {
            Value::Array(list) => open.extend(list),
            Value::Object(map) => {
                open.extend(map.values());
                let name = map.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix(REFERENCE));
                if let Some(name) = name.filter(|n| needed.insert(*n)) {
                    open.extend(document["definitions"].get(name));
                }
            }
            _ => {}
        }
    }
    let definition = |name: &str| Some((name.to_owned(), document["definitions"].get(name)?.clone()));
    let definitions: Map<_, _> = needed.iter().filter_map(|name| definition(name)).collect();
    json!({"paths": paths, "definitions": definitions})
}

/// Adds the v3 documents of other servers to the index.
pub fn add_to_index(server: &ApiServer, index: &mut Value) {
    for service in server.aggregator().remotes() {
        let documents = server.aggregator().documents.read();
        let Some(url) = documents.get(&service.name).and_then(|d| d.openapi.v3.clone()) else { continue };
        index["paths"][format!("apis/{}/{}", service.group, service.version)] = json!({"serverRelativeURL": url});
    }
}

/// Asks for the v3 document of a path whoever answers for it; `None`: this server does.
pub async fn v3(server: &ApiServer, request: &Request, path: &str) -> Option<Result<Response<Body>, Status>> {
    let (group, version) = path.strip_prefix("apis/")?.split_once('/')?;
    let service = server.aggregator().remote(group, version)?;
    if !service.is_available() {
        return Some(Ok(crate::handlers::answer::text(503, "service unavailable\n")));
    }
    let remote = server.aggregator().client(server, service.remote.as_ref()?);
    Some(proxy::forward(&remote, request, &aggregator()).await)
}

/// The v2 document of all servers, made when it is asked for.
pub struct Version2 {
    own: custom::Version2,
    /// The documents of other servers by the names of their APIServices, with their tags.
    others: BTreeMap<String, (String, Arc<Value>)>,
}

impl Version2 {
    /// With what is known now.
    pub fn new(server: &ApiServer) -> Self {
        let documents = server.aggregator().documents.read();
        let others = documents.iter().filter_map(|(name, d)| Some((name.clone(), d.openapi.v2.clone()?)));
        Self { own: custom::Version2::new(server.registry()), others: others.collect() }
    }

    /// The hash of the document.
    pub fn hash(&self) -> String {
        let own = self.own.hash();
        if self.others.is_empty() {
            return own;
        }
        let tags: String = self.others.iter().map(|(name, (tag, _))| format!("{name}={tag};")).collect();
        pki::sha256_hex(format!("{own};{tags}").as_bytes())
    }

    /// As JSON.
    pub fn json(&self) -> Vec<u8> {
        match self.merged() {
            None => self.own.json(),
            Some(merged) => merged.to_string().into_bytes(),
        }
    }

    /// As protobuf.
    pub fn protobuf(&self) -> Vec<u8> {
        match self.merged() {
            None => self.own.protobuf(),
            Some(merged) => schema::openapi_v2_to_protobuf(&merged),
        }
    }

    /// `None` when there is nothing to merge.
    fn merged(&self) -> Option<Value> {
        if self.others.is_empty() {
            return None;
        }
        let mut all: Value = serde_json::from_slice(&self.own.json()).ok()?;
        self.others.values().for_each(|(_, document)| merge(&mut all, document));
        Some(all)
    }
}

/// Merges a document into one; what both have stays as it is, and a definition of the same name and another content
/// gets another name.
fn merge(into: &mut Value, document: &Value) {
    let mut document = document.clone();
    let names: Vec<String> = document["definitions"].as_object().into_iter().flat_map(|m| m.keys().cloned()).collect();
    for name in names {
        let taken = |candidate: &str| into["definitions"].get(candidate).cloned();
        if taken(&name).is_none_or(|other| other == document["definitions"][&name]) {
            continue;
        }
        let free = (2..).map(|n| format!("{name}_v{n}")).find(|candidate| taken(candidate).is_none());
        if let (Some(free), Some(definitions)) = (free, document["definitions"].as_object_mut())
            && let Some(definition) = definitions.remove(&name)
        {
            definitions.insert(free.clone(), definition);
            rename(&mut document, &format!("{REFERENCE}{name}"), &format!("{REFERENCE}{free}"));
        }
    }
    for part in ["paths", "definitions"] {
        let Some(Value::Object(new)) = document.get_mut(part).map(Value::take) else { continue };
        for (key, value) in new {
            if into[part].get(&key).is_none() {
                into[part][key] = value;
            }
        }
    }
}

fn rename(value: &mut Value, from: &str, to: &str) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(|item| rename(item, from, to)),
        Value::Object(map) => {
            for (key, item) in map {
                if key == "$ref" && item == from {
                    *item = to.into();
                } else {
                    rename(item, from, to);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_merged() {
        let mut all = json!({"paths": {"/api": {}}, "definitions": {"a": {"x": 1}, "b": {"x": 1}}});
        let other = json!({"paths": {"/apis/g/": {"$ref": "#/definitions/a"}, "/apis/h/": {"$ref": "#/definitions/z"}},
            "definitions": {"a": {"$ref": "#/definitions/b"}, "b": {"x": 1}, "z": {}}});
        merge(&mut all, &of_group(&other, "g"));
        let want = json!({"paths": {"/api": {}, "/apis/g/": {"$ref": "#/definitions/a_v2"}},
            "definitions": {"a": {"x": 1}, "a_v2": {"$ref": "#/definitions/b"}, "b": {"x": 1}}});
        assert_eq!(all, want);
    }
}
