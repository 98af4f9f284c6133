//! The chain: what every request goes through before its handler, in one function ([`admitted`]).

use crate::audit::policy::{Stage, Verdict};
use crate::audit::{Completion, Record};
use crate::authn::{self, Connection, UserInfo, impersonation};
use crate::authz::{self, Attributes};
use crate::body::{self, Body};
use crate::fairness::{self, Admission, Class, Ticket, Watching};
use crate::handlers::{self, Request, answer};
use crate::metrics::requests::{self as metrics, Labels, Running};
use crate::onward::SentOn;
use crate::query::Query;
use crate::request_info::RequestInfo;
use crate::server::ApiServer;
use crate::tls::Remote;
use crate::{aggregator, deadline, discovery, health};
use api::Status;
use api::selector::FieldSelector;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::upgrade::OnUpgrade;
use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
const FLOW_SCHEMA: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const PRIORITY_LEVEL: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// Answers a request that comes over a connection.
///
/// A read ends when nobody waits for its answer any more, and so does what goes on for long. A write goes on in a task of
/// its own: given up half way, it would free addresses that a stored service has, and keep quota that nothing uses.
pub fn handle(
    server: Arc<ApiServer>,
    request: http::Request<Body>,
    connection: Connection,
) -> BoxFuture<'static, Response<Body>> {
    let request = read(request);
    let long = deadline::is_long_running(&request.info);
    let ends_with_client = request.method.is_safe() || long;
    let answered = answer(server, request, connection, long);
    if ends_with_client {
        // Boxed once here: the callers' futures stay small.
        return Box::pin(answered);
    }
    let task = tokio::spawn(answered);
    // The task itself does not panic: the runtime has ended.
    Box::pin(async move { task.await.unwrap_or_else(|_| answer::text(503, "the server is stopping\n")) })
}

/// What a request has on its way besides its answer.
#[derive(Default)]
struct Way {
    /// How fairness classified it.
    class: Option<Class>,
    /// How long it waited for its turn.
    waited: Duration,
    /// Kept until an answer that goes on has ended.
    guards: Vec<Box<dyn Any + Send>>,
}

async fn answer(
    server: Arc<ApiServer>,
    mut request: Request,
    connection: Connection,
    long: bool,
) -> Response<Body> {
    let began = Instant::now();
    let mut way = Way::default();
    let completion = Completion::new(server.auditor().clone(), &mut request);
    let admitted = admitted_in_time(&server, completion.request, &connection, &mut way, long);
    let admitted = AssertUnwindSafe(admitted).catch_unwind().await;
    completion.hand_on();
    let request = Arc::new(request);
    let completion = Completion::new(server.auditor().clone(), request.clone());
    let guarded = match admitted {
        Ok(Ok(seat)) => AssertUnwindSafe(handled_in_time(&server, &request, seat)).catch_unwind().await,
        Ok(Err(refused)) => Ok(refused),
        Err(panic) => Err(panic),
    };
    let result = guarded.unwrap_or_else(|_| {
        tracing::error!(path = request.info.path, verb = request.info.verb, "a handler panicked");
        let why = "This request caused apiserver to panic. Look in the logs for details.";
        request.audit.note(|state| state.code = 500);
        server.auditor().process(&request, Stage::Panic);
        Err(Status::new(500, "InternalError", why))
    });
    let mut response = result.unwrap_or_else(|status| {
        let response = answer::failure(&request, &status);
        request.audit.note(|state| state.failure = Some(status));
        response
    });
    answer::add_warnings(&mut response, request.take_warnings());
    add_headers(&mut response, &request, way.class.as_ref());
    let labels = Labels::of(&server, &request);
    let size = response.body().size_hint().exact().filter(|_| !long);
    labels.answered(response.status().as_u16(), size, began.elapsed(), way.waited);
    finish(&server, completion, response, way, (long, labels)).await
}

fn read(request: http::Request<Body>) -> Request {
    let (mut parts, body) = request.into_parts();
    let query = Query::parse(parts.uri.query());
    let info = RequestInfo::new(&parts.method, parts.uri.path(), &query);
    let upgrade = parts.extensions.remove::<OnUpgrade>();
    let remote = parts.extensions.remove::<Remote>().map(|remote| remote.0);
    let uri = parts.uri.path_and_query().map_or_else(String::new, ToString::to_string);
    let record = Record::new(&parts.headers, uri, remote);
    let head = (parts.method, parts.headers, query);
    let mut request = Request::new(head, info, Arc::new(UserInfo::anonymous()), body, upgrade);
    request.audit = record;
    request
}

fn add_headers(response: &mut Response<Body>, request: &Request, class: Option<&Class>) {
    let mut add = |name: &HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    };
    add(&AUDIT_ID, &request.audit.id);
    if let Some(class) = class {
        add(&FLOW_SCHEMA, &class.schema_uid);
        add(&PRIORITY_LEVEL, &class.level_uid);
    }
}

/// Writes the last audit events; what an answer that goes on keeps stays with its body.
async fn finish(
    server: &Arc<ApiServer>,
    completion: Completion<Arc<Request>>,
    response: Response<Body>,
    mut way: Way,
    (long, labels): (bool, Labels),
) -> Response<Body> {
    let request = completion.request.clone();
    body::discard(request.take_body());
    let code = response.status().as_u16();
    request.audit.note(|state| state.code = code);
    let goes_on = long && code < 300;
    if goes_on {
        way.guards.push(Box::new(Running::long(labels)));
        if request.audit.is_audited() {
            server.auditor().process(&request, Stage::ResponseStarted);
            way.guards.push(Box::new(completion));
        }
        let guards = way.guards;
        return response.map(|body| {
            let kept = move |frame| {
                let _ = &guards;
                frame
            };
            body.map_frame(kept).boxed_unsync()
        });
    }
    if code == 504 {
        labels.terminated(code);
    }
    if !request.audit.is_audited() {
        return response;
    }
    // Only what this server has answered itself: what others send may be of any size, and may never end.
    let own = response.extensions().get::<SentOn>().is_none() && response.body().size_hint().exact().is_some();
    let kept = request.audit.wants_answer() && own;
    if kept { kept_answer(&request, response).await } else { response }
}

/// Keeps the body of an answer for the audit log.
async fn kept_answer(request: &Request, response: Response<Body>) -> Response<Body> {
    let (parts, body) = response.into_parts();
    // The server's own bodies cannot fail to be read.
    let Ok(collected) = body.collect().await else { return answer::text(500, "the answer broke off\n") };
    let bytes = collected.to_bytes();
    let kind = parts.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
    request.audit.note(|state| state.answer = Some((bytes.clone(), kind)));
    Response::from_parts(parts, body::full(bytes))
}

/// The answer to a request that goes no further, an error or another.
type Refused = Result<Response<Body>, Status>;

/// As [`admitted`], within the request's time, whose end it gets here.
async fn admitted_in_time(
    server: &Arc<ApiServer>,
    request: &mut Request,
    connection: &Connection,
    way: &mut Way,
    long: bool,
) -> Result<Seat, Refused> {
    let limit = server.config().limits.request_timeout;
    if long {
        return admitted(server, request, connection, way, deadline::patience(limit)).await;
    }
    let time = deadline::of(&request.query, limit).map_err(Err)?;
    let end = tokio::time::Instant::now() + time;
    request.end = Some(end);
    let admitted = admitted(server, request, connection, way, deadline::patience(time));
    tokio::time::timeout_at(end, admitted).await.unwrap_or_else(|_| Err(Err(deadline::overdue())))
}

/// Authentication → audit → impersonation → fairness → authorization.
async fn admitted(
    server: &Arc<ApiServer>,
    request: &mut Request,
    connection: &Connection,
    way: &mut Way,
    patience: Duration,
) -> Result<Seat, Refused> {
    request.user = match authenticated(server, request, connection).await {
        Ok(user) => user,
        Err(status) => {
            unauthenticated(server, request, connection);
            return Err(Err(status));
        }
    };
    // Whom a front proxy speaks for is decided: nothing that this request is sent on to may believe it again.
    server.authn().front_proxy.strip(&mut request.headers);
    received(server, request).map_err(Err)?;
    let user = impersonation::impersonate(server, request.user.clone(), request).await.map_err(Err)?;
    if !Arc::ptr_eq(&user, &request.user) {
        request.audit.note(|state| state.impersonated = Some(user.clone()));
        request.user = user;
    }
    let seat = seated(server, request, way, patience).await.map_err(Ok)?;
    authorized(server, request).await.map_err(Err)?;
    Ok(seat)
}

/// The handler's answer, or that the time was over before there was one. A write goes on even then, with its seat.
async fn handled_in_time(
    server: &Arc<ApiServer>,
    request: &Arc<Request>,
    seat: Seat,
) -> Result<Response<Body>, Status> {
    let (server, own) = (server.clone(), request.clone());
    let mut work = Box::pin(async move {
        let response = handled(&server, &own).await;
        // A watch has begun; what it goes on to send takes no seat.
        drop(seat);
        response
    });
    let Some(end) = request.end else { return work.await };
    if let Ok(response) = tokio::time::timeout_at(end, &mut work).await {
        return response;
    }
    if !request.method.is_safe() {
        tokio::spawn(work);
    }
    Err(deadline::overdue())
}

async fn authenticated(
    server: &ApiServer,
    request: &Request,
    connection: &Connection,
) -> Result<Arc<UserInfo>, Status> {
    let began = Instant::now();
    let user = authn::authenticate(server, connection, request).await;
    metrics::authenticated(user.as_ref().ok().map(|user| user.name.as_str()), began.elapsed());
    user
}

/// Nobody vouches for the sender: of that there is one event, which tells how it was tried.
fn unauthenticated(server: &ApiServer, request: &mut Request, connection: &Connection) {
    request.user = Arc::default();
    let verdict = server.auditor().judge(request);
    let tried = authn::attempted(connection, request);
    request.audit.note(|state| {
        state.verdict = verdict;
        state.code = 401;
        state.failure = Some(Status::new(401, "", tried));
    });
    server.auditor().process(request, Stage::ResponseStarted);
    request.audit.note(|state| state.verdict = Verdict::default());
}

/// The sender is known: whether the request is audited is decided.
fn received(server: &ApiServer, request: &Request) -> Result<(), Status> {
    let verdict = server.auditor().judge(request);
    request.audit.note(|state| {
        state.user = Some(request.user.clone());
        state.verdict = verdict;
    });
    if request.audit.is_audited() && !server.auditor().process(request, Stage::RequestReceived) {
        return Err(Status::internal("failed to store audit event"));
    }
    Ok(())
}

/// A seat, and what counts the request while it has it.
type Seat = (Option<Ticket>, Option<Running>);

/// Waits for a seat; the error is the answer to a request that gets none. Those that go on for long and are no
/// watch take none.
async fn seated(
    server: &Arc<ApiServer>,
    request: &Request,
    way: &mut Way,
    patience: Duration,
) -> Result<Seat, Response<Body>> {
    let info = &request.info;
    let watch = info.verb == "watch";
    if deadline::is_long_running(info) && !watch {
        return Ok((None, None));
    }
    let began = Instant::now();
    let asked = (&request.user, info, &request.query);
    let admission = server.fairness().admit(asked, || stored(server, info), patience).await;
    way.waited = began.elapsed();
    match admission {
        Admission::Run(class, ticket) => {
            way.class = Some(class);
            if watch {
                let watching: Option<Watching> = server.fairness().watches(info, &request.query);
                way.guards.push(Box::new(watching));
            }
            Ok((Some(ticket), Some(Running::short(request))))
        }
        Admission::Refuse(class, seconds) => {
            way.class = Some(class);
            let mut response = answer::text(429, "Too many requests, please try again later.\n");
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
            Err(response)
        }
    }
}

/// What is stored of the resource of a list or watch.
fn stored(server: &ApiServer, info: &RequestInfo) -> Option<fairness::Stats> {
    let lists = matches!(info.verb.as_str(), "list" | "watch");
    let resource = lists.then(|| server.registry().get(&info.group, &info.version, &info.resource))??;
    resource.store.stats()
}

async fn authorized(server: &ApiServer, request: &Request) -> Result<(), Status> {
    let node = selected_node(request);
    let attributes = Attributes::of(&request.user, &request.info);
    let decision = authz::decision(server, &attributes, node.as_deref()).await;
    let allowed = decision.allowed;
    metrics::authorized(allowed);
    if request.audit.is_audited() {
        request.annotate("authorization.k8s.io/decision", if allowed { "allow" } else { "forbid" });
        request.annotate("authorization.k8s.io/reason", decision.reason.clone());
    }
    if allowed { Ok(()) } else { Err(authz::forbidden(&attributes, &decision.reason)) }
}

async fn handled(server: &Arc<ApiServer>, request: &Request) -> Result<Response<Body>, Status> {
    // Another server's write needs no end here, and might never come to one.
    if let Some(answer) = deadline::within(request.end, aggregator::handle(server, request)).await? {
        return Ok(answer);
    }
    if request.info.is_resource && !request.info.resource.is_empty() {
        return handlers::handle(server, request).await;
    }
    if let Some(dump) = fairness::handle_dump(server, request) {
        return Ok(dump);
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
