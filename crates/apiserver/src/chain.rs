//! The chain: what every request goes through, in one function.

use crate::authn::{self, UserInfo, impersonation};
use crate::authz::{self, Attributes};
use crate::body::Body;
use crate::handlers::{self, Request, answer};
use crate::query::Query;
use crate::request_info::RequestInfo;
use crate::server::ApiServer;
use crate::{discovery, health};
use api::Status;
use api::selector::FieldSelector;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::Response;
use hyper::upgrade::OnUpgrade;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

/// A request that is not long-running is given up after this time.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Answers a request; `connection` is who it comes from, where that is known already.
pub fn handle(
    server: Arc<ApiServer>,
    request: http::Request<Body>,
    connection: Option<Arc<UserInfo>>,
) -> BoxFuture<'static, Response<Body>> {
    // Boxed once here: the callers' futures stay small.
    Box::pin(answer(server, request, connection))
}

async fn answer(
    server: Arc<ApiServer>,
    request: http::Request<Body>,
    connection: Option<Arc<UserInfo>>,
) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    let query = Query::parse(parts.uri.query());
    let info = RequestInfo::new(&parts.method, parts.uri.path(), &query);
    let upgrade = parts.extensions.remove::<OnUpgrade>();
    let head = (parts.method, parts.headers, query);
    let mut request = Request::new(head, info, Arc::new(UserInfo::anonymous()), body, upgrade);

    let guarded = AssertUnwindSafe(within_time(&server, &mut request, connection)).catch_unwind().await;
    let result = guarded.unwrap_or_else(|_| {
        tracing::error!(path = request.info.path, verb = request.info.verb, "a handler panicked");
        let why = "This request caused apiserver to panic. Look in the logs for details.";
        Err(Status::new(500, "InternalError", why))
    });
    let mut response = result.unwrap_or_else(|status| answer::failure(&request, &status));
    answer::add_warnings(&mut response, request.take_warnings());
    response
}

async fn within_time(
    server: &ApiServer,
    request: &mut Request,
    connection: Option<Arc<UserInfo>>,
) -> Result<Response<Body>, Status> {
    if is_long_running(&request.info) {
        return admitted(server, request, connection).await;
    }
    let answered = tokio::time::timeout(TIMEOUT, admitted(server, request, connection)).await;
    answered.unwrap_or_else(|_| {
        Err(Status::timeout("Timeout: request did not complete within requested timeout - context deadline exceeded"))
    })
}

fn is_long_running(info: &RequestInfo) -> bool {
    info.verb == "watch"
        || matches!(info.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy")
}

/// Authentication → impersonation → authorization → handler.
async fn admitted(
    server: &ApiServer,
    request: &mut Request,
    connection: Option<Arc<UserInfo>>,
) -> Result<Response<Body>, Status> {
    let user = authn::authenticate(server, connection, &request.headers).await?;
    let user = impersonation::impersonate(server, user, &request.headers).await?;
    request.user = user;
    let node = selected_node(request);
    authz::check(server, &Attributes::of(&request.user, &request.info), node.as_deref())?;
    if request.info.is_resource && !request.info.resource.is_empty() {
        return handlers::handle(server, request).await;
    }
    match health::handle(server, request).await? {
        Some(answer) => Ok(answer),
        None => discovery::handle(server, request).await,
    }
}

/// The node that a list or watch is limited to by its field selector.
fn selected_node(request: &Request) -> Option<String> {
    let selector = FieldSelector::parse(request.query.get("fieldSelector")).ok()?;
    selector.exact("spec.nodeName").map(str::to_owned)
}
