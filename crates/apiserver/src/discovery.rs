//! Discovery: `/api`, `/apis`, groups, versions and their resources; OpenAPI documents; token issuer documents.

use crate::aggregator;
use crate::body::{self, Body};
use crate::custom::discovery as custom;
use crate::handlers::{Request, answer};
use crate::media::{self, Format};
use crate::server::ApiServer;
use api::Status;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION, VARY};
use http::{HeaderValue, Method, Response, StatusCode};
use schema::ResourceFact;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
/// As clients ask for it; it is no valid media type, so the answer names it with a dot.
const OPENAPI_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const OPENAPI_PROTOBUF_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// What is said of a path that nobody serves.
pub const NOT_FOUND: &str = "404 page not found\n";

/// Answers a request that is for no resource.
pub async fn handle(server: &ApiServer, request: &Request) -> Result<Response<Body>, Status> {
    let parts: Vec<&str> = request.info.path.split('/').filter(|p| !p.is_empty()).collect();
    let document = match parts.as_slice() {
        [] => paths(server),
        ["api"] if aggregated(request) => return with_etag(request, &aggregated_list(server, |g| g.is_empty()), AGGREGATED),
        ["apis"] if aggregated(request) => return with_etag(request, &aggregated_list(server, |g| !g.is_empty()), AGGREGATED),
        ["api"] => api_versions(server),
        ["apis"] => json!({"kind": "APIGroupList", "apiVersion": "v1",
            "groups": groups(server).iter().filter(|(name, _)| !name.is_empty()).map(|(g, v)| group(g, v)).collect::<Vec<_>>()}),
        ["apis", name] => {
            let groups = groups(server);
            let found = groups.into_iter().find(|(group, _)| group == name).filter(|_| !name.is_empty());
            let Some((_, versions)) = found else { return nothing(name) };
            let mut group = group(name, &versions);
            group["kind"] = "APIGroup".into();
            group["apiVersion"] = "v1".into();
            group
        }
        ["api", version] => resource_list(server, "", version)?,
        ["apis", group, version] => match resource_list(server, group, version) {
            Err(_) if request.method == Method::GET => return nothing(group),
            list => list?,
        },
        ["openapi", ..] => return openapi(server, request, &parts).await,
        [".well-known", "openid-configuration"] => {
            let mut document = openid(server);
            document["jwks_uri"] = format!("https://{}/openid/v1/jwks", host(server)).into();
            return json_only(request, &document, "application/json");
        }
        ["openid", "v1", "jwks"] => return json_only(request, &server.config().sa_key.jwks(), "application/jwk-set+json"),
        ["api" | "apis" | "version", ..] => return Err(Status::no_such_path()),
        _ => return Ok(answer::text(404, NOT_FOUND)),
    };
    // The root, groups and their list are answered whatever the method is.
    if !matches!(parts.as_slice(), [] | ["apis"] | ["apis", _]) {
        get_only(request)?;
    }
    answer::plain(request, 200, &document)
}

/// What is served nowhere: where no built-in group is, as the server of custom resources says it.
pub fn nothing(group: &str) -> Result<Response<Body>, Status> {
    match schema::resources().iter().any(|f| f.group == group) {
        true => Err(Status::no_such_path()),
        false => Ok(answer::text(404, NOT_FOUND)),
    }
}

fn get_only(request: &Request) -> Result<(), Status> {
    if request.method == Method::GET { Ok(()) } else { Err(Status::method_not_allowed()) }
}

fn host(server: &ApiServer) -> String {
    std::net::SocketAddr::new(server.config().advertise_address, server.config().advertise_port).to_string()
}

fn openid(server: &ApiServer) -> Value {
    json!({"issuer": server.config().issuer, "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": server.config().sa_key.algorithms()})
}

fn json_only(request: &Request, document: &Value, name: &'static str) -> Result<Response<Body>, Status> {
    get_only(request)?;
    let accepts = request.headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("*/*");
    let fits = accepts.split(',').map(|r| r.split(';').next().unwrap_or("").trim());
    if !fits.into_iter().any(|r| r == name || r == "*/*" || r == "application/*") {
        return Err(media::not_acceptable());
    }
    let bytes = serde_json::to_vec(document).map_err(Status::internal)?;
    Ok(typed(answer::bytes(request, 200, Format::Json, bytes.into()), name))
}

fn typed(mut response: Response<Body>, name: &'static str) -> Response<Body> {
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(name));
    response
}

fn paths(server: &ApiServer) -> Value {
    let mut paths = vec!["/.well-known/openid-configuration".to_owned(), "/api".into(), "/api/v1".into(), "/apis".into()];
    for (group, versions) in groups(server).iter().filter(|(g, _)| !g.is_empty()) {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|v| format!("/apis/{group}/{v}")));
    }
    let rest = ["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/openid/v1/jwks", "/readyz", "/version"];
    paths.extend(rest.map(str::to_owned));
    json!({"paths": paths})
}

fn api_versions(server: &ApiServer) -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": host(server)}]})
}

/// The groups with their versions, the preferred ones first.
fn groups(server: &ApiServer) -> Vec<(String, Vec<String>)> {
    let mut groups = BTreeMap::<String, Vec<String>>::new();
    for fact in schema::resources() {
        let versions = groups.entry(fact.group.into()).or_default();
        if !versions.iter().any(|v| v == fact.version) {
            versions.push(fact.version.into());
        }
    }
    for (group, versions) in custom::groups(server.registry()) {
        let known = groups.entry(group).or_default();
        let new: Vec<_> = versions.into_iter().filter(|v| !known.contains(v)).collect();
        known.extend(new);
    }
    aggregator::discovery::ordered(server, groups)
}

fn group(name: &str, versions: &[String]) -> Value {
    let version = |v: &String| json!({"groupVersion": format!("{name}/{v}"), "version": v});
    let preferred = versions.first().map(version);
    json!({"name": name, "versions": versions.iter().map(version).collect::<Vec<_>>(), "preferredVersion": preferred})
}

fn facts(group: &str, version: &str) -> impl Iterator<Item = &'static ResourceFact> {
    schema::resources().iter().filter(move |f| f.group == group && f.version == version)
}

fn resource_list(server: &ApiServer, group: &str, version: &str) -> Result<Value, Status> {
    let mut resources: Vec<_> = facts(group, version).map(resource).collect();
    resources.extend(custom::resource_list(server.registry(), group, version));
    if resources.is_empty() {
        return Err(Status::no_such_path());
    }
    let group_version = api::GroupVersion::new(group, version).to_string();
    let mut list = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": resources});
    if !group.is_empty() {
        list["apiVersion"] = "v1".into();
    }
    Ok(list)
}

fn full_name(fact: &ResourceFact) -> String {
    if fact.subresource.is_empty() { fact.resource.into() } else { format!("{}/{}", fact.resource, fact.subresource) }
}

fn resource(fact: &ResourceFact) -> Value {
    let mut out = json!({"name": full_name(fact), "singularName": fact.singular, "namespaced": fact.namespaced,
        "kind": fact.kind, "verbs": fact.verbs});
    if !fact.subresource.is_empty() {
        out["singularName"] = "".into();
    }
    if (fact.kind_group, fact.kind_version) != (fact.group, fact.version) {
        out["group"] = fact.kind_group.into();
        out["version"] = fact.kind_version.into();
    }
    for (field, list) in [("shortNames", fact.short_names), ("categories", fact.categories)] {
        if !list.is_empty() {
            out[field] = json!(list);
        }
    }
    if fact.has_verb("list") && fact.subresource.is_empty() {
        out["storageVersionHash"] = custom::storage_version_hash(fact.group, fact.version, fact.kind).into();
    }
    out
}

fn aggregated(request: &Request) -> bool {
    media::wants(&request.headers, "APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2")
}

fn aggregated_list(server: &ApiServer, include: impl Fn(&str) -> bool) -> Value {
    let groups = groups(server);
    let items = groups.iter().filter(|(g, _)| include(g)).map(|(group, versions)| {
        let versions: Vec<_> = versions.iter().map(|v| aggregated_version(server, group, v)).collect();
        let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
        json!({"metadata": metadata, "versions": versions})
    });
    let items: Vec<_> = items.collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_version(server: &ApiServer, group: &str, version: &str) -> Value {
    if let Some(remote) = aggregator::discovery::version(server, group, version) {
        return remote;
    }
    let mut resources: Vec<Value> = Vec::new();
    for fact in facts(group, version) {
        if fact.subresource.is_empty() {
            resources.push(aggregated_resource(fact));
            continue;
        }
        let mut sub = json!({"subresource": fact.subresource, "responseKind": response_kind(fact), "verbs": fact.verbs});
        if sub["responseKind"].is_null() {
            sub["responseKind"] = json!({"group": "", "version": "", "kind": ""});
        }
        let parent = resources.iter_mut().find(|r| r["resource"] == fact.resource);
        if let Some(parent) = parent {
            match parent["subresources"].as_array_mut() {
                Some(list) => list.push(sub),
                None => parent["subresources"] = json!([sub]),
            }
        }
    }
    resources.extend(custom::aggregated(server.registry(), group, version));
    json!({"version": version, "resources": resources, "freshness": "Current"})
}

fn aggregated_resource(fact: &ResourceFact) -> Value {
    let scope = if fact.namespaced { "Namespaced" } else { "Cluster" };
    let mut out = json!({"resource": fact.resource, "responseKind": response_kind(fact), "scope": scope,
        "singularResource": fact.singular, "verbs": fact.verbs});
    for (field, list) in [("shortNames", fact.short_names), ("categories", fact.categories)] {
        if !list.is_empty() {
            out[field] = json!(list);
        }
    }
    out
}

/// The group and version are left out where they are those of the resource.
fn response_kind(fact: &ResourceFact) -> Value {
    let same = (fact.kind_group, fact.kind_version) == (fact.group, fact.version);
    let (group, version) = if same { ("", "") } else { (fact.kind_group, fact.kind_version) };
    json!({"group": group, "version": version, "kind": fact.kind})
}

async fn openapi(server: &ApiServer, request: &Request, parts: &[&str]) -> Result<Response<Body>, Status> {
    get_only(request)?;
    let accept = request.headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    let below = request.info.path.ends_with('/');
    match parts {
        ["openapi", "v3", ..] if below => Ok(no_document()),
        _ if below => Ok(answer::text(404, NOT_FOUND)),
        ["openapi", "v2"] if accept.contains(OPENAPI_PROTOBUF) => {
            let document = aggregator::openapi::Version2::new(server);
            let tag = format!("{}P", document.hash());
            Ok(tagged(request, &tag, || document.protobuf().into(), OPENAPI_PROTOBUF_TYPE))
        }
        ["openapi", "v2"] => {
            let document = aggregator::openapi::Version2::new(server);
            Ok(tagged(request, &document.hash(), || document.json().into(), "application/json"))
        }
        ["openapi", "v3"] => {
            let mut index = schema::openapi_v3_index();
            crate::custom::openapi::add_to_index(server.registry(), &mut index);
            aggregator::openapi::add_to_index(server, &mut index);
            let bytes = Bytes::from(serde_json::to_vec(&index).map_err(Status::internal)?);
            Ok(typed(answer::bytes(request, 200, Format::Json, bytes), "text/plain; charset=utf-8"))
        }
        ["openapi", "v3", rest @ ..] => {
            let path = rest.join("/");
            if let Some(answer) = aggregator::openapi::v3(server, request, &path).await {
                return answer;
            }
            if let Some((tag, document)) = crate::custom::openapi::document(server.registry(), &path) {
                return Ok(openapi_v3(request, accept, &path, &tag, || document.into()));
            }
            let Some(tag) = schema::openapi_v3_hash(&path) else { return Ok(no_document()) };
            let make = || schema::openapi_v3(&path).unwrap_or_default().into();
            Ok(openapi_v3(request, accept, &path, &tag, make))
        }
        _ => Ok(answer::text(404, NOT_FOUND)),
    }
}

/// The answer where no group has a document: nothing at all.
fn no_document() -> Response<Body> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

/// A document that the index names by its hash: one of an old hash has moved to that of the new.
fn openapi_v3(
    request: &Request,
    accept: &str,
    path: &str,
    tag: &str,
    make: impl FnOnce() -> Bytes,
) -> Response<Body> {
    const SERVED: [&str; 4] = ["application/json", "application/com.github.proto-openapi", "application/*", "*/*"];
    let (hash, asked) = (tag.to_uppercase(), request.query.get("hash"));
    let acceptable = accept.split(',').any(|one| SERVED.iter().any(|served| one.trim().starts_with(served)));
    let mut response = if !acceptable && !accept.is_empty() {
        let mut response = answer::bytes(request, 406, Format::Json, Bytes::new());
        response.headers_mut().remove(CONTENT_TYPE);
        response
    } else if !asked.is_empty() && !asked.eq_ignore_ascii_case(&hash) {
        let mut response = typed(answer::bytes(request, 301, Format::Json, Bytes::new()), "application/json");
        if let Ok(place) = HeaderValue::from_str(&format!("/openapi/v3/{path}?hash={hash}")) {
            response.headers_mut().insert(LOCATION, place);
        }
        response
    } else {
        tagged(request, tag, make, "application/json")
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    response
}

fn with_etag(request: &Request, document: &Value, name: &'static str) -> Result<Response<Body>, Status> {
    get_only(request)?;
    let bytes = Bytes::from(serde_json::to_vec(document).map_err(Status::internal)?);
    Ok(tagged(request, &pki::sha256_hex(&bytes), || bytes, name))
}

/// A document with a tag; 304, without making it, when the client has it already.
fn tagged(request: &Request, tag: &str, make: impl FnOnce() -> Bytes, name: &'static str) -> Response<Body> {
    let tag = format!("\"{}\"", tag.to_uppercase());
    let known = request.headers.get(IF_NONE_MATCH).and_then(|v| v.to_str().ok()).is_some_and(|v| v.contains(&tag));
    let mut response = if known {
        answer::bytes(request, 304, Format::Json, Bytes::new())
    } else {
        answer::bytes(request, 200, Format::Json, make())
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    typed(response, name)
}
