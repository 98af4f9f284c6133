//! Decisions in clusters whose objects the test gives; what is written is recorded.

mod volumes;

use super::*;
use informer::{Event, InformerFactory};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;

const CLAIMS: &str = "/apis/resource.k8s.io/v1/resourceclaims";
const CLASSES: &str = "/apis/resource.k8s.io/v1/deviceclasses";
const SLICES: &str = "/apis/resource.k8s.io/v1/resourceslices";

/// `METHOD path` and body of each write.
type Writes = Arc<Mutex<Vec<(String, Value)>>>;

/// The events that watches are to say, by path.
#[derive(Clone, Default)]
struct Feeds(Arc<Mutex<HashMap<String, Feed>>>);

#[derive(Clone)]
struct Feed {
    say: mpsc::UnboundedSender<Value>,
    said: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<Value>>>,
}

impl Feeds {
    fn of(&self, path: &str) -> Feed {
        let new = || {
            let (say, said) = mpsc::unbounded_channel();
            Feed { say, said: Arc::new(tokio::sync::Mutex::new(said)) }
        };
        self.0.lock().entry(path.to_owned()).or_insert_with(new).clone()
    }
}

struct Cluster {
    scheduler: Scheduler,
    writes: Writes,
    feeds: Feeds,
    /// Informers end with it.
    _factory: Arc<InformerFactory>,
}

/// Lists are the given objects; watches say what they are fed, an answer for each event; writes succeed, except for
/// bindings where `binds` is not set.
async fn answer(
    objects: Arc<Vec<(&str, Value)>>,
    writes: Writes,
    feeds: Feeds,
    binds: bool,
    request: http::Request<Body>,
) -> (u16, Value) {
    let (path, method) = (request.uri().path().to_owned(), request.method().clone());
    if method == http::Method::GET {
        if request.uri().query().is_some_and(|q| q.contains("watch=")) {
            let feed = feeds.of(&path);
            let event = feed.said.lock().await.recv().await;
            return (200, event.expect("the feed holds its sender"));
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
    if method == http::Method::PATCH {
        // What was patched, as far as its name goes.
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let at = parts.iter().position(|part| *part == "namespaces").expect("namespaced");
        (body["metadata"]["namespace"], body["metadata"]["name"]) = (parts[at + 1].into(), parts[at + 3].into());
    }
    body["metadata"]["resourceVersion"] = "6".into();
    (200, body)
}

impl Cluster {
    async fn new(objects: Vec<(&'static str, Value)>, binds: bool) -> Self {
        let (objects, writes) = (Arc::new(objects), Writes::default());
        let (record, feeds) = (writes.clone(), Feeds::default());
        let fed = feeds.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let answer = answer(objects.clone(), record.clone(), fed.clone(), binds, request);
            async move {
                let (status, body) = answer.await;
                let response =
                    http::Response::builder().status(status).body(Body::from(format!("{body}\n").into_bytes()));
                response.map_err(std::io::Error::other)
            }
        });
        let client = kube::Client::new(service, "n");
        let factory = InformerFactory::new(client.clone());
        let handle = Handle::new(&factory, client);
        handle.synced().await;
        Self { scheduler: Scheduler::new(handle), writes, feeds, _factory: factory }
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
        self.begin(spec)?;
        self.scheduler.outcomes.recv().await.expect("outcome").result
    }

    /// Places a pod and begins to bind it.
    fn begin(&mut self, spec: Value) -> Result<(), String> {
        let pod = pod(spec);
        let node = self.scheduler.place(&PodInfo::new(pod.clone())).map_err(|u| u.message)?;
        self.begin_on(pod, node);
        Ok(())
    }

    /// Begins to bind a pod to the node where it was placed.
    fn begin_on(&mut self, pod: Arc<Pod>, node: String) {
        let queued = QueuedPod { pod: pod.clone(), attempts: 1, added: Instant::now(), rejected_by: Vec::new() };
        self.scheduler.start_binding(queued, PodInfo::new(pod), node);
    }

    async fn outcome(&mut self) -> Result<(), String> {
        let outcome = tokio::time::timeout(Duration::from_secs(5), self.scheduler.outcomes.recv()).await;
        outcome.expect("in time").expect("outcome").result
    }

    /// Lets the watch of a collection say that an object is `ADDED`, `MODIFIED` or `DELETED`.
    fn say(&self, path: &str, what: &str, object: &Value) {
        self.feeds.of(path).say.send(json!({"type": what, "object": object})).expect("the feed holds its receiver");
    }

    /// Waits for a write.
    async fn until_written(&self, what: &str) {
        for _ in 0..1_000 {
            if self.writes.lock().iter().any(|(of, _)| of == what) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{what} is not written");
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
        tokio::time::sleep(Duration::from_millis(20)).await;
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
    tokio::time::sleep(Duration::from_millis(20)).await;
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

/// A slice of so many devices on a node, of which the last has the size `s`, if it is `easy`.
fn large_slice(node: &str, devices: usize, easy: bool) -> (&'static str, Value) {
    let (path, mut slice) = slice(node, "s");
    let size = |at: usize| if easy && at + 1 == devices { "s" } else { "none" };
    let device = |at: usize| json!({"name": format!("x{at:02}"), "attributes": {"size": {"string": size(at)}}});
    slice["spec"]["devices"] = (0..devices).map(device).collect();
    (path, slice)
}

#[tokio::test]
async fn a_node_is_judged_however_long_others_took() {
    let sized = json!([{"cel": {"expression": "device.attributes['d'].size == 's'"}}]);
    let requests = json!([{"name": "any", "exactly": {"deviceClassName": "gpu", "count": 20}},
        {"name": "sized", "exactly": {"deviceClassName": "gpu", "selectors": sized}}]);
    let mut objects = vec![class(None), claim(requests, json!({})), large_slice("z", 21, true)];
    let hard = ["a", "b", "c", "d", "e"];
    objects.extend(hard.iter().map(|node| large_slice(node, 40, false)));
    let mut cluster = Cluster::new(objects, true).await;
    hard.iter().for_each(|node| cluster.node(node, json!({})));
    assert_eq!(
        cluster.place(with_claim()),
        "running \"DynamicResources\" filter plugin: node a: timed out trying to allocate devices"
    );
    cluster.node("z", json!({}));
    assert_eq!(cluster.place(with_claim()), "z");
}

#[tokio::test]
async fn the_end_of_a_claim_for_extended_resources_ends_the_binding() {
    let mut cluster = Cluster::new(vec![class(Some("x.example.com/gpu")), slice("b", "s")], true).await;
    cluster.node("b", json!({}));
    let resources = json!({"requests": {"x.example.com/gpu": "1"}, "limits": {"x.example.com/gpu": "1"}});
    cluster.begin(json!({"containers": [{"name": "c", "image": "i", "resources": resources}]})).expect("placed");
    cluster.until_written("PATCH /api/v1/namespaces/n/pods/p/status").await;
    let metadata = json!({"name": "made", "namespace": "n", "uid": "made", "resourceVersion": "5"});
    let made = json!({"metadata": metadata, "spec": {}});
    cluster.say(CLAIMS, "ADDED", &made);
    cluster.say(CLAIMS, "DELETED", &made);
    let error = cluster.outcome().await.expect_err("deleted");
    assert_eq!(error, "running PreBind plugin \"DynamicResources\": claim n/made got deleted in the meantime");
}

#[tokio::test]
async fn a_binding_that_fails_helps_others_and_a_pod_that_goes_is_not_tried_again() {
    let check = async |deleted: Option<&str>, expect: &[&str]| {
        let metadata = json!({"name": "p", "namespace": "n", "uid": "p", "deletionTimestamp": deleted,
            "finalizers": ["example.com/kept"]});
        let mut cluster = Cluster::new(vec![("/api/v1/pods", json!({"metadata": metadata}))], false).await;
        cluster.node("a", json!({}));
        cluster.begin(json!({})).expect("placed");
        let waiting = |name: &str| {
            let pod = json!({"metadata": {"name": name, "namespace": "n", "uid": name}, "spec": {"containers": []}});
            let pod = Arc::new(serde_json::from_value(pod).expect("pod"));
            QueuedPod { pod, attempts: 1, added: Instant::now(), rejected_by: Vec::new() }
        };
        let scheduler = &mut cluster.scheduler;
        scheduler.queue.put_back(waiting("room"), vec!["NodeResourcesFit"]);
        scheduler.queue.put_back(waiting("volume"), vec!["VolumeBinding"]);
        scheduler.queue.put_back(waiting("neither"), vec!["NodeUnschedulable"]);
        let outcome = scheduler.outcomes.recv().await.expect("outcome");
        scheduler.on_bound(outcome);
        let mut woken: Vec<String> =
            std::iter::from_fn(|| scheduler.queue.pop()).map(|queued| uid(&queued.pod).to_owned()).collect();
        woken.sort();
        assert_eq!(woken, ["room", "volume"]);
        // After an error a pod waits for its time.
        let left = scheduler.queue.next_wake();
        assert!(left.is_some());
        for name in expect {
            scheduler.queue.remove(name);
        }
        assert!(scheduler.queue.next_wake().is_none(), "{deleted:?}");
    };
    check(None, &["p", "neither"]).await;
    check(Some("2026-01-01T00:00:00Z"), &["neither"]).await;
}

#[tokio::test]
async fn nothing_is_scheduled_after_the_shutdown() {
    let status = json!({"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}});
    let node = json!({"metadata": {"name": "a"}, "status": status});
    let metadata = json!({"name": "p", "namespace": "n", "uid": "p"});
    let spec = json!({"containers": [{"name": "c", "image": "i"}], "schedulerName": "default-scheduler"});
    let objects = vec![("/api/v1/nodes", node), ("/api/v1/pods", json!({"metadata": metadata, "spec": spec}))];
    let Cluster { scheduler, writes, _factory, .. } = Cluster::new(objects, true).await;
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    scheduler.run(shutdown).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(writes.lock().is_empty());
}
