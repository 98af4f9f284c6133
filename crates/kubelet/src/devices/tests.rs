//! A plugin on a socket, driven through its life.

use super::*;
use protos::deviceplugin as p;
use protos::deviceplugin::device_plugin_server::{DevicePlugin, DevicePluginServer};
use protos::socket::{self, Services};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, async_trait};

struct Fake;

#[async_trait]
impl DevicePlugin for Fake {
    async fn list_and_watch(
        &self,
        _: Request<p::Empty>,
    ) -> Result<Response<BoxStream<p::ListAndWatchResponse>>, Status> {
        Err(Status::unimplemented("driven by the test"))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<p::PreferredAllocationRequest>,
    ) -> Result<Response<p::PreferredAllocationResponse>, Status> {
        let one = request.into_inner().container_requests.remove(0);
        let mut ids = one.available_device_i_ds;
        ids.reverse();
        let one = p::ContainerPreferredAllocationResponse { device_i_ds: ids };
        Ok(Response::new(p::PreferredAllocationResponse { container_responses: vec![one] }))
    }

    async fn allocate(&self, request: Request<p::AllocateRequest>) -> Result<Response<p::AllocateResponse>, Status> {
        let ids = request.into_inner().container_requests.remove(0).devices_ids;
        let one = p::ContainerAllocateResponse {
            envs: [("IDS".to_owned(), ids.join(","))].into(),
            cdi_devices: vec![p::CdiDevice { name: format!("example.com/x={}", ids[0]) }],
            ..Default::default()
        };
        Ok(Response::new(p::AllocateResponse { container_responses: vec![one] }))
    }
}

async fn manager(dir: &Path, devices: &[&str]) -> (Manager, Arc<Plugin>) {
    let path = dir.join("fake.sock");
    let listener = socket::bind(&path, 0o600).expect("bind");
    tokio::spawn(socket::serve(listener, Services::default().with(DevicePluginServer::new(Fake))));
    let options = p::DevicePluginOptions { get_preferred_allocation_available: true, ..Default::default() };
    let plugin = Arc::new(Plugin::connect(&path, Some(options)).await.expect("connect"));
    let manager = Manager::open(dir);
    manager.connected("example.com/x", plugin.clone());
    let healthy = |id: &&str| ((*id).to_owned(), Device { healthy: true, numa: Vec::new() });
    manager.listed("example.com/x", &plugin, devices.iter().map(healthy).collect());
    (manager, plugin)
}

fn pod(uid: &str, init: usize, main: usize) -> api::k8s::core::v1::Pod {
    let limits = |n: usize| serde_json::json!({"limits": {"example.com/x": n.to_string()}});
    let mut spec = serde_json::json!({"containers": [{"name": "c", "resources": limits(main)}]});
    if init > 0 {
        spec["initContainers"] = serde_json::json!([{"name": "i", "resources": limits(init)}]);
    }
    serde_json::from_value(serde_json::json!({"metadata": {"uid": uid}, "spec": spec})).expect("pod")
}

#[tokio::test]
async fn devices_are_given_once_passed_on_and_given_back() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (manager, plugin) = manager(dir.path(), &["a", "b", "c"]).await;
    let ids = |manager: &Manager, uid: &str, c: &str| -> Vec<String> {
        manager.of_container(uid, c).remove("example.com/x").unwrap_or_default().into_keys().collect()
    };
    manager.allocate(&pod("1", 2, 2), &|_| None).await.expect("allocated");
    assert_eq!(ids(&manager, "1", "i"), ["b", "c"], "as the plugin prefers");
    assert_eq!(ids(&manager, "1", "c"), ["b", "c"], "passed on by the init container");
    let grant = manager.grant("1", "c").await.expect("grant");
    assert_eq!(grant.envs, vec![("IDS".to_owned(), "b,c".to_owned())]);
    assert_eq!(grant.cdi_devices, vec!["example.com/x=b".to_owned()]);
    let refused = manager.allocate(&pod("2", 0, 2), &|_| None).await.expect_err("too many");
    assert_eq!(
        refused.to_string(),
        "Allocate failed due to requested number of devices unavailable for example.com/x. Requested: 2, Available: 1, which is unexpected"
    );
    let again = Manager::open(dir.path());
    assert_eq!(ids(&again, "1", "c"), ["b", "c"], "after a restart");
    assert_eq!(again.amounts()["example.com/x"], (3, 0), "not healthy before the plugin is back");
    manager.release("1");
    manager.allocate(&pod("2", 0, 2), &|_| None).await.expect("free again");
    assert_eq!(manager.amounts()["example.com/x"], (3, 3));
    manager.disconnected("example.com/x", &plugin);
    assert_eq!(manager.amounts()["example.com/x"], (3, 0));
}

#[tokio::test]
async fn devices_are_near_what_else_the_container_has() {
    use crate::resource_managers::HintProvider;
    use crate::resource_managers::topology::Hint;
    let dir = tempfile::tempdir().expect("tempdir");
    let (manager, plugin) = manager(dir.path(), &[]).await;
    let on = |id: &str, node: i64| (id.to_owned(), Device { healthy: true, numa: vec![node] });
    manager.listed("example.com/x", &plugin, [on("a", 0), on("b", 0), on("c", 1), on("d", 1)].into());
    let wishes = |amount: usize| {
        let pod = pod("1", 0, amount);
        let container = pod.spec.as_ref().map(|s| s.containers[0].clone()).expect("container");
        manager.hints(&pod, &container, &[0, 1]).remove("example.com/x").flatten().expect("wishes")
    };
    let hint = |nodes: u64, preferred: bool| Hint { nodes: Some(nodes), preferred };
    assert_eq!(wishes(2), [hint(0b01, true), hint(0b10, true), hint(0b11, false)]);
    assert_eq!(wishes(3), [hint(0b11, true)]);
    let ids = |uid: &str| -> Vec<String> {
        manager.of_container(uid, "c").remove("example.com/x").unwrap_or_default().into_keys().collect()
    };
    manager.allocate(&pod("1", 0, 1), &|_| Some(0b01)).await.expect("allocated");
    assert_eq!(ids("1"), ["b"], "the plugin prefers d, which is far");
    assert_eq!(wishes(1), [hint(0b01, true), hint(0b11, false)], "where it is already");
    manager.allocate(&pod("2", 0, 2), &|_| Some(0b01)).await.expect("allocated");
    assert_eq!(ids("2"), ["a", "d"], "what is near, and the rest from afar");
}

#[tokio::test]
async fn what_one_pod_was_admitted_with_is_not_promised_to_the_next() {
    use crate::resource_managers::HintProvider;
    use crate::resource_managers::topology::bit;
    let dir = tempfile::tempdir().expect("tempdir");
    let (manager, plugin) = manager(dir.path(), &[]).await;
    let device = |id: &str, numa: i64| (id.to_owned(), Device { healthy: true, numa: vec![numa] });
    let devices = [device("a0", 0), device("a1", 0), device("b0", 1), device("b1", 1)];
    manager.listed("example.com/x", &plugin, devices.into());
    let wish = |pod: &api::k8s::core::v1::Pod| {
        let hints = manager.hints(pod, &pod.spec.as_ref().expect("spec").containers[0], &[0, 1]);
        let hints = hints["example.com/x"].clone().expect("wishes");
        hints.into_iter().filter(|h| h.preferred).filter_map(|h| h.nodes).collect::<Vec<_>>()
    };
    let container = |pod: &api::k8s::core::v1::Pod| pod.spec.as_ref().expect("spec").containers[0].clone();
    let (first, second, third) = (pod("first", 0, 2), pod("second", 0, 2), pod("third", 0, 1));
    assert_eq!(wish(&first), [bit(0), bit(1)]);
    manager.set_aside(&first, &container(&first), Some(bit(0)));
    assert_eq!(wish(&second), [bit(1)]);
    manager.set_aside(&second, &container(&second), Some(bit(1)));
    assert!(wish(&third).is_empty());
    // The later pod's worker is faster: it does not take what is near the first.
    manager.allocate(&second, &|_| Some(bit(1))).await.expect("allocated");
    assert_eq!(manager.of_container("second", "c")["example.com/x"].keys().collect::<Vec<_>>(), ["b0", "b1"]);
    manager.allocate(&first, &|_| Some(bit(0))).await.expect("allocated");
    assert_eq!(manager.of_container("first", "c")["example.com/x"].keys().collect::<Vec<_>>(), ["a0", "a1"]);
    manager.release("first");
    assert_eq!(wish(&third), [bit(0)]);
    manager.set_aside(&third, &container(&third), Some(bit(0)));
    manager.give_up(&third);
    assert_eq!(wish(&first), [bit(0)]);
}
