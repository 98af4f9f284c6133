//! Metrics of requests.

use super::Family;
use crate::handlers::Request;
use crate::server::ApiServer;
use std::time::Duration;

const TARGET: &[&str] = &["component", "dry_run", "group", "resource", "scope", "subresource", "verb", "version"];
const WITH_CODE: &[&str] =
    &["code", "component", "dry_run", "group", "resource", "scope", "subresource", "verb", "version"];
const WITHOUT_DRY_RUN: &[&str] = &["component", "group", "resource", "scope", "subresource", "verb", "version"];
const CODE_WITHOUT_DRY_RUN: &[&str] =
    &["code", "component", "group", "resource", "scope", "subresource", "verb", "version"];
const SECONDS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
const BYTES: &[f64] = &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

static TOTAL: Family = Family::counter(
    "apiserver_request_total",
    "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, \
     and HTTP response code.",
    WITH_CODE,
);
static DURATION: Family = Family::histogram(
    "apiserver_request_duration_seconds",
    "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope \
     and component.",
    TARGET,
    SECONDS,
);
static SLI_DURATION: Family = Family::histogram(
    "apiserver_request_sli_duration_seconds",
    "Response latency distribution (not counting webhook duration and priority & fairness queue wait times) in seconds \
     for each verb, group, version, resource, subresource, scope and component.",
    WITHOUT_DRY_RUN,
    SECONDS,
);
static SIZE: Family = Family::histogram(
    "apiserver_response_sizes",
    "Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.",
    WITHOUT_DRY_RUN,
    BYTES,
);
static INFLIGHT: Family = Family::gauge(
    "apiserver_current_inflight_requests",
    "Maximal number of currently used inflight request limit of this apiserver per request kind in last second.",
    &["request_kind"],
);
static LONG_RUNNING: Family = Family::gauge(
    "apiserver_longrunning_requests",
    "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and \
     component. Not all requests are tracked this way.",
    WITHOUT_DRY_RUN,
);
/// Requests that were ended before they were answered.
static TERMINATIONS: Family = Family::counter(
    "apiserver_request_terminations_total",
    "Number of requests which apiserver terminated in self-defense.",
    CODE_WITHOUT_DRY_RUN,
);
static DEPRECATED: Family = Family::gauge(
    "apiserver_requested_deprecated_apis",
    "Gauge of deprecated APIs that have been requested, broken out by API group, version, resource, subresource, and \
     removed_release.",
    &["group", "removed_release", "resource", "subresource", "version"],
);
static AUTHENTICATED: Family = Family::counter(
    "authenticated_user_requests",
    "Counter of authenticated requests broken out by username.",
    &["username"],
);
static AUTHENTICATION: Family =
    Family::counter("authentication_attempts", "Counter of authenticated attempts.", &["result"]);
static AUTHENTICATION_DURATION: Family = Family::histogram(
    "authentication_duration_seconds",
    "Authentication duration in seconds broken out by result.",
    &["result"],
    &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384],
);
static AUTHORIZATION: Family = Family::counter(
    "authorization_attempts_total",
    "Counter of authorization attempts broken down by result. It can be either 'allowed', 'denied', 'no-opinion' or \
     'error'.",
    &["result"],
);
/// Handshakes that failed.
pub static HANDSHAKE_ERRORS: Family = Family::counter(
    "apiserver_tls_handshake_errors_total",
    "Number of requests dropped with 'TLS handshake error from' error",
    &[],
);

/// All of them.
pub const ALL: &[&Family] = &[
    &TOTAL,
    &DURATION,
    &SLI_DURATION,
    &SIZE,
    &INFLIGHT,
    &LONG_RUNNING,
    &TERMINATIONS,
    &DEPRECATED,
    &AUTHENTICATED,
    &AUTHENTICATION,
    &AUTHENTICATION_DURATION,
    &AUTHORIZATION,
    &HANDSHAKE_ERRORS,
];

/// What a request is counted as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    dry_run: &'static str,
}

impl Labels {
    /// The labels of a request; what is not served has no names, which are outside words.
    pub fn of(server: &ApiServer, request: &Request) -> Self {
        let info = &request.info;
        let verb = verb(request);
        if !info.is_resource {
            let path = info.path.trim_end_matches('/');
            let known = [
                "/healthz",
                "/livez",
                "/readyz",
                "/version",
                "/metrics",
                "/api",
                "/apis",
                "/openapi/v2",
                "/openapi/v3",
            ];
            let path = known.into_iter().find(|k| *k == path).unwrap_or("");
            return Self { verb, subresource: path.to_owned(), ..Self::default() };
        }
        let dry_run = if request.query.has("dryRun") { "All" } else { "" };
        let resource = server.registry().get(&info.group, &info.version, &info.resource);
        let known = resource.filter(|r| info.subresource.is_empty() || r.subresource(&info.subresource).is_some());
        if known.is_none() {
            return Self { verb, dry_run, ..Self::default() };
        }
        let scope = match () {
            () if !info.name.is_empty() || info.verb == "create" => "resource",
            () if !info.namespace.is_empty() => "namespace",
            () => "cluster",
        };
        Self {
            verb,
            group: info.group.clone(),
            version: info.version.clone(),
            resource: info.resource.clone(),
            subresource: info.subresource.clone(),
            scope,
            dry_run,
        }
    }

    fn without_dry_run(&self) -> [&str; 7] {
        ["apiserver", &self.group, &self.resource, self.scope, &self.subresource, self.verb, &self.version]
    }

    /// Counts an answer.
    pub fn answered(&self, code: u16, size: Option<u64>, took: Duration, waited: Duration) {
        let Self { verb, group, version, resource, subresource, scope, dry_run } = self;
        let (code, seconds) = (code.to_string(), took.as_secs_f64());
        TOTAL.inc(&[&code, "apiserver", dry_run, group, resource, scope, subresource, verb, version]);
        let target = ["apiserver", dry_run, group, resource, scope, subresource, verb, version];
        DURATION.observe(&target, seconds);
        if *verb != "WATCH" && *verb != "CONNECT" {
            SLI_DURATION.observe(&self.without_dry_run(), (took.saturating_sub(waited)).as_secs_f64());
        }
        if let Some(size) = size {
            SIZE.observe(&self.without_dry_run(), size as f64);
        }
        if resource == "endpoints" && group.is_empty() {
            DEPRECATED.set(&[group, "", resource, subresource, version], 1.0);
        }
    }

    /// Counts a request that was given up.
    pub fn terminated(&self, code: u16) {
        let [component, group, resource, scope, subresource, verb, version] = self.without_dry_run();
        TERMINATIONS.inc(&[&code.to_string(), component, group, resource, scope, subresource, verb, version]);
    }
}

fn verb(request: &Request) -> &'static str {
    let info = &request.info;
    match (info.verb.as_str(), request.method.as_str()) {
        ("watch", _) => "WATCH",
        ("list", _) => "LIST",
        ("deletecollection", _) => "DELETECOLLECTION",
        _ if info.is_resource && matches!(info.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy") => {
            "CONNECT"
        }
        (_, "PATCH") => {
            let kind = request.headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
            if kind.starts_with("application/apply-patch") { "APPLY" } else { "PATCH" }
        }
        (_, "GET" | "HEAD") => "GET",
        (_, "POST") => "POST",
        (_, "PUT") => "PUT",
        (_, "DELETE") => "DELETE",
        _ => "other",
    }
}

/// A request that has a seat, or an answer that goes on; counted until this is dropped.
pub struct Running(Kind);

enum Kind {
    Short(&'static str),
    Long(Labels),
}

impl Running {
    /// Counts a request that ends soon.
    pub fn short(request: &Request) -> Self {
        let kind = if request.info.is_read() { "readOnly" } else { "mutating" };
        INFLIGHT.inc(&[kind]);
        Self(Kind::Short(kind))
    }

    /// Counts an answer that goes on.
    pub fn long(labels: Labels) -> Self {
        LONG_RUNNING.inc(&labels.without_dry_run());
        Self(Kind::Long(labels))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        match &self.0 {
            Kind::Short(kind) => INFLIGHT.add(&[kind], -1.0),
            Kind::Long(labels) => LONG_RUNNING.add(&labels.without_dry_run(), -1.0),
        }
    }
}

/// Counts an authentication; service accounts and nodes, of which there are many, are counted together.
pub fn authenticated(user: Option<&str>, took: Duration) {
    let result = if user.is_some() { "success" } else { "failure" };
    AUTHENTICATION.inc(&[result]);
    AUTHENTICATION_DURATION.observe(&[result], took.as_secs_f64());
    if let Some(name) = user {
        let name = match name {
            "admin" | "kube_admin" | "kube-controller-manager" | "kube-scheduler" => name,
            "system:kube-controller-manager" | "system:kube-scheduler" | "system:apiserver" => name,
            _ => "other",
        };
        AUTHENTICATED.inc(&[name]);
    }
}

/// Counts an authorization.
pub fn authorized(allowed: bool) {
    AUTHORIZATION.inc(&[if allowed { "allowed" } else { "no-opinion" }]);
}
