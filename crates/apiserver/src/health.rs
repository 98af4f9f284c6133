//! `/healthz`, `/livez`, `/readyz`, `/version`, `/metrics`.

use crate::body::Body;
use crate::handlers::{Request, answer};
use crate::server::ApiServer;
use api::Status;
use http::{Method, Response};
use serde_json::json;
use std::fmt::Write;

/// The version that is served; build metadata says who serves it.
pub const GIT_VERSION: &str = "v1.36.0+sagong";

struct Check {
    name: &'static str,
    ready_only: bool,
    passes: fn(&ApiServer) -> bool,
}

const CHECKS: &[Check] = &[
    Check { name: "ping", ready_only: false, passes: |_| true },
    Check { name: "log", ready_only: false, passes: |_| true },
    Check { name: "etcd", ready_only: false, passes: |_| true },
    Check { name: "etcd-readiness", ready_only: true, passes: |_| true },
    Check { name: "informer-sync", ready_only: true, passes: ApiServer::is_ready },
    Check { name: "poststarthook/rbac/bootstrap-roles", ready_only: false, passes: ApiServer::is_ready },
    Check {
        name: "poststarthook/scheduling/bootstrap-system-priority-classes",
        ready_only: false,
        passes: ApiServer::is_ready,
    },
    Check { name: "poststarthook/start-system-namespaces-controller", ready_only: false, passes: ApiServer::is_ready },
    Check { name: "shutdown", ready_only: true, passes: |server| !server.stopping().is_cancelled() },
];

/// Answers requests for health, version and metrics; `None` for all others.
pub async fn handle(server: &ApiServer, request: &Request) -> Result<Option<Response<Body>>, Status> {
    let path = request.info.path.trim_end_matches('/');
    let known = ["/healthz", "/livez", "/readyz", "/version", "/metrics"];
    let Some(root) = known.into_iter().find(|k| path == *k || path.starts_with(&format!("{k}/"))) else {
        return Ok(None);
    };
    if request.method != Method::GET {
        return Err(Status::method_not_allowed());
    }
    match root {
        "/version" => answer::plain(request, 200, &version()).map(Some),
        "/metrics" => Ok(Some(metrics(server).await)),
        root => health(server, request, root, path[root.len()..].trim_start_matches('/')).map(Some),
    }
}

fn version() -> serde_json::Value {
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
    let excluded = request.query.all("exclude");
    let checks = CHECKS.iter().filter(|c| root == "/readyz" || !c.ready_only);
    let checks: Vec<_> = checks.filter(|c| only.is_empty() || c.name == only).collect();
    if checks.is_empty() {
        return Err(Status::no_such_path());
    }
    let (mut text, mut failed) = (String::new(), false);
    for check in checks {
        let line = match () {
            () if excluded.contains(&check.name) => format!("[+]{} excluded: ok", check.name),
            () if (check.passes)(server) => format!("[+]{} ok", check.name),
            () => {
                failed = true;
                format!("[-]{} failed: reason withheld", check.name)
            }
        };
        let _ = writeln!(text, "{line}");
    }
    let name = root.trim_start_matches('/');
    if failed {
        return Ok(answer::text(500, format!("{text}{name} check failed\n")));
    }
    let verbose = request.query.has("verbose");
    Ok(answer::text(200, if verbose { format!("{text}{name} check passed\n") } else { "ok".into() }))
}

/// How many objects there are of each kind, in Prometheus' text form.
async fn metrics(server: &ApiServer) -> Response<Body> {
    let mut text = String::from(
        "# HELP apiserver_resource_objects Number of stored objects at the time of last check split by kind.\n\
         # TYPE apiserver_resource_objects gauge\n",
    );
    let mut rows = server.registry().all();
    rows.sort_by(|a, b| (&a.group, &a.resource).cmp(&(&b.group, &b.resource)));
    for row in rows.iter().filter(|r| r.convert.is_none()) {
        let Ok(count) = row.store.count().await else { continue };
        let (group, resource) = (&row.group, &row.resource);
        let _ = writeln!(text, "apiserver_resource_objects{{group={group:?},resource={resource:?}}} {count}");
    }
    let _ = writeln!(text, "# TYPE kubernetes_build_info gauge\nkubernetes_build_info{{git_version={GIT_VERSION:?}}} 1");
    answer::text(200, text)
}
