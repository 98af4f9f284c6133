//! Decisions in clusters whose objects the test gives; what is written is recorded.

use super::*;
use api::k8s::core::v1::{Node, Pod};
use informer::{Event, InformerFactory};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};

const CLAIMS: &str = "/apis/resource.k8s.io/v1/resourceclaims";
const CLASSES: &str = "/apis/resource.k8s.io/v1/deviceclasses";
const SLICES: &str = "/apis/resource.k8s.io/v1/resourceslices";

/// `METHOD path` and body of each write.
type Writes = Arc<Mutex<Vec<(String, Value)>>>;

struct Cluster {
    scheduler: Scheduler,
    writes: Writes,
    /// Informers end with it.
    _factory: Arc<InformerFactory>,
}

/// Lists are the given objects; watches never say anything; writes succeed, except for bindings where `binds` is not set.
async fn answer(
    objects: Arc<Vec<(&str, Value)>>,
    writes: Writes,
    binds: bool,
    request: http::Request<Body>,
) -> (u16, Value) {
    let (path, method) = (request.uri().path().to_owned(), request.method().clone());
    if method == http::Method::GET {
        if request.uri().query().is_some_and(|q| q.contains("watch=")) {
            return std::future::pending().await;
        }
        let items: Vec<&Value> = objects.iter().filter(|(of, _)| *of == path).map(|(_, object)| object).collect();
        return (200, json!({"metadata": {"resourceVersion": "1"}, "items": items}));
    }
    let body = request.into_body().collect_bytes().await.expect("body");
    let mut body: Value = serde_json::from_slice(&body).expect("JSON");
    writes.lock().push((format!("{method} {path}"), body.clone()));
    if path.ends_with("/binding") && !binds {
        return (500, json!({"kind": "Status", "status": "Failure", "message": "no", "code": 500}));
    }
    if method == http::Method::POST {
        body["metadata"]["name"] = "made".into();
        body["metadata"]["uid"] = "made".into();
    }
    body["metadata"]["resourceVersion"] = "6".into();
    (200, body)
}

impl Cluster {
    async fn new(objects: Vec<(&'static str, Value)>, binds: bool) -> Self {
        let (objects, writes) = (Arc::new(objects), Writes::default());
        let record = writes.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let answer = answer(objects.clone(), record.clone(), binds, request);
            async move {
                let (status, body) = answer.await;
                let response = http::Response::builder().status(status).body(Body::from(body.to_string().into_bytes()));
                response.map_err(std::io::Error::other)
            }
        });
        let client = kube::Client::new(service, "n");
        let factory = InformerFactory::new(client.clone());
        let handle = Handle::new(&factory, client);
        handle.synced().await;
        Self { scheduler: Scheduler::new(handle), writes, _factory: factory }
    }

    fn node(&mut self, name: &str, spec: Value) {
        let status = json!({"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}});
        let node = json!({"metadata": {"name": name}, "spec": spec, "status": status});
        self.scheduler.on_node(Event::Added(Arc::new(serde_json::from_value::<Node>(node).expect("node"))));
    }

    fn place(&self, spec: Value) -> String {
        self.scheduler.place(&PodInfo::new(pod(spec))).unwrap_or_else(|unplaced| unplaced.message)
    }

    /// Places a pod and binds it.
    async fn bind(&mut self, spec: Value) -> Result<(), String> {
        let pod = pod(spec);
        let node = self.scheduler.place(&PodInfo::new(pod.clone())).map_err(|u| u.message)?;
        let queued = QueuedPod { pod: pod.clone(), attempts: 1, added: Instant::now(), rejected_by: Vec::new() };
        self.scheduler.start_binding(queued, PodInfo::new(pod), node);
        self.scheduler.outcomes.recv().await.expect("outcome").result
    }

    /// Those of the API server's objects, not of events.
    fn written(&self) -> Vec<String> {
        let writes = self.writes.lock();
        writes.iter().map(|(what, _)| what.clone()).filter(|what| !what.contains("events")).collect()
    }

    fn body(&self, what: &str) -> Value {
        let writes = self.writes.lock();
        writes.iter().find(|(of, _)| of == what).map(|(_, body)| body.clone()).unwrap_or_default()
    }
}

fn pod(mut spec: Value) -> Arc<Pod> {
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{"name": "c", "image": "i"}]);
    }
    let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "p"}, "spec": spec});
    Arc::new(serde_json::from_value(pod).expect("pod"))
}

fn class(extended: Option<&str>) -> (&'static str, Value) {
    (CLASSES, json!({"metadata": {"name": "gpu"}, "spec": {"extendedResourceName": extended}}))
}

/// A slice of one device with a size on a node.
fn slice(node: &str, size: &str) -> (&'static str, Value) {
    let device = json!({"name": "x", "attributes": {"size": {"string": size}}});
    let pool = json!({"name": node, "generation": 1, "resourceSliceCount": 1});
    (
        SLICES,
        json!({"metadata": {"name": node}, "spec": {"driver": "d", "pool": pool, "nodeName": node, "devices": [device]}}),
    )
}

fn claim(requests: Value, status: Value) -> (&'static str, Value) {
    let metadata = json!({"name": "c", "namespace": "n", "uid": "c", "resourceVersion": "1"});
    (CLAIMS, json!({"metadata": metadata, "spec": {"devices": {"requests": requests}}, "status": status}))
}

fn exactly() -> Value {
    json!([{"name": "r", "exactly": {"deviceClassName": "gpu"}}])
}

/// An allocation of the device of a node.
fn allocation(node: &str) -> Value {
    let fields = json!([{"key": "metadata.name", "operator": "In", "values": [node]}]);
    let result = json!({"request": "r", "driver": "d", "pool": node, "device": "x"});
    json!({"devices": {"results": [result]}, "nodeSelector": {"nodeSelectorTerms": [{"matchFields": fields}]}})
}

fn with_claim() -> Value {
    json!({"resourceClaims": [{"name": "c", "resourceClaimName": "c"}]})
}

const STATUS: &str = "PUT /apis/resource.k8s.io/v1/namespaces/n/resourceclaims/c/status";

#[tokio::test]
async fn an_allocation_that_keeps_the_pod_from_free_devices_is_given_back() {
    let check = async |users: Value, expect: &str| {
        let status = json!({"allocation": allocation("a"), "reservedFor": users});
        let mut cluster = Cluster::new(vec![class(None), slice("b", "s"), claim(exactly(), status)], true).await;
        cluster.node("a", json!({"unschedulable": true}));
        cluster.node("b", json!({}));
        let message = cluster.place(with_claim());
        let why = "0/2 nodes are available: 1 node(s) were unschedulable, 1 resourceclaim not available on the node.";
        assert!(message.starts_with(&format!("{why} {expect}")), "{message}");
        tokio::task::yield_now().await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let body = cluster.body(STATUS);
        assert_eq!(body["metadata"]["name"] == "c" && body["status"].is_null(), expect.starts_with("deallocation"));
    };
    check(json!([]), "deallocation of ResourceClaim completed").await;
    check(json!([{"resource": "pods", "name": "q", "uid": "q"}]), "still not schedulable").await;
}

#[tokio::test]
async fn an_allocation_whose_device_failed_is_given_back() {
    let check = async |failed: &str, since: String, expect: bool| {
        let mut of_device = allocation("a");
        of_device["allocationTimestamp"] = since.into();
        of_device["devices"]["results"][0]["bindingConditions"] = json!(["Attached"]);
        of_device["devices"]["results"][0]["bindingFailureConditions"] = json!(["Broken"]);
        let conditions = json!([{"type": "Broken", "status": failed, "reason": "r", "message": "m",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        let device = json!({"driver": "d", "pool": "a", "device": "x", "conditions": conditions});
        let status = json!({"allocation": of_device, "devices": [device]});
        let mut cluster = Cluster::new(vec![class(None), slice("a", "s"), claim(exactly(), status)], true).await;
        cluster.node("a", json!({}));
        let message = cluster.place(with_claim());
        assert_eq!(message.contains("deallocation of ResourceClaim completed"), expect, "{message}");
    };
    let now = || jiff::Timestamp::now().to_string();
    check("True", now(), true).await;
    check("False", now(), false).await;
    check("False", "2026-01-01T00:00:00Z".into(), true).await;
}

#[tokio::test]
async fn nodes_that_serve_earlier_alternatives_are_better() {
    let sub = |name: &str| {
        let selector = format!("device.attributes['d'].size == '{name}'");
        json!({"name": name, "deviceClassName": "gpu", "selectors": [{"cel": {"expression": selector}}]})
    };
    let requests = json!([{"name": "r", "firstAvailable": [sub("large"), sub("small")]}]);
    let objects =
        vec![class(None), slice("a", "small"), slice("b", "large"), slice("c", "small"), claim(requests, json!({}))];
    let mut cluster = Cluster::new(objects, true).await;
    ["a", "b", "c"].iter().for_each(|name| cluster.node(name, json!({})));
    assert_eq!(cluster.place(with_claim()), "b");
}

#[tokio::test]
async fn a_claim_is_released_by_what_was_written_not_by_what_was_seen() {
    let mut cluster = Cluster::new(vec![class(None), slice("a", "s"), claim(exactly(), json!({}))], false).await;
    cluster.node("a", json!({}));
    let error = cluster.bind(with_claim()).await.expect_err("no binding");
    assert!(error.starts_with("running Bind plugin \"DefaultBinder\": "), "{error}");
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert_eq!(cluster.body(STATUS)["status"]["reservedFor"][0]["uid"], "p");
    let patch = cluster.body(&STATUS.replace("PUT", "PATCH"));
    assert_eq!(patch["status"]["reservedFor"], json!([{"$patch": "delete", "uid": "p"}]));
    // It is written; only the informer does not show it.
    assert!(cluster.place(with_claim()).contains("resource claim n/c is in the process of being allocated"));
}

#[tokio::test(start_paused = true)]
async fn extended_resources_come_from_device_classes() {
    let objects = || vec![class(Some("x.example.com/gpu")), slice("b", "s")];
    let wants = |count: &str| {
        let resources = json!({"requests": {"x.example.com/gpu": count}, "limits": {"x.example.com/gpu": count}});
        json!({"containers": [{"name": "c", "image": "i", "resources": resources}]})
    };
    let mut cluster = Cluster::new(objects(), true).await;
    cluster.node("a", json!({}));
    cluster.node("b", json!({}));
    assert!(cluster.place(wants("2")).starts_with("0/2 nodes are available: 2 cannot allocate all claims."));
    cluster.bind(wants("1")).await.expect("bound");
    let claims = "/apis/resource.k8s.io/v1/namespaces/n/resourceclaims";
    let expect = [
        format!("POST {claims}"),
        format!("PUT {claims}/made"),
        format!("PUT {claims}/made/status"),
        "PATCH /api/v1/namespaces/n/pods/p/status".to_owned(),
        "POST /api/v1/namespaces/n/pods/p/binding".to_owned(),
    ];
    assert_eq!(cluster.written(), expect);
    let made = cluster.body(&expect[0]);
    assert_eq!(made["metadata"]["generateName"], "p-extended-resources-");
    assert_eq!(made["metadata"]["annotations"]["resource.kubernetes.io/extended-resource-claim"], "true");
    assert!(made["metadata"]["name"].is_null() && made["metadata"]["uid"].is_null());
    let request = json!([{"name": "container-0-request-0",
        "exactly": {"allocationMode": "ExactCount", "count": 1, "deviceClassName": "gpu"}}]);
    assert_eq!(made["spec"]["devices"]["requests"], request);
    assert_eq!(cluster.body(&expect[2])["status"]["allocation"]["devices"]["results"][0]["pool"], "b");
    let mapping =
        json!([{"containerName": "c", "requestName": "container-0-request-0", "resourceName": "x.example.com/gpu"}]);
    let served = json!({"requestMappings": mapping, "resourceClaimName": "made"});
    assert_eq!(cluster.body(&expect[3])["status"]["extendedResourceClaimStatus"], served);
    assert_eq!(cluster.body(&expect[4])["target"]["name"], "b");
}

#[tokio::test]
async fn attached_volumes_count_even_without_pods() {
    let volume = |name: &str| {
        let spec = json!({"csi": {"driver": "d", "volumeHandle": name}});
        ("/api/v1/persistentvolumes", json!({"metadata": {"name": name}, "spec": spec}))
    };
    let check = async |attached: &str, volumes: &[&str], expect: bool| {
        let driver = json!([{"name": "d", "nodeID": "a", "allocatable": {"count": 1}}]);
        let spec = json!({"attacher": "d", "nodeName": "a", "source": {"persistentVolumeName": attached}});
        let bound = json!({"pv.kubernetes.io/bind-completed": "yes"});
        let metadata = json!({"name": "c", "namespace": "n", "annotations": bound});
        let mut objects = vec![
            ("/apis/storage.k8s.io/v1/csinodes", json!({"metadata": {"name": "a"}, "spec": {"drivers": driver}})),
            ("/apis/storage.k8s.io/v1/volumeattachments", json!({"metadata": {"name": "v"}, "spec": spec})),
            ("/apis/storage.k8s.io/v1/storageclasses", json!({"metadata": {"name": "s"}, "provisioner": "d"})),
            (
                "/api/v1/persistentvolumeclaims",
                json!({"metadata": metadata, "spec": {"volumeName": "new", "storageClassName": "s"}}),
            ),
        ];
        objects.extend(volumes.iter().map(|name| volume(name)));
        let mut cluster = Cluster::new(objects, true).await;
        cluster.node("a", json!({}));
        let spec = json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]});
        let message = cluster.place(spec);
        assert_eq!(message == "a", expect, "{message}");
        assert!(expect || message.contains("1 node(s) exceed max volume count"), "{message}");
    };
    check("none", &["new", "old"], true).await;
    check("old", &["new", "old"], false).await;
    // The pod's own volume is attached already.
    check("new", &["new", "old"], true).await;
}

#[tokio::test]
async fn claims_without_volumes_need_nodes_that_can_have_some() {
    let check = async |class: Value, capacity: Value, volume: Value, expect: &str| {
        let base = |name: &str| json!({"name": name, "namespace": "n", "uid": name});
        let mut objects = Vec::new();
        let mut class = class;
        (class["metadata"], class["volumeBindingMode"]) = (json!({"name": "s"}), "WaitForFirstConsumer".into());
        objects.push(("/apis/storage.k8s.io/v1/storageclasses", class));
        let wants = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "s", "resources": {"requests": {"storage": "2Gi"}}});
        objects.push(("/api/v1/persistentvolumeclaims", json!({"metadata": base("c"), "spec": wants})));
        let driver = json!({"metadata": {"name": "d"}, "spec": {"storageCapacity": true}});
        objects.push(("/apis/storage.k8s.io/v1/csidrivers", driver));
        if !capacity.is_null() {
            let here =
                json!({"metadata": base("k"), "storageClassName": "s", "nodeTopology": {}, "capacity": capacity});
            objects.push(("/apis/storage.k8s.io/v1/csistoragecapacities", here));
        }
        if !volume.is_null() {
            let spec =
                json!({"capacity": {"storage": volume}, "accessModes": ["ReadWriteOnce"], "storageClassName": "s"});
            objects.push(("/api/v1/persistentvolumes", json!({"metadata": base("v"), "spec": spec})));
        }
        let mut cluster = Cluster::new(objects, true).await;
        cluster.node("a", json!({}));
        let message = cluster.place(json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}));
        assert!(message.contains(expect), "{message}");
    };
    let (none, made) = (|| json!({"provisioner": "kubernetes.io/no-provisioner"}), || json!({"provisioner": "d"}));
    let (no_volume, no_space) =
        ("1 node(s) didn't find available persistent volumes to bind", "1 node(s) did not have enough free storage");
    check(none(), Value::Null, json!("2Gi"), "a").await;
    check(none(), Value::Null, json!("1Gi"), no_volume).await;
    check(made(), Value::Null, Value::Null, no_space).await;
    check(made(), json!("1Gi"), Value::Null, no_space).await;
    check(made(), json!("3Gi"), Value::Null, "a").await;
    check(made(), Value::Null, json!("2Gi"), "a").await;
    let zones = json!([{"matchLabelExpressions": [{"key": "zone", "values": ["z"]}]}]);
    check(json!({"provisioner": "d", "allowedTopologies": zones}), json!("3Gi"), Value::Null, no_volume).await;
}
