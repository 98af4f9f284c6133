//! POST: a new object.

use super::{Request, answer, namespace, options};
use crate::body::Body;
use crate::custom::body;
use crate::registry::{Resource, create};
use crate::server::ApiServer;
use api::Status;
use http::Response;

/// Creates the object of the body.
pub async fn handle(server: &ApiServer, request: &Request, resource: &Resource) -> Result<Response<Body>, Status> {
    request.media()?;
    crate::media::Format::of_content_type(&request.headers).ok_or_else(crate::media::unsupported)?;
    let options = options::write_options(request, "CreateOptions", "")?;
    let object = body(request, resource).await?;
    let namespace = namespace(resource, request);
    let stored = create::create(server, request, resource, namespace, object, &options).await?;
    answer::object(request, resource, &stored, 201)
}
