//! Every endpoint asks who may use it, and nobody grants what they do not hold.

use apiserver::UserInfo;
use http::{Method, Request};
use kube::client::Body;
use serde_json::{Value, json};
use testing::ControlPlane;

/// What anybody may see.
const PUBLIC: &[&str] = &["/healthz", "/livez", "/readyz", "/version"];
/// What every authenticated user may also see, or ask about themselves.
const DISCOVERY: &[&str] = &["/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/openapi/v2", "/openapi/v3"];
const ABOUT_ONESELF: &[&str] = &["selfsubjectaccessreviews", "selfsubjectreviews", "selfsubjectrulesreviews"];
/// What needs rights.
const GUARDED: &[&str] =
    &["/", "/metrics", "/logs", "/openid/v1/jwks", "/.well-known/openid-configuration", "/debug/pprof", "/nowhere"];

struct Endpoint {
    method: Method,
    path: String,
    about_oneself: bool,
}

/// Resource × verb, subresources included, from the same facts that discovery is made of.
fn endpoints() -> Vec<Endpoint> {
    let mut out = Vec::new();
    for fact in schema::resources() {
        let root = if fact.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", fact.group) };
        let namespace = if fact.namespaced { "/namespaces/default" } else { "" };
        let all = format!("{root}/{}{namespace}/{}", fact.version, fact.resource);
        let one = match fact.subresource {
            "" => format!("{all}/x"),
            subresource => format!("{all}/x/{subresource}"),
        };
        for verb in fact.verbs {
            let (method, path) = match *verb {
                "get" => (Method::GET, one.clone()),
                "list" => (Method::GET, all.clone()),
                "watch" => (Method::GET, format!("{all}?watch=true")),
                "create" if fact.subresource.is_empty() => (Method::POST, all.clone()),
                "create" => (Method::POST, one.clone()),
                "update" => (Method::PUT, one.clone()),
                "patch" => (Method::PATCH, one.clone()),
                "delete" => (Method::DELETE, one.clone()),
                "deletecollection" => (Method::DELETE, all.clone()),
                other => panic!("a verb without a method: {other}"),
            };
            out.push(Endpoint { method, path, about_oneself: ABOUT_ONESELF.contains(&fact.resource) });
        }
    }
    out
}

async fn answer(client: &kube::Client, method: &Method, path: &str, body: Option<&Value>) -> (u16, String) {
    let text = body.map_or_else(String::new, Value::to_string);
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let request = request.body(Body::from(text.into_bytes())).expect("request");
    let response = client.send(request).await.expect("an answer");
    let status = response.status().as_u16();
    let bytes = response.into_body().collect_bytes().await.expect("body");
    let object: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    (status, object["message"].as_str().unwrap_or("").to_owned())
}

#[tokio::test]
async fn every_endpoint_is_guarded() {
    let server = ControlPlane::start().await.expect("start");
    let anonymous = server.server.client(UserInfo::anonymous());
    let nobody = server.server.client(UserInfo::new("nobody", &[]));
    let endpoints = endpoints();
    assert!(endpoints.len() > 400, "{} endpoints", endpoints.len());
    for Endpoint { method, path, about_oneself } in &endpoints {
        let refused = answer(&anonymous, method, path, None).await.0;
        assert!(matches!(refused, 401 | 403), "anonymous {method} {path}: {refused}");
        let status = answer(&nobody, method, path, None).await.0;
        assert_eq!(status == 403, !about_oneself, "nobody {method} {path}: {status}");
    }
    for (paths, by_anonymous, by_nobody) in [(PUBLIC, 200, 200), (DISCOVERY, 403, 200), (GUARDED, 403, 403)] {
        for path in paths {
            assert_eq!(answer(&anonymous, &Method::GET, path, None).await.0, by_anonymous, "anonymous {path}");
            assert_eq!(answer(&nobody, &Method::GET, path, None).await.0, by_nobody, "nobody {path}");
        }
    }
}

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

fn role(kind: &str, name: &str, rules: Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "rules": rules})
}

fn binding(kind: &str, name: &str, role: (&str, &str), user: &str) -> Value {
    let group = "rbac.authorization.k8s.io";
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": role.0, "name": role.1},
        "subjects": [{"kind": "User", "name": user, "apiGroup": group}]})
}

#[tokio::test]
async fn an_update_that_creates_is_a_create() {
    let server = ControlPlane::start().await.expect("start");
    let rules = json!([{"verbs": ["update", "patch"], "apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}]);
    let object = role("ClusterRole", "updater", rules);
    assert_eq!(answer(&server.admin(), &Method::POST, &format!("{RBAC}/clusterroles"), Some(&object)).await.0, 201);
    let object = binding("ClusterRoleBinding", "updater", ("ClusterRole", "updater"), "x");
    assert_eq!(
        answer(&server.admin(), &Method::POST, &format!("{RBAC}/clusterrolebindings"), Some(&object)).await.0,
        201
    );
    let x = server.server.client(UserInfo::new("x", &[]));
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}});
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l";
    let want = "leases.coordination.k8s.io \"l\" is forbidden: User \"x\" cannot create resource \"leases\" in API group \
                \"coordination.k8s.io\" in the namespace \"default\"";
    let mut found = (0, String::new());
    for _ in 0..200 {
        found = answer(&x, &Method::PUT, path, Some(&lease)).await;
        if !found.1.contains("cannot update") {
            break;
        }
        // The authorizer's cache is a moment behind the store.
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(found, (403, want.to_owned()));
    assert_eq!(answer(&server.admin(), &Method::PUT, path, Some(&lease)).await.0, 201);
    // Now that it exists, an update is let through, and refused for what it lacks.
    assert_eq!(answer(&x, &Method::PUT, path, Some(&lease)).await.0, 422);
}

/// A server where `x` may write roles and bindings and get pods.
async fn with_role_writer() -> ControlPlane {
    let server = ControlPlane::start().await.expect("start");
    let admin = server.admin();
    let rules = json!([
        {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]},
        {"verbs": ["create", "update", "patch", "get"], "apiGroups": ["rbac.authorization.k8s.io"],
            "resources": ["roles", "rolebindings", "clusterroles", "clusterrolebindings"]}]);
    let made = [
        ("clusterroles", role("ClusterRole", "writer", rules)),
        (
            "clusterroles",
            role("ClusterRole", "held", json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}])),
        ),
        ("clusterrolebindings", binding("ClusterRoleBinding", "writer", ("ClusterRole", "writer"), "x")),
    ];
    for (resource, object) in made {
        let (status, message) = answer(&admin, &Method::POST, &format!("{RBAC}/{resource}"), Some(&object)).await;
        assert_eq!(status, 201, "{message}");
    }
    // The authorizer's cache is a moment behind the store.
    let x = server.server.client(UserInfo::new("x", &["g"]));
    let mut tries = 0;
    while answer(&x, &Method::GET, "/api/v1/namespaces/default/pods/none", None).await.0 == 403 && tries < 200 {
        tries += 1;
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    server
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_hold() {
    let server = with_role_writer().await;
    let x = server.server.client(UserInfo::new("x", &["g"]));
    let missing = |resource: &str, name: &str, what: &str| {
        format!(
            "{resource}.rbac.authorization.k8s.io {name:?} is forbidden: user \"x\" (groups=[\"g\" \
             \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{what}"
        )
    };
    let pods = json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}]);
    let held = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
    let list_pods = r#"{APIGroups:[""], Resources:["pods"], Verbs:["list"]}"#;
    let everything = "{APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"*\"]}\n{NonResourceURLs:[\"*\"], Verbs:[\"*\"]}";
    let mut aggregate = role("ClusterRole", "aggregate", Value::Null);
    aggregate["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]});
    let local = "namespaces/default/";
    let table = [
        (format!("{local}roles"), role("Role", "r", held), 201, String::new()),
        (format!("{local}roles"), role("Role", "s", pods.clone()), 403, missing("roles", "s", list_pods)),
        ("clusterroles".into(), role("ClusterRole", "s", pods), 403, missing("clusterroles", "s", list_pods)),
        ("clusterroles".into(), aggregate, 403,
            "clusterroles.rbac.authorization.k8s.io \"aggregate\" is forbidden: must have cluster-admin privileges to use \
             the aggregationRule".into()),
        (format!("{local}rolebindings"), binding("RoleBinding", "b", ("ClusterRole", "held"), "y"), 201, String::new()),
        (format!("{local}rolebindings"), binding("RoleBinding", "c", ("ClusterRole", "cluster-admin"), "x"), 403,
            missing("rolebindings", "c", everything)),
        ("clusterrolebindings".into(), binding("ClusterRoleBinding", "c", ("ClusterRole", "cluster-admin"), "x"), 403,
            missing("clusterrolebindings", "c", everything)),
        (format!("{local}rolebindings"), binding("RoleBinding", "d", ("Role", "none"), "x"), 404,
            "roles.rbac.authorization.k8s.io \"none\" not found".into()),
    ];
    for (path, object, status, message) in table {
        let found = answer(&x, &Method::POST, &format!("{RBAC}/{path}"), Some(&object)).await;
        assert_eq!(found, (status, message), "{path} {object}");
    }
    // Neither by a change, nor by an update that creates.
    let wide = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]);
    for name in ["r", "new"] {
        let path = format!("{RBAC}/namespaces/default/roles/{name}");
        let found = answer(&x, &Method::PUT, &path, Some(&role("Role", name, wide.clone()))).await;
        assert_eq!(found, (403, missing("roles", name, r#"{APIGroups:["*"], Resources:["*"], Verbs:["*"]}"#)));
    }
}
