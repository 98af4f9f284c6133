//! GET of one object.

use super::{Request, answer, namespace};
use crate::body::Body;
use crate::registry::Resource;
use crate::store::Freshness;
use api::Status;
use http::Response;

/// Answers with the object.
pub async fn handle(request: &Request, resource: &Resource) -> Result<Response<Body>, Status> {
    request.media()?;
    let (namespace, name) = (namespace(resource, request), &request.info.name);
    check_path_name(name)?;
    let stored = match request.query.get("resourceVersion") {
        "" => resource.store.get(namespace, name).await?,
        text => {
            let version: u64 = super::options::parse_version(text).map_err(|why| bad_version(resource, &why))?;
            let freshness = if version == 0 { Freshness::Any } else { Freshness::NotOlderThan(version) };
            resource.store.get_at(namespace, name, freshness).await?
        }
    };
    let stored = stored.ok_or_else(|| resource.not_found(name))?;
    answer::object(request, resource, &stored, 200)
}

/// Objects that are not cached are read from the store, which words it another way.
fn bad_version(resource: &Resource, why: &str) -> Status {
    match resource.is_events() {
        true => Status::bad_request(format!("invalid resource version: {why}")),
        false => Status::new(500, "", why),
    }
}

/// A name that would lead out of the resource's own paths is no name.
pub fn check_path_name(name: &str) -> Result<(), Status> {
    match resources::names::path_segment(name, false).as_slice() {
        [] => Ok(()),
        why => Err(Status::bad_request(format!("Name parameter invalid: {}: {}", api::quoted(name), why.join(";")))),
    }
}
