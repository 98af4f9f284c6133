//! Pods with claims for volumes.

use super::*;
use api::k8s::resource::v1::DeviceClass;

const PVCS: &str = "/api/v1/persistentvolumeclaims";
const STORAGE_CLASSES: &str = "/apis/storage.k8s.io/v1/storageclasses";
const VOLUMES: &str = "/api/v1/persistentvolumes";
const SELECTED: &str = "volume.kubernetes.io/selected-node";
const WRITE_VOLUME: &str = "PUT /api/v1/persistentvolumes/v";
const WRITE_CLAIM: &str = "PATCH /api/v1/namespaces/n/persistentvolumeclaims/c";

/// A class that waits for consumers.
fn class(provisioner: &str) -> (&'static str, Value) {
    let class =
        json!({"metadata": {"name": "s"}, "provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer"});
    (STORAGE_CLASSES, class)
}

/// A claim of the class, bound if it names a volume.
fn claim(name: &str, version: &str, selected: Option<&str>, volume: Option<&str>) -> (&'static str, Value) {
    let mut annotations = json!({});
    if let Some(selected) = selected {
        annotations[SELECTED] = selected.into();
    }
    if volume.is_some() {
        annotations["pv.kubernetes.io/bind-completed"] = "yes".into();
    }
    let metadata =
        json!({"name": name, "namespace": "n", "uid": name, "resourceVersion": version, "annotations": annotations});
    let spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "s", "volumeName": volume,
        "resources": {"requests": {"storage": "1Gi"}}});
    (PVCS, json!({"metadata": metadata, "spec": spec}))
}

/// A volume that one node reaches, and its owner.
fn volume(node: &str, version: &str, owner: Option<&str>) -> (&'static str, Value) {
    let terms = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]);
    let mut spec = json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "s",
        "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}});
    if let Some(owner) = owner {
        spec["claimRef"] = json!({"name": owner, "namespace": "n", "uid": owner});
    }
    let metadata = json!({"name": "v", "resourceVersion": version});
    (VOLUMES, json!({"metadata": metadata, "spec": spec, "status": {"phase": "Available"}}))
}

/// A cluster with the nodes `a` and `b` and the pod that is to be bound.
async fn cluster(mut objects: Vec<(&'static str, Value)>) -> Cluster {
    let nodes = ["a", "b"];
    objects.extend(nodes.iter().map(|name| ("/api/v1/nodes", json!({"metadata": {"name": name}}))));
    objects.push(("/api/v1/pods", json!({"metadata": {"name": "p", "namespace": "n", "uid": "p"}})));
    let mut cluster = Cluster::new(objects, true).await;
    nodes.iter().for_each(|name| cluster.node(name, json!({})));
    cluster
}

fn with(claim: &str) -> Value {
    json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]})
}

const NO_VOLUME: &str = "2 node(s) didn't find available persistent volumes to bind";

#[tokio::test]
async fn a_volume_that_is_there_is_given_to_its_claim() {
    // Somebody could make one, too.
    let mut cluster = cluster(vec![class("d"), claim("c", "1", None, None), volume("a", "1", None)]).await;
    cluster
        .scheduler
        .on_node(Event::Deleted(Arc::new(serde_json::from_value(json!({"metadata": {"name": "b"}})).expect("node"))));
    cluster.begin(with("c")).expect("placed");
    cluster.until_written(WRITE_VOLUME).await;
    let written = cluster.body(WRITE_VOLUME);
    assert_eq!(written["spec"]["claimRef"]["uid"], "c");
    assert_eq!(written["metadata"]["resourceVersion"], "1");
    assert_eq!(written["metadata"]["annotations"]["pv.kubernetes.io/bound-by-controller"], "yes");
    cluster.say(VOLUMES, "MODIFIED", &volume("a", "6", Some("c")).1);
    cluster.say(PVCS, "MODIFIED", &claim("c", "7", None, Some("v")).1);
    assert_eq!(cluster.outcome().await, Ok(()));
    // A provisioner that is told a node makes another.
    assert_eq!(cluster.written(), [WRITE_VOLUME, "POST /api/v1/namespaces/n/pods/p/binding"]);
}

#[tokio::test]
async fn a_volume_is_kept_for_the_first_claim_that_it_is_chosen_for() {
    let objects = vec![
        class("kubernetes.io/no-provisioner"),
        claim("c", "1", None, None),
        claim("other", "1", None, None),
        volume("a", "1", None),
    ];
    let mut cluster = cluster(objects).await;
    assert_eq!(cluster.place(with("other")), "a");
    cluster.begin(with("c")).expect("placed");
    let message = cluster.place(with("other"));
    assert!(message.contains(NO_VOLUME), "{message}");
    // Another pod may share it.
    assert_eq!(cluster.place(with("c")), "a");
    // What was not written is free again.
    let given_back = pod(json!({}));
    let plugins = cluster.scheduler.profile.clone();
    plugins.reserve.iter().for_each(|plugin| plugin.unreserve(&cluster.scheduler.handle, &given_back, "a"));
    assert_eq!(cluster.place(with("other")), "a");
}

#[tokio::test]
async fn a_volume_that_is_being_made_is_not_looked_for() {
    let check = async |provisioner: &str, selected: &str, reached_from: &str, expect: &str| {
        let objects = vec![class(provisioner), claim("c", "1", Some(selected), None), volume(reached_from, "1", None)];
        let message = cluster(objects).await.place(with("c"));
        assert_eq!(message, expect, "{provisioner} {selected} {reached_from}");
    };
    check("d", "a", "b", "a").await;
    check("d", "b", "a", "b").await;
    // Nobody was told.
    check("kubernetes.io/no-provisioner", "a", "b", "b").await;
}

#[tokio::test]
async fn pods_that_share_a_claim_go_where_its_volume_is_made() {
    for _ in 0..8 {
        let mut cluster = cluster(vec![class("d"), claim("c", "1", None, None)]).await;
        cluster.begin(with("c")).expect("placed");
        cluster.until_written(WRITE_CLAIM).await;
        let told = cluster.body(WRITE_CLAIM)["metadata"]["annotations"][SELECTED].clone();
        assert_eq!(cluster.place(with("c")), told, "the informer does not show it yet");
    }
}

#[tokio::test]
async fn a_claim_is_judged_by_its_volume_however_late_that_is_seen() {
    let check = async |reached_from: &str, expect: Result<(), &str>| {
        let mut cluster = cluster(vec![class("d"), claim("c", "1", None, None)]).await;
        cluster.begin(with("c")).expect("placed");
        cluster.until_written(WRITE_CLAIM).await;
        let told = cluster.body(WRITE_CLAIM)["metadata"]["annotations"][SELECTED].clone();
        let (here, there) = if told == "a" { ("a", "b") } else { ("b", "a") };
        cluster.say(PVCS, "MODIFIED", &claim("c", "7", Some(here), Some("v")).1);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(cluster.scheduler.outcomes.try_recv().is_err(), "without its volume");
        let from = if reached_from == "here" { here } else { there };
        cluster.say(VOLUMES, "ADDED", &volume(from, "8", Some("c")).1);
        let expect = expect.map_err(|why| why.replace("HERE", here));
        assert_eq!(cluster.outcome().await, expect);
    };
    check("here", Ok(())).await;
    let why = "running PreBind plugin \"VolumeBinding\": binding volumes: pv \"v\" node affinity doesn't match node \"HERE\": no matching NodeSelectorTerms";
    check("there", Err(why)).await;
}

#[tokio::test]
async fn a_provisioner_that_takes_the_node_away_has_failed() {
    let mut cluster = cluster(vec![class("d"), claim("c", "1", None, None)]).await;
    cluster.begin(with("c")).expect("placed");
    cluster.until_written(WRITE_CLAIM).await;
    cluster.say(PVCS, "MODIFIED", &claim("c", "7", None, None).1);
    let error = cluster.outcome().await.expect_err("failed");
    assert_eq!(error, "running PreBind plugin \"VolumeBinding\": binding volumes: provisioning failed for PVC \"c\"");
}

#[tokio::test]
async fn the_end_of_the_pod_or_of_its_node_ends_the_binding() {
    let check = async |path: &str, expect: &str| {
        let mut cluster = cluster(vec![class("d"), claim("c", "1", None, None)]).await;
        cluster.begin(with("c")).expect("placed");
        cluster.until_written(WRITE_CLAIM).await;
        let told = cluster.body(WRITE_CLAIM)["metadata"]["annotations"][SELECTED].clone();
        let told = told.as_str().expect("a node");
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(cluster.scheduler.outcomes.try_recv().is_err(), "it waits");
        let metadata = match path {
            "/api/v1/pods" => json!({"name": "p", "namespace": "n", "uid": "p", "resourceVersion": "8"}),
            _ => json!({"name": told, "resourceVersion": "8"}),
        };
        cluster.say(path, "DELETED", &json!({"metadata": metadata}));
        let error = cluster.outcome().await.expect_err("ended");
        let expect = expect.replace("HERE", told);
        assert_eq!(error, format!("running PreBind plugin \"VolumeBinding\": binding volumes: {expect}"));
    };
    check("/api/v1/pods", "pod does not exist any more: pod \"p\" not found").await;
    check("/api/v1/nodes", "failed to get node \"HERE\": node \"HERE\" not found").await;
}

#[tokio::test]
async fn a_claim_that_others_have_decided_meanwhile_is_not_written() {
    let check = async |selected: Option<&str>, volume: Option<&str>, expect: bool| {
        let mut cluster = cluster(vec![class("d"), claim("c", "1", None, None)]).await;
        cluster.scheduler.on_node(Event::Deleted(
            serde_json::from_value(json!({"metadata": {"name": "b"}})).map(Arc::new).expect("node"),
        ));
        let node = cluster.scheduler.place(&PodInfo::new(pod(with("c")))).map_err(|u| u.message).expect("placed");
        cluster.say(PVCS, "MODIFIED", &claim("c", "5", selected, volume).1);
        while cluster.scheduler.handle.claims.get("n", "c").is_none_or(|c| crate::version(&c.metadata) < 5) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        cluster.begin_on(pod(with("c")), node);
        if expect {
            return cluster.until_written(WRITE_CLAIM).await;
        }
        let error = cluster.outcome().await.expect_err("refused");
        assert!(error.contains("persistentvolumeclaims \"c\": the object has been modified"), "{error}");
        assert!(cluster.written().is_empty());
    };
    check(None, None, true).await;
    check(Some("b"), None, false).await;
    check(None, Some("v"), false).await;
}

#[tokio::test]
async fn the_class_that_is_annotated_counts() {
    const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
    let check = async |of_claim: &str, of_volume: &str, expect: &str| {
        let (mut claim, mut volume) = (claim("c", "1", None, None), volume("b", "1", None));
        claim.1["metadata"]["annotations"][CLASS] = of_claim.into();
        claim.1["spec"]["storageClassName"] = "none".into();
        volume.1["metadata"]["annotations"] = json!({CLASS: of_volume});
        let cluster = cluster(vec![class("kubernetes.io/no-provisioner"), claim, volume]).await;
        let message = cluster.place(with("c"));
        assert!(message.contains(expect), "{message}");
    };
    check("s", "s", "b").await;
    check("s", "t", NO_VOLUME).await;
    check("none", "s", "unbound immediate PersistentVolumeClaims").await;
}

#[tokio::test]
async fn a_pod_without_a_volume_is_tried_again_when_one_comes() {
    let objects = vec![class("kubernetes.io/no-provisioner"), claim("c", "1", None, None)];
    let mut cluster = cluster(objects).await;
    let scheduler = &mut cluster.scheduler;
    scheduler.on_pod(Event::Added(pod(with("c"))));
    // What there is from the start has changed, too.
    scheduler.on_changes();
    assert!(scheduler.schedule_batch());
    scheduler.queue.on_event(&ClusterEvent::Changed(TypeId::of::<DeviceClass>()), &scheduler.profile);
    assert!(scheduler.queue.pop().is_none());
    cluster.say(VOLUMES, "ADDED", &volume("a", "8", None).1);
    while cluster.scheduler.handle.volumes.is_empty() {
        let changed = tokio::time::timeout(Duration::from_secs(5), cluster.scheduler.changes.changed());
        changed.await.expect("the volume comes");
    }
    cluster.scheduler.on_changes();
    assert!(cluster.scheduler.queue.pop().is_some());
}

#[tokio::test]
async fn a_claim_helps_its_own_pods_only() {
    let mut cluster = cluster(vec![class("d")]).await;
    let wake = async |cluster: &mut Cluster, name: &str| {
        cluster.say(PVCS, "ADDED", &claim(name, "8", None, None).1);
        while cluster.scheduler.handle.claims.get("n", name).is_none() {
            let changed = tokio::time::timeout(Duration::from_secs(5), cluster.scheduler.changes.changed());
            changed.await.expect("the claim comes");
        }
        cluster.scheduler.on_changes();
        cluster.scheduler.queue.pop().is_some()
    };
    cluster.scheduler.on_pod(Event::Added(pod(with("c"))));
    cluster.scheduler.on_changes();
    assert!(cluster.scheduler.schedule_batch());
    assert!(!wake(&mut cluster, "other").await);
    assert!(wake(&mut cluster, "c").await);
}

#[tokio::test]
async fn attached_volumes_count_even_without_pods() {
    let volume = |name: &str| {
        let spec = json!({"csi": {"driver": "d", "volumeHandle": name}});
        (VOLUMES, json!({"metadata": {"name": name}, "spec": spec}))
    };
    let check = async |attached: &str, volumes: &[&str], expect: bool| {
        let driver = json!([{"name": "d", "nodeID": "a", "allocatable": {"count": 1}}]);
        let spec = json!({"attacher": "d", "nodeName": "a", "source": {"persistentVolumeName": attached}});
        let bound = json!({"pv.kubernetes.io/bind-completed": "yes"});
        let metadata = json!({"name": "c", "namespace": "n", "annotations": bound});
        let mut objects = vec![
            ("/apis/storage.k8s.io/v1/csinodes", json!({"metadata": {"name": "a"}, "spec": {"drivers": driver}})),
            ("/apis/storage.k8s.io/v1/volumeattachments", json!({"metadata": {"name": "v"}, "spec": spec})),
            (STORAGE_CLASSES, json!({"metadata": {"name": "s"}, "provisioner": "d"})),
            (PVCS, json!({"metadata": metadata, "spec": {"volumeName": "new", "storageClassName": "s"}})),
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
        objects.push((STORAGE_CLASSES, class));
        let wants = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "s", "resources": {"requests": {"storage": "2Gi"}}});
        objects.push((PVCS, json!({"metadata": base("c"), "spec": wants})));
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
            let status = json!({"phase": "Available"});
            objects.push((VOLUMES, json!({"metadata": base("v"), "spec": spec, "status": status})));
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
