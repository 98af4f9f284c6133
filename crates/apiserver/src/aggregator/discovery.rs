//! Discovery of everything as one: the order of groups and versions, and what other servers tell of themselves.

use super::availability::aggregator;
use super::service::{self, ApiService, CUSTOM, compare_versions};
use crate::server::ApiServer;
use bytes::Bytes;
use http::header::{ACCEPT, ETAG, IF_NONE_MATCH};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                          application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

/// What a server tells of itself, as far as it concerns one APIService.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// Its aggregated discovery, and the tag of that.
    tag: String,
    /// The resources of the version, `None` where they are not known.
    resources: Option<Value>,
    /// Whether the last attempt succeeded.
    fresh: bool,
    /// OpenAPI documents.
    pub openapi: super::openapi::Documents,
}

/// Fetches what a server tells of itself; when it is not available what is known of it is no longer fresh.
pub async fn refresh(server: &ApiServer, service: &ApiService, available: bool) {
    let Some(reference) = &service.remote else { return };
    let known = server.aggregator().documents.read().get(&service.name).cloned();
    let mut document = known.as_deref().cloned().unwrap_or_default();
    document.fresh = false;
    if available {
        let remote = server.aggregator().client(server, reference);
        match fetch(&remote, service, &document.tag).await {
            Ok(Some((tag, resources))) => {
                document = Document { tag, resources: Some(resources), fresh: true, openapi: document.openapi };
            }
            Ok(None) => document.fresh = true,
            Err(why) => tracing::debug!(why, name = service.name, "an API server tells nothing of its resources"),
        }
        document.openapi = super::openapi::fetch(&remote, service, document.openapi).await;
    } else {
        // As upstream: a server that is not there is listed without its resources.
        document.resources = None;
        document.tag.clear();
    }
    server.aggregator().documents.write().insert(service.name.clone(), Arc::new(document));
}

/// The tag and the resources; `None` when the tag is that of what is known.
async fn fetch(
    remote: &super::remote::Remote,
    service: &ApiService,
    tag: &str,
) -> Result<Option<(String, Value)>, String> {
    let mut headers = vec![(ACCEPT, AGGREGATED)];
    if !tag.is_empty() {
        headers.push((IF_NONE_MATCH, tag));
    }
    let (code, answered, body) = remote.get("/apis", &aggregator(), &headers).await?;
    if code == 304 {
        return Ok(None);
    }
    let tag = answered.get(ETAG).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
    match aggregated(&body, service) {
        Some(resources) if code == 200 => Ok(Some((tag, resources))),
        _ => legacy(remote, service).await.map(|resources| Some((String::new(), resources))),
    }
}

/// The resources of the version in a list of groups; `None` when it is no such list.
fn aggregated(body: &Bytes, service: &ApiService) -> Option<Value> {
    let list: Value = serde_json::from_slice(body).ok()?;
    if list["kind"] != "APIGroupDiscoveryList" {
        return None;
    }
    let group = list["items"].as_array()?.iter().find(|g| g["metadata"]["name"] == service.group.as_str());
    let version =
        group.and_then(|g| g["versions"].as_array()?.iter().find(|v| v["version"] == service.version.as_str()));
    let mut resources = version.map_or_else(|| json!([]), |v| v["resources"].clone());
    for resource in resources.as_array_mut().into_iter().flatten() {
        complete_kind(resource);
        resource["subresources"].as_array_mut().into_iter().flatten().for_each(complete_kind);
        if resource["subresources"].is_null() {
            resource.as_object_mut()?.remove("subresources");
        }
    }
    Some(resources)
}

/// Clients of some versions fail where there is none.
fn complete_kind(resource: &mut Value) {
    if resource["responseKind"].is_null() {
        resource["responseKind"] = json!({"group": "", "version": "", "kind": ""});
    }
}

async fn legacy(remote: &super::remote::Remote, service: &ApiService) -> Result<Value, String> {
    let path = format!("/apis/{}/{}", service.group, service.version);
    let (code, _, body) = remote.get(&path, &aggregator(), &[(ACCEPT, "application/json")]).await?;
    if code != 200 {
        return Err(format!("failed to download legacy discovery for {path}: {code}"));
    }
    let list: Value = serde_json::from_slice(&body).map_err(|e| e.to_string())?;
    Ok(converted(&list))
}

/// A list of resources as aggregated discovery has it: subresources within their resources.
fn converted(list: &Value) -> Value {
    let mut out: Vec<Value> = Vec::new();
    for resource in list["resources"].as_array().into_iter().flatten() {
        let name = resource["name"].as_str().unwrap_or("");
        let text = |key: &str| resource[key].as_str().unwrap_or("");
        let kind = json!({"group": text("group"), "version": text("version"), "kind": text("kind")});
        match name.split_once('/') {
            None => {
                let scope = if resource["namespaced"] == true { "Namespaced" } else { "Cluster" };
                let mut shown = json!({"resource": name, "responseKind": kind, "scope": scope,
                    "singularResource": text("singularName"), "verbs": resource["verbs"]});
                for field in ["shortNames", "categories"] {
                    if resource[field].is_array() {
                        shown[field] = resource[field].clone();
                    }
                }
                out.push(shown);
            }
            Some((parent, subresource)) => {
                let shown = json!({"subresource": subresource, "responseKind": kind, "verbs": resource["verbs"]});
                let Some(parent) = out.iter_mut().find(|r| r["resource"] == parent) else { continue };
                match parent["subresources"].as_array_mut() {
                    Some(list) => list.push(shown),
                    None => parent["subresources"] = json!([shown]),
                }
            }
        }
    }
    out.into()
}

/// A version as aggregated discovery lists it, where another server answers for it.
pub fn version(server: &ApiServer, group: &str, version: &str) -> Option<Value> {
    let service = server.aggregator().remote(group, version)?;
    let document = server.aggregator().documents.read().get(&service.name).cloned();
    let mut out = Map::new();
    out.insert("version".into(), version.into());
    if let Some(resources) = document.as_ref().and_then(|d| d.resources.clone()) {
        out.insert("resources".into(), resources);
    }
    let freshness = if document.is_some_and(|d| d.fresh) { "Current" } else { "Stale" };
    out.insert("freshness".into(), freshness.into());
    Some(out.into())
}

/// Adds the versions of other servers to those of this one, and puts all in order: groups by the priorities of
/// their APIServices, `apiregistration.k8s.io` first; versions by theirs.
pub fn ordered(server: &ApiServer, mut groups: BTreeMap<String, Vec<String>>) -> Vec<(String, Vec<String>)> {
    let services = server.aggregator().services.values();
    for remote in services.iter().filter(|s| s.remote.is_some()) {
        let versions = groups.entry(remote.group.clone()).or_default();
        if !versions.contains(&remote.version) {
            versions.push(remote.version.clone());
        }
    }
    let priorities = |group: &str, version: &str| {
        let service = services.iter().find(|s| s.group == group && s.version == version);
        let registered = service.map(|s| (s.group_priority, s.version_priority));
        registered.or_else(|| service::built_in(group, version)).unwrap_or(CUSTOM)
    };
    let mut out: Vec<(i64, String, Vec<String>)> = Vec::new();
    for (group, mut versions) in groups {
        versions.sort_by(|a, b| {
            let (a_priority, b_priority) = (priorities(&group, a).1, priorities(&group, b).1);
            b_priority.cmp(&a_priority).then_with(|| compare_versions(a, b))
        });
        let own = versions.iter().map(|v| priorities(&group, v).0).max().unwrap_or(0);
        let priority = if group == super::GROUP { i64::MAX } else { own };
        out.push((priority, group, versions));
    }
    out.sort_by(|(a, a_name, _), (b, b_name, _)| b.cmp(a).then_with(|| a_name.cmp(b_name)));
    out.into_iter().map(|(_, group, versions)| (group, versions)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_converted() {
        let list = json!({"resources": [
            {"name": "a", "singularName": "one", "namespaced": true, "kind": "A", "verbs": ["get"], "shortNames": ["x"]},
            {"name": "a/status", "namespaced": true, "kind": "A", "verbs": ["update"]}]});
        let kind = json!({"group": "", "version": "", "kind": "A"});
        let want = json!([{"resource": "a", "responseKind": kind, "scope": "Namespaced", "singularResource": "one",
            "verbs": ["get"], "shortNames": ["x"],
            "subresources": [{"subresource": "status", "responseKind": kind, "verbs": ["update"]}]}]);
        assert_eq!(converted(&list), want);
    }

    #[test]
    fn the_version_is_found() {
        let service = ApiService { group: "g".into(), version: "v1".into(), ..ApiService::default() };
        let list = |items: Value| Bytes::from(json!({"kind": "APIGroupDiscoveryList", "items": items}).to_string());
        let items =
            json!([{"metadata": {"name": "g"}, "versions": [{"version": "v1", "resources": [{"resource": "a"}]}]}]);
        let want = json!([{"resource": "a", "responseKind": {"group": "", "version": "", "kind": ""}}]);
        assert_eq!(aggregated(&list(items), &service), Some(want));
        assert_eq!(aggregated(&list(json!([])), &service), Some(json!([])));
        assert_eq!(aggregated(&Bytes::from_static(b"{}"), &service), None);
    }
}
