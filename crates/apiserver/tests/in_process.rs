//! The server in memory: the same chain that TCP requests go through, by the client that components use.

use apiserver::UserInfo;
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;
use testing::ControlPlane;

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {"a": "b"}}, "data": {"k": "v"}})).expect("typed")
}

#[tokio::test]
async fn objects_live() {
    let server = ControlPlane::start().await.expect("start");
    let api: Api<ConfigMap> = Api::namespaced(server.admin(), "default");
    let made = api.create(&PostParams::default(), &config_map("x")).await.expect("create");
    assert!(made.metadata.uid.is_some() && made.metadata.resource_version.is_some());
    let patch = Patch::Merge(json!({"data": {"k": "w"}}));
    let patched = api.patch("x", &PatchParams::default(), &patch).await.expect("patch");
    assert_eq!(patched.data.as_ref().and_then(|d| d.get("k")).map(String::as_str), Some("w"));
    let mut stale = made.clone();
    stale.data = None;
    let error = api.replace("x", &PostParams::default(), &stale).await.expect_err("an old version is refused");
    assert!(matches!(error, kube::Error::Api(status) if status.code == 409));
    let list = api.list(&ListParams::default().labels("a=b")).await.expect("list");
    assert_eq!(list.items.len(), 1);
    api.delete("x", &DeleteParams::default()).await.expect("delete");
    assert!(api.get_opt("x").await.expect("get").is_none());
}

#[tokio::test]
async fn watches_see_every_change() {
    let server = ControlPlane::start().await.expect("start");
    let api: Api<ConfigMap> = Api::namespaced(server.admin(), "default");
    let start = api.list(&ListParams::default()).await.expect("list").metadata.resource_version.expect("version");
    let mut watch = Box::pin(api.watch(&WatchParams::default(), &start).await.expect("watch"));
    api.create(&PostParams::default(), &config_map("x")).await.expect("create");
    api.delete("x", &DeleteParams::default()).await.expect("delete");
    let mut seen = Vec::new();
    while seen.len() < 2 {
        match watch.try_next().await.expect("event").expect("open") {
            WatchEvent::Added(_) => seen.push("added"),
            WatchEvent::Deleted(_) => seen.push("deleted"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, ["added", "deleted"]);
}

#[tokio::test]
async fn users_may_do_what_roles_say() {
    let server = ControlPlane::start().await.expect("start");
    let namespaces: Api<Namespace> = Api::all(server.server.client(UserInfo::new("nobody", &[])));
    let error = namespaces.list(&ListParams::default()).await.expect_err("no role");
    let want = "namespaces is forbidden: User \"nobody\" cannot list resource \"namespaces\" in API group \"\" at the cluster scope";
    assert!(matches!(&error, kube::Error::Api(status) if status.message == want), "{error}");
    let scheduler = server.server.client(UserInfo::new("system:kube-scheduler", &[]));
    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(scheduler);
    nodes.list(&ListParams::default()).await.expect("a default role allows it");
}

#[tokio::test]
async fn services_get_addresses_once() {
    let server = ControlPlane::start().await.expect("start");
    let api: Api<Service> = Api::namespaced(server.admin(), "default");
    let service = |name: &str, ip: &str| -> Service {
        let mut spec = json!({"type": "NodePort", "ports": [{"port": 80}]});
        if !ip.is_empty() {
            spec["clusterIP"] = ip.into();
        }
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).expect("typed")
    };
    let made = api.create(&PostParams::default(), &service("a", "")).await.expect("create").spec.expect("spec");
    let (ip, port) = (made.cluster_ip.expect("address"), made.ports.expect("ports")[0].node_port.expect("port"));
    assert!(ip.starts_with("10.96.") && (30000..=32767).contains(&port), "{ip} {port}");
    assert!(api.create(&PostParams::default(), &service("b", &ip)).await.is_err(), "the address is taken");
    api.delete("a", &DeleteParams::default()).await.expect("delete");
    api.create(&PostParams::default(), &service("b", &ip)).await.expect("the address is free again");
}
