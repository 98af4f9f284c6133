//! DELETE of one object.

use super::{Request, answer, namespace, options};
use crate::body::Body;
use crate::registry::Resource;
use crate::registry::delete::{Deleted, delete};
use crate::server::ApiServer;
use api::{Object, Status, meta};
use http::Response;
use serde_json::{Value, json};

/// Deletes the object.
pub async fn handle(server: &ApiServer, request: &Request, resource: &Resource) -> Result<Response<Body>, Status> {
    request.media()?;
    let options = options::delete_options(request).await?;
    if options.propagation.is_empty() && options.orphan_dependents.is_none() {
        resource.strategy.deletion_warning().into_iter().for_each(|text| request.warn(text));
    }
    let (namespace, name) = (namespace(resource, request), &request.info.name);
    super::get::check_path_name(name)?;
    let deleted = delete(server, request, resource, namespace, name, &options).await?;
    // A client that asked for foreground deletion in the older way waits for more than this answer.
    let code = if !deleted.gone && options.orphan_dependents == Some(false) { 202 } else { 200 };
    finish(request, resource, &deleted, code)
}

/// Some kinds are answered with, the others with a `Status`.
fn finish(request: &Request, resource: &Resource, deleted: &Deleted, code: u16) -> Result<Response<Body>, Status> {
    if !deleted.gone || returns_object(resource) {
        return answer::object(request, resource, &deleted.stored, code);
    }
    answer::plain(request, code, &success(resource, &resource.whole_object(&deleted.stored)?))
}

fn success(resource: &Resource, object: &Object) -> Value {
    let mut details = json!({"name": meta::name(object), "kind": resource.resource, "uid": meta::uid(object)});
    if !resource.group.is_empty() {
        details["group"] = resource.group.as_str().into();
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// The kinds whose deletion is answered with the object.
fn returns_object(resource: &Resource) -> bool {
    match resource.group.as_str() {
        "" => matches!(
            resource.resource.as_str(),
            "pods"
                | "services"
                | "namespaces"
                | "podtemplates"
                | "persistentvolumes"
                | "persistentvolumeclaims"
                | "serviceaccounts"
                | "resourcequotas"
        ),
        "storage.k8s.io" => resource.resource != "csistoragecapacities",
        "resource.k8s.io" => true,
        _ => false,
    }
}
