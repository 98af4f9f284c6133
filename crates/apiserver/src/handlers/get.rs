//! GET of one object.

use super::{Request, answer, namespace};
use crate::body::Body;
use crate::registry::Resource;
use crate::store::Freshness;
use api::Status;
use http::Response;

/// Answers with the object.
pub async fn handle(request: &Request, resource: &Resource) -> Result<Response<Body>, Status> {
    let (namespace, name) = (namespace(resource, request), &request.info.name);
    let stored = match request.query.get("resourceVersion") {
        "" => resource.store.get(namespace, name).await?,
        text => {
            let version: u64 = text.parse().map_err(|_| bad_version(text))?;
            let freshness = if version == 0 { Freshness::Any } else { Freshness::NotOlderThan(version) };
            resource.store.get_at(namespace, name, freshness).await?
        }
    };
    let stored = stored.ok_or_else(|| resource.not_found(name))?;
    answer::object(request, resource, &stored, 200)
}

fn bad_version(text: &str) -> Status {
    let why = format!("Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax");
    Status::new(500, "", format!("resourceVersion: {why}"))
}
