//! The handlers of the verbs: one file each, and what they share of a request.

pub mod answer;
pub mod create;
pub mod delete;
pub mod delete_collection;
pub mod get;
pub mod list;
pub mod options;
mod parts;
pub mod patch;
pub mod review;
mod review_checks;
pub mod table;
pub mod update;
mod warnings;
pub mod watch;

use crate::audit::Record;
use crate::authn::UserInfo;
use crate::body::{self, Body};
use crate::deadline;
use crate::media::{self, Media};
use crate::query::Query;
use crate::registry::Resource;
use crate::registry::decode::FieldValidation;
use crate::request_info::RequestInfo;
use crate::server::ApiServer;
use crate::subresources;
use api::Status;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Method, Response};
use hyper::upgrade::OnUpgrade;
use jiff::Timestamp;
use parking_lot::Mutex;
use resources::Ctx;
use std::sync::Arc;
use tokio::time::Instant;
use warnings::Warnings;

/// A request on its way through a handler.
pub struct Request {
    /// Method.
    pub method: Method,
    /// What it is about.
    pub info: RequestInfo,
    /// Parameters.
    pub query: Query,
    /// Headers.
    pub headers: HeaderMap,
    /// Who sends it.
    pub user: Arc<UserInfo>,
    /// When it arrived.
    pub now: Timestamp,
    /// When its time is over; one that may go on for long has none.
    pub end: Option<Instant>,
    body: Mutex<Option<Body>>,
    upgrade: Mutex<Option<OnUpgrade>>,
    warnings: Mutex<Warnings>,
    /// What audit events say of it.
    pub audit: Record,
}

impl Request {
    /// Builds a request.
    pub fn new(
        parts: (Method, HeaderMap, Query),
        info: RequestInfo,
        user: Arc<UserInfo>,
        body: Body,
        upgrade: Option<OnUpgrade>,
    ) -> Self {
        let (method, headers, query) = parts;
        Self {
            method,
            info,
            query,
            headers,
            user,
            now: Timestamp::now(),
            end: None,
            body: Mutex::new(Some(body)),
            upgrade: Mutex::new(upgrade),
            warnings: Mutex::default(),
            audit: Record::default(),
        }
    }

    /// A request that the server makes of itself (bootstrap).
    pub fn internal(verb: &str, user: Arc<UserInfo>) -> Self {
        let info = RequestInfo { verb: verb.into(), is_resource: true, ..RequestInfo::default() };
        Self::new((Method::GET, HeaderMap::new(), Query::default()), info, user, body::empty(), None)
    }

    /// Reads the body, once and within the request's time: a write goes on after that, but not for a client that
    /// has yet to say what is to be written.
    pub async fn read_body(&self) -> Result<Bytes, Status> {
        let mut body = self.take_body();
        let read = deadline::within(self.end, body::read(&mut body)).await;
        let bytes = read.inspect_err(|_| body::discard(body))?;
        body::check_weight(&bytes)?;
        if self.audit.wants_body() && !bytes.is_empty() {
            let kind = self.headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
            self.audit.note(|state| state.body = Some((bytes.clone(), kind.to_owned())));
        }
        Ok(bytes)
    }

    /// Takes the body to send it on.
    pub fn take_body(&self) -> Body {
        self.body.lock().take().unwrap_or_else(body::empty)
    }

    /// Takes the connection, when the client asked to upgrade it.
    pub fn take_upgrade(&self) -> Option<OnUpgrade> {
        self.upgrade.lock().take()
    }

    /// Adds a `Warning` header to the answer.
    pub fn warn(&self, text: impl Into<String>) {
        self.warnings.lock().add(text.into());
    }

    /// Adds warnings.
    pub fn warn_all(&self, texts: Vec<String>) {
        texts.into_iter().for_each(|text| self.warn(text));
    }

    /// Adds an annotation to the request's audit event; the first value of a key stays.
    pub fn annotate(&self, key: &str, value: impl Into<String>) {
        self.audit.note(|state| {
            state.annotations.entry(key.to_owned()).or_insert_with(|| value.into());
        });
    }

    /// The warnings so far.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock()).into_texts()
    }

    /// The form of the answer.
    pub fn media(&self) -> Result<Media, Status> {
        let RequestInfo { group, version, resource, .. } = &self.info;
        // Custom resources have no messages of their own.
        let built_in = schema::resource(group, version, resource, "").is_some();
        media::negotiate(&self.headers, &self.query, built_in)
    }

    /// The client's `User-Agent`.
    pub fn user_agent(&self) -> &str {
        self.headers.get(http::header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("")
    }

    /// What a strategy may know of the request.
    pub fn strategy_ctx(&self, dry_run: bool) -> Ctx<'_> {
        Ctx { user: &self.user.name, groups: &self.user.groups, now: self.now, dry_run }
    }

    /// The `fieldValidation` parameter; Warn when it is absent.
    pub fn field_validation(&self) -> Result<FieldValidation, Status> {
        match self.query.get("fieldValidation") {
            "" | "Warn" => Ok(FieldValidation::Warn),
            "Strict" => Ok(FieldValidation::Strict),
            "Ignore" => Ok(FieldValidation::Ignore),
            odd => Err(Status::bad_request(format!("invalid fieldValidation {}", api::quoted(odd)))),
        }
    }
}

/// Finds the handler of a resource request.
pub fn handle<'a>(server: &'a ApiServer, request: &'a Request) -> BoxFuture<'a, Result<Response<Body>, Status>> {
    Box::pin(dispatch(server, request))
}

async fn dispatch(server: &ApiServer, request: &Request) -> Result<Response<Body>, Status> {
    let info = &request.info;
    if let Some(answer) = review::handle(server, request).await? {
        return Ok(answer);
    }
    let Some(resource) = server.registry().get(&info.group, &info.version, &info.resource) else {
        return crate::discovery::nothing(&info.group);
    };
    check_scope(&resource, request)?;
    if let Some(warning) = resource.custom.as_ref().and_then(|custom| custom.warning.as_ref()) {
        request.warn(warning);
    }
    if !info.subresource.is_empty() {
        return subresources::handle(server, request, &resource).await;
    }
    if !resource.has_verb(&info.verb) || !method_fits(request) {
        return Err(Status::method_not_allowed());
    }
    let readable = info.verb != "patch" || patch::PatchType::of(request).is_ok();
    // Custom resources have no routes of their own.
    if resource.custom.is_none() && readable {
        media::check_route(&request.headers, matches!(info.verb.as_str(), "list" | "watch"))?;
    }
    if info.group.is_empty() && info.resource == "endpoints" && readable {
        request.warn("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice");
    }
    match info.verb.as_str() {
        "get" => get::handle(request, &resource).await,
        "list" => list::handle(request, &resource).await,
        "watch" => watch::handle(server, request, &resource).await,
        "create" => create::handle(server, request, &resource).await,
        "update" => update::handle(server, request, &resource).await,
        "patch" => patch::handle(server, request, &resource, "").await,
        "delete" => delete::handle(server, request, &resource).await,
        "deletecollection" => delete_collection::handle(server, request, &resource).await,
        _ => Err(Status::method_not_allowed()),
    }
}

/// Whether the path has the parts that the verb needs: a name, a namespace.
fn method_fits(request: &Request) -> bool {
    let RequestInfo { verb, name, .. } = &request.info;
    let named = matches!(verb.as_str(), "get" | "update" | "patch" | "delete");
    let known = matches!(request.method, Method::GET | Method::POST | Method::PUT | Method::PATCH | Method::DELETE);
    // `watch` may be a part of the path, of any method.
    let watches = verb != "watch" || matches!(request.method, Method::GET | Method::HEAD);
    known && watches && (!named || !name.is_empty()) && !(verb == "create" && !name.is_empty())
}

fn check_scope(resource: &Resource, request: &Request) -> Result<(), Status> {
    let info = &request.info;
    let is_namespaces = info.group.is_empty() && info.resource == "namespaces";
    match (resource.namespaced, info.namespace.is_empty()) {
        (false, false) if !is_namespaces => Err(Status::no_such_path()),
        (true, true) if info.verb == "create" || info.verb == "deletecollection" => Err(Status::method_not_allowed()),
        (true, true) if !matches!(info.verb.as_str(), "list" | "watch") => Err(Status::no_such_path()),
        _ => Ok(()),
    }
}

/// The namespace objects are looked up in: none for cluster scope, also where the path names one (namespaces).
pub fn namespace<'a>(resource: &Resource, request: &'a Request) -> &'a str {
    if resource.namespaced { &request.info.namespace } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, StreamBody};
    use std::time::Duration;

    #[tokio::test]
    async fn a_body_that_does_not_end_is_not_waited_for() {
        let never = StreamBody::new(futures::stream::pending::<Result<http_body::Frame<Bytes>, std::io::Error>>());
        let head = (Method::POST, HeaderMap::new(), Query::default());
        let mut request = Request::new(head, RequestInfo::default(), Arc::default(), never.boxed_unsync(), None);
        request.end = Some(Instant::now() + Duration::from_millis(20));
        let read = tokio::time::timeout(Duration::from_secs(5), request.read_body()).await;
        assert_eq!(read.map(|read| read.map_err(|status| status.code)), Ok(Err(504)));
    }
}
