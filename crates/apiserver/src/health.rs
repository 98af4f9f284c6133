//! `/healthz`, `/livez`, `/readyz` with their checks, `/version`, `/metrics`.

use crate::body::Body;
use crate::handlers::{Request, answer};
use crate::metrics::{self, Family};
use crate::server::ApiServer;
use api::Status;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Response};
use serde_json::json;
use std::fmt::Write;

/// The version that is served; build metadata says who serves it.
pub const GIT_VERSION: &str = "v1.36.0+sagong";

/// Where a check counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    Everywhere,
    /// A server that fails it should get no requests, but need not be started anew.
    Ready,
}

struct Check {
    name: &'static str,
    counts: Where,
    passes: fn(&ApiServer) -> bool,
}

const fn check(name: &'static str, passes: fn(&ApiServer) -> bool) -> Check {
    Check { name, counts: Where::Everywhere, passes }
}

const fn ready(name: &'static str, passes: fn(&ApiServer) -> bool) -> Check {
    Check { name, counts: Where::Ready, passes }
}

const CHECKS: &[Check] = &[
    check("ping", |_| true),
    check("log", |_| true),
    check("etcd", stores),
    ready("etcd-readiness", stores),
    ready("informer-sync", ApiServer::has_begun),
    check("poststarthook/start-apiserver-admission-initializer", ApiServer::has_begun),
    check("poststarthook/generic-apiserver-start-informers", ApiServer::has_begun),
    check("poststarthook/priority-and-fairness-config-consumer", ApiServer::has_begun),
    check("poststarthook/priority-and-fairness-filter", ApiServer::has_begun),
    check("poststarthook/storage-object-count-tracker-hook", ApiServer::has_begun),
    check("poststarthook/start-apiextensions-informers", ApiServer::has_begun),
    check("poststarthook/start-apiextensions-controllers", ApiServer::has_begun),
    check("poststarthook/crd-informer-synced", ApiServer::has_begun),
    check("poststarthook/start-system-namespaces-controller", ApiServer::has_begun),
    check("poststarthook/start-cluster-authentication-info-controller", ApiServer::has_begun),
    check("poststarthook/start-legacy-token-tracking-controller", ApiServer::has_begun),
    check("poststarthook/start-service-ip-repair-controllers", ApiServer::has_begun),
    check("poststarthook/rbac/bootstrap-roles", ApiServer::has_begun),
    check("poststarthook/scheduling/bootstrap-system-priority-classes", ApiServer::has_begun),
    check("poststarthook/priority-and-fairness-config-producer", ApiServer::has_begun),
    check("poststarthook/bootstrap-controller", ApiServer::has_begun),
    check("poststarthook/start-kubernetes-service-cidr-controller", ApiServer::has_begun),
    check("poststarthook/start-kube-aggregator-informers", ApiServer::has_begun),
    check("poststarthook/apiservice-status-local-available-controller", ApiServer::has_begun),
    check("poststarthook/apiservice-status-remote-available-controller", ApiServer::has_begun),
    check("poststarthook/apiservice-registration-controller", ApiServer::has_begun),
    check("poststarthook/apiservice-discovery-controller", ApiServer::has_begun),
    check("poststarthook/kube-apiserver-autoregister-controller", ApiServer::has_begun),
    check("autoregister-completion", crate::aggregator::complete),
    check("poststarthook/apiservice-openapi-controller", ApiServer::has_begun),
    check("poststarthook/apiservice-openapiv3-controller", ApiServer::has_begun),
    ready("shutdown", |server| !server.stopping().is_cancelled()),
];

/// The state of each check.
pub static RESULT: Family = Family::gauge(
    "kubernetes_healthcheck",
    "This metric records the result of a single healthcheck.",
    &["name", "type"],
);

/// Notes the state of each check in [`RESULT`].
pub fn observe(server: &ApiServer) {
    for check in CHECKS {
        let passes = if (check.passes)(server) { 1.0 } else { 0.0 };
        let kinds: &[&str] = if check.counts == Where::Ready { &["readyz"] } else { &["healthz", "livez", "readyz"] };
        kinds.iter().for_each(|kind| RESULT.set(&[check.name, kind], passes));
    }
}

fn stores(server: &ApiServer) -> bool {
    server.config().kv.is_healthy()
}

/// Answers requests for health, version and metrics; `None` for all others.
pub async fn handle(server: &ApiServer, request: &Request) -> Result<Option<Response<Body>>, Status> {
    let path = request.info.path.trim_end_matches('/');
    let known = ["/healthz", "/livez", "/readyz", "/version", "/metrics"];
    let Some(root) = known.into_iter().find(|k| path == *k || path.starts_with(&format!("{k}/"))) else {
        return Ok(None);
    };
    let reads = request.method == Method::GET || (request.method == Method::HEAD && root != "/version");
    if !reads {
        return Err(Status::method_not_allowed());
    }
    match (root, path) {
        ("/version", "/version") => answer::plain(request, 200, &version()).map(Some),
        ("/metrics", "/metrics") => Ok(Some(exposition(metrics::text(server).await))),
        ("/metrics", "/metrics/slis") => Ok(Some(exposition(metrics::slis(server)))),
        ("/version" | "/metrics", _) => Ok(None),
        (root, path) => health(server, request, root, path[root.len()..].trim_start_matches('/')).map(Some),
    }
}

fn exposition(text: String) -> Response<Body> {
    let mut response = answer::text(200, text);
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8; escaping=underscores");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// What `/version` says.
pub fn version() -> serde_json::Value {
    json!({"major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "35", "gitVersion": GIT_VERSION,
        "gitCommit": option_env!("SAGONG_COMMIT").unwrap_or("unknown"), "gitTreeState": "clean",
        "buildDate": option_env!("SAGONG_BUILD_DATE").unwrap_or("1970-01-01T00:00:00Z"), "goVersion": "none",
        "compiler": "rustc", "platform": format!("linux/{}", arch())})
}

fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn health(server: &ApiServer, request: &Request, root: &str, only: &str) -> Result<Response<Body>, Status> {
    let checks = || CHECKS.iter().filter(|c| root == "/readyz" || c.counts == Where::Everywhere);
    if !only.is_empty() {
        let Some(check) = checks().find(|c| c.name == only) else {
            return Ok(answer::text(404, crate::discovery::NOT_FOUND));
        };
        return Ok(match (check.passes)(server) {
            true => answer::text(200, "ok"),
            false => answer::text(500, "internal server error: not finished\n"),
        });
    }
    let excluded = request.query.all("exclude");
    let (mut text, mut failed) = (String::new(), false);
    for check in checks() {
        let name = check.name;
        let line = match () {
            () if excluded.contains(&name) => format!("[+]{name} excluded: ok"),
            () if (check.passes)(server) => format!("[+]{name} ok"),
            () => {
                failed = true;
                format!("[-]{name} failed: reason withheld")
            }
        };
        let _ = writeln!(text, "{line}");
    }
    let mut unknown: Vec<_> =
        excluded.iter().filter(|e| checks().all(|c| c.name != **e)).map(|e| format!("{e:?}")).collect();
    if !unknown.is_empty() {
        unknown.sort();
        let _ = writeln!(text, "warn: some health checks cannot be excluded: no matches for {}", unknown.join(","));
    }
    let name = root.trim_start_matches('/');
    if failed {
        return Ok(answer::text(500, format!("{text}{name} check failed\n")));
    }
    let verbose = request.query.has("verbose");
    Ok(answer::text(200, if verbose { format!("{text}{name} check passed\n") } else { "ok".into() }))
}
