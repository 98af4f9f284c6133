//! Who may write which part of a claim's status.

use apiserver::UserInfo;
use http::Request;
use kube::client::Body;
use serde_json::{Value, json};
use std::time::Duration;
use testing::ControlPlane;
use tower::ServiceExt;

const GROUP: &str = "resource.k8s.io";
const CLAIMS: &str = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

struct Server(ControlPlane);

impl Server {
    async fn send(&self, user: UserInfo, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder().method(method).uri(path).header("content-type", kind);
        let request = request.body(Body::from(body.to_string().into_bytes())).expect("request");
        let answer = self.0.server.service(user).oneshot(request).await.expect("an answer");
        let status = answer.status().as_u16();
        let bytes = http_body_util::BodyExt::collect(answer.into_body()).await.expect("body").to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    async fn make(&self, path: &str, body: &Value) {
        let (status, answer) = self.send(UserInfo::admin(), "POST", path, body).await;
        assert_eq!(status, 201, "{answer}");
    }

    /// A user who may write the status of claims, and this besides.
    async fn user(&self, name: &str, resource: &str, verbs: Value, names: Value) -> UserInfo {
        let status = json!({"apiGroups": [GROUP], "resources": ["resourceclaims/status"], "verbs": ["patch"]});
        let more = json!({"apiGroups": [GROUP], "resources": [resource], "verbs": verbs, "resourceNames": names});
        let role = json!({"metadata": {"name": name}, "rules": [status, more]});
        self.make(&format!("{RBAC}/clusterroles"), &role).await;
        let reference = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name});
        let subject = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name});
        let binding = json!({"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]});
        self.make(&format!("{RBAC}/clusterrolebindings"), &binding).await;
        UserInfo::new(name, &[])
    }

    /// The causes of the refusal; none when the status was written. Until roles are known, everything is forbidden.
    async fn write(&self, user: &UserInfo, status: Value) -> Vec<Value> {
        let body = json!({"status": status});
        for _ in 0..100 {
            let (code, answer) = self.send(user.clone(), "PATCH", &format!("{CLAIMS}/c/status"), &body).await;
            match code {
                403 => tokio::time::sleep(Duration::from_millis(20)).await,
                200 => return Vec::new(),
                _ => return answer["details"]["causes"].as_array().cloned().unwrap_or_default(),
            }
        }
        panic!("the role is never known");
    }
}

fn told(driver: &str) -> Value {
    json!({"driver": driver, "pool": "p", "device": "x"})
}

#[tokio::test]
async fn each_part_is_its_writers() {
    let server = Server(ControlPlane::start().await.expect("server"));
    let request = json!({"name": "r", "exactly": {"deviceClassName": "k"}});
    let claim = json!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": [request]}}});
    server.make(CLAIMS, &claim).await;
    let none = server.user("none", "resourceclaims/none", json!(["patch"]), json!([])).await;
    let binder = server.user("binder", "resourceclaims/binding", json!(["patch"]), json!([])).await;
    let driver =
        server.user("driver", "resourceclaims/driver", json!(["arbitrary-node:patch"]), json!(["d.test"])).await;
    let account = "system:serviceaccount:default:driver";
    let mut local =
        server.user(account, "resourceclaims/driver", json!(["associated-node:patch"]), json!(["d.test"])).await;

    let result = |driver: &str| json!({"request": "r", "driver": driver, "pool": "p", "device": "x"});
    let field = json!({"key": "metadata.name", "operator": "In", "values": ["n"]});
    let selector = json!({"nodeSelectorTerms": [{"matchFields": [field]}]});
    let results = [result("d.test"), result("e.test")];
    let allocation = json!({"allocation": {"nodeSelector": selector, "devices": {"results": results}}});
    let refused = server.write(&none, allocation.clone()).await;
    let why = "Forbidden: changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", \
               verb=\"patch\" permission: resourceclaims.resource.k8s.io is forbidden: User \"none\" cannot patch resource \
               \"resourceclaims/binding\" in API group \"resource.k8s.io\" at the cluster scope";
    assert_eq!(refused, [json!({"reason": "FieldValueForbidden", "field": "status.allocation", "message": why})]);
    assert_eq!(server.write(&binder, allocation).await, [Value::Null; 0]);

    let refused = server.write(&driver, json!({"devices": [told("d.test"), told("e.test")]})).await;
    let why = "Forbidden: changing status.devices requires resource=\"resourceclaims/driver\", \
               verb=\"[arbitrary-node:patch]\" permission: resourceclaims.resource.k8s.io \"e.test\" is forbidden: User \
               \"driver\" cannot arbitrary-node:patch resource \"resourceclaims/driver\" in API group \
               \"resource.k8s.io\" in the namespace \"default\"";
    assert_eq!(refused, [json!({"reason": "FieldValueForbidden", "field": "status.devices", "message": why})]);
    assert_eq!(server.write(&driver, json!({"devices": [told("d.test")]})).await, [Value::Null; 0]);

    let mut changed = told("d.test");
    changed["data"] = json!({"a": 1});
    assert_eq!(server.write(&local, json!({"devices": [changed]})).await.len(), 1, "it runs on no node");
    local.extra.insert("authentication.kubernetes.io/node-name".into(), vec!["n".into()]);
    assert_eq!(server.write(&local, json!({"devices": [changed]})).await, [Value::Null; 0]);

    assert_eq!(server.write(&binder, json!({"allocation": null})).await, [Value::Null; 0]);
    let (_, answer) = server.send(UserInfo::admin(), "GET", &format!("{CLAIMS}/c"), &Value::Null).await;
    assert_eq!(answer["status"], json!({}), "what was told of devices goes with them");
}
