//! Subresources: one file each; those that update the object itself share the handlers of the verbs.

pub mod binding;
mod eviction;
mod links;
mod pages;
mod pod_connect;
mod pod_log;
mod proxy;
pub mod scale;
mod token;
mod upstream;

use crate::body::Body;
use crate::handlers::{Request, get, patch, update};
use crate::registry::Resource;
use crate::server::ApiServer;
use api::Status;
use http::{Method, Response};
use std::sync::Arc;

/// Answers a request for a subresource.
pub async fn handle(server: &ApiServer, request: &Request, resource: &Arc<Resource>) -> Result<Response<Body>, Status> {
    let info = &request.info;
    let unknown = || match resource.custom {
        Some(_) => resource.not_found(&info.name),
        None => Status::no_such_path(),
    };
    let fact = resource.subresource(&info.subresource).ok_or_else(unknown)?;
    let verb = info.verb.as_str();
    // OPTIONS has no verb of its own and goes to where it is meant for.
    let passes = info.subresource == "proxy" && request.method == Method::OPTIONS;
    if !fact.has_verb(verb) && !passes {
        return Err(Status::method_not_allowed());
    }
    if !info.rest.is_empty() && info.subresource != "proxy" {
        return Err(Status::no_such_path());
    }
    let streams = matches!(info.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy");
    let readable = verb != "patch" || patch::PatchType::of(request).is_ok();
    if resource.custom.is_none() && !streams && readable {
        crate::media::check_route(&request.headers, false)?;
    }
    match (resource.resource.as_str(), info.subresource.as_str()) {
        (_, "scale") => scale::handle(server, request, resource).await,
        ("pods", "binding") => binding::handle(server, request, resource).await,
        ("pods", "eviction") => eviction::handle(server, request, resource).await,
        ("pods", "log") => pod_log::handle(server, request, resource).await,
        ("pods", "exec" | "attach" | "portforward") => pod_connect::handle(server, request, resource).await,
        ("pods" | "services" | "nodes", "proxy") => proxy::handle(server, request, resource).await,
        ("serviceaccounts", "token") => token::handle(server, request, resource).await,
        (_, name) => match verb {
            "get" => get::handle(request, resource).await,
            "update" => update::handle_subresource(server, request, resource, name).await,
            "patch" => patch::handle(server, request, resource, name).await,
            _ => Err(Status::method_not_allowed()),
        },
    }
}
