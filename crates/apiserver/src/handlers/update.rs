//! PUT: a whole object in place of another.

use super::{Request, answer, namespace, options};
use crate::body::Body;
use crate::registry::Resource;
use crate::custom::body;
use crate::registry::update::{Change, Changed, update};
use crate::server::ApiServer;
use crate::store::Preconditions;
use api::{Object, Status, meta};
use http::Response;

/// Replaces the object with that of the body.
pub async fn handle(server: &ApiServer, request: &Request, resource: &Resource) -> Result<Response<Body>, Status> {
    handle_subresource(server, request, resource, "").await
}

/// As [`handle`], by a subresource that takes the object itself.
pub async fn handle_subresource(
    server: &ApiServer,
    request: &Request,
    resource: &Resource,
    subresource: &str,
) -> Result<Response<Body>, Status> {
    request.media()?;
    let options = options::write_options(request, "UpdateOptions", subresource)?;
    let mut object = body(request, resource).await?;
    check_name(&object, &request.info.name)?;
    resource.strategy.default(&mut object);
    let change = Change {
        namespace: namespace(resource, request),
        name: &request.info.name,
        upsert: false,
        unconditional: false,
        preconditions: Preconditions::default(),
    };
    let mut make = |_: Option<&Object>| Ok(Changed { object: object.clone(), tracked: false });
    let outcome = update(server, request, resource, &change, &options, &mut make).await?;
    answer::object(request, resource, &outcome.stored, if outcome.created { 201 } else { 200 })
}

/// The body's name must be that of the path.
pub fn check_name(object: &Object, name: &str) -> Result<(), Status> {
    match meta::name(object) {
        "" => Err(Status::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        ))),
        found if found == name => Ok(()),
        found => Err(Status::bad_request(format!(
            "the name of the object ({found}) does not match the name on the URL ({name})"
        ))),
    }
}
