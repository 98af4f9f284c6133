//! CSI drivers, device plugins and DRA drivers as processes of their own, through their lives.
//!
//! They run in the node's namespaces, as their pods would with the host's paths.

use anyhow::{Context, Result};
use e2e::{Cluster, wait};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

const KUBELET: &str = "/var/lib/kubelet";

/// A process in the node's mount and network namespaces; killed when dropped.
struct Process(Child);

impl Process {
    fn start(cluster: &Cluster, program: &str, args: &[&str]) -> Result<Self> {
        let pid = cluster.server_pid()?.to_string();
        let child =
            Command::new("nsenter").args(["-t", &pid, "-m", "-n", program]).args(args).stdin(Stdio::null()).spawn()?;
        Ok(Self(child))
    }

    fn signal(&self, name: &str) -> Result<()> {
        Command::new("kill").args([name, &self.0.id().to_string()]).status()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn calls(dir: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join("calls.log")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn called<'a>(calls: &'a [Value], name: &str, volume: &str) -> Vec<&'a Value> {
    calls.iter().filter(|c| c["call"] == name && c["request"]["volume"] == volume).map(|c| &c["request"]).collect()
}

/// What an external attacher does: says that attachments are done.
fn attach_all(cluster: &Cluster) -> Result<()> {
    let list = cluster.get(&["volumeattachments"])?;
    for one in list["items"].as_array().into_iter().flatten() {
        let name = one["metadata"]["name"].as_str().unwrap_or_default();
        let status = json!({"status": {"attached": true, "attachmentMetadata": {"dev": "sda"}}}).to_string();
        cluster.kubectl(&["patch", "volumeattachment", name, "--subresource=status", "--type=merge", "-p", &status])?;
    }
    Ok(())
}

fn ready(cluster: &Cluster, pod: &str) -> Result<()> {
    cluster.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=30s"]).map(drop)
}

const STORAGE: &str = r#"
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: csi.example.com}
spec: {attachRequired: true, podInfoOnMount: true, volumeLifecycleModes: [Persistent, Ephemeral], fsGroupPolicy: File, tokenRequests: [{audience: vault}]}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: sc}
provisioner: csi.example.com
allowVolumeExpansion: true
---
apiVersion: v1
kind: Secret
metadata: {name: s}
stringData: {user: u1}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: files}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  storageClassName: sc
  csi: {driver: csi.example.com, volumeHandle: vol-1, volumeAttributes: {a: b}, nodeStageSecretRef: {name: s, namespace: default}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: raw}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  volumeMode: Block
  storageClassName: sc
  csi: {driver: csi.example.com, volumeHandle: vol-b}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: files}
spec: {storageClassName: sc, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: raw}
spec: {storageClassName: sc, volumeMode: Block, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: v}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {fsGroup: 2000}
  volumes:
  - {name: p, persistentVolumeClaim: {claimName: files}}
  - {name: b, persistentVolumeClaim: {claimName: raw}}
  - {name: in, csi: {driver: csi.example.com, volumeAttributes: {x: why}, nodePublishSecretRef: {name: s}}}
  containers:
  - name: c
    image: busybox:1.35
    command: [sh, -c, 'echo data > /p/f; echo e > /in/g; sleep 3600']
    volumeMounts: [{name: p, mountPath: /p}, {name: in, mountPath: /in}]
    volumeDevices: [{name: b, devicePath: /dev/xvda}]
"#;

#[test]
fn a_csi_driver() -> Result<()> {
    let cluster = Cluster::up("e2e-csi")?;
    let dir: PathBuf = cluster.data_dir().join("csi");
    let node_dir = dir.display().to_string();
    let (endpoint, registration) = (
        format!("{KUBELET}/plugins/csi.example.com/csi.sock"),
        format!("{KUBELET}/plugins_registry/csi.example.com-reg.sock"),
    );
    let args = ["csi.example.com", &endpoint, &registration, &node_dir, "node-1"];
    let driver = Process::start(&cluster, env!("CARGO_BIN_EXE_csi-driver"), &args)?;
    let csi_node = wait("the driver in the CSINode", 10, || {
        let node = cluster.get(&["csinode", cluster.name()])?;
        Ok((node["spec"]["drivers"][0]["nodeID"] == "node-1").then_some(node))
    })?;
    assert_eq!(csi_node["spec"]["drivers"][0]["allocatable"]["count"], 10);
    cluster.apply(STORAGE)?;
    wait("two attachments", 10, || {
        Ok((cluster.get(&["volumeattachments"])?["items"].as_array().map(Vec::len) == Some(2)).then_some(()))
    })?;
    attach_all(&cluster)?;
    ready(&cluster, "v")?;
    let seen = cluster.kubectl(&[
        "exec",
        "v",
        "--",
        "sh",
        "-c",
        "cat /p/f /in/g; stat -c %g /p; test -c /dev/xvda && echo device",
    ])?;
    assert_eq!(seen, "data\ne\n2000\ndevice\n");
    let log = calls(&dir);
    let stage = called(&log, "NodeStageVolume", "vol-1");
    assert_eq!(stage[0]["secrets"]["user"], "u1");
    assert_eq!(stage[0]["publishContext"]["dev"], "sda");
    let publish = called(&log, "NodePublishVolume", "vol-1");
    assert_eq!(publish[0]["context"]["csi.storage.k8s.io/pod.name"], "v");
    assert!(
        publish[0]["context"]["csi.storage.k8s.io/serviceAccount.tokens"].as_str().is_some_and(|t| t.contains("vault"))
    );
    assert_eq!(called(&log, "NodePublishVolume", "vol-b")[0]["capability"]["block"], true);
    let in_use = wait("what is in use", 10, || {
        let node = cluster.get(&["node", cluster.name()])?;
        Ok((node["status"]["volumesInUse"].as_array().map(Vec::len) == Some(2)).then_some(node))
    })?;
    assert_eq!(in_use["status"]["volumesAttached"].as_array().map(Vec::len), Some(2));
    let summary =
        cluster.kubectl(&["get", "--raw", &format!("/api/v1/nodes/{}/proxy/stats/summary", cluster.name())])?;
    let summary: Value = serde_json::from_str(&summary)?;
    let pod = summary["pods"]
        .as_array()
        .and_then(|l| l.iter().find(|p| p["podRef"]["name"] == "v"))
        .cloned()
        .unwrap_or_default();
    let volume =
        pod["volume"].as_array().and_then(|l| l.iter().find(|v| v["name"] == "p")).cloned().unwrap_or_default();
    assert_eq!(volume["pvcRef"]["name"], "files");
    assert!(volume["capacityBytes"].as_u64().is_some_and(|b| b > 0), "{volume}");
    // A bigger volume, as the resizer leaves it to the node; found by the restarted kubelet.
    cluster.kubectl(&[
        "patch",
        "pvc",
        "files",
        "--type=merge",
        "-p",
        r#"{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}"#,
    ])?;
    cluster.kubectl(&["patch", "pv", "files", "--type=merge", "-p", r#"{"spec":{"capacity":{"storage":"2Gi"}}}"#])?;
    // The driver and the kubelet die; the pod does not notice.
    drop(driver);
    Command::new("kill").args(["-9", &cluster.server_pid()?.to_string()]).status()?;
    wait("the API to be back", 30, || Ok(cluster.kubectl(&["get", "pod", "v"]).ok()))?;
    let driver = Process::start(&cluster, env!("CARGO_BIN_EXE_csi-driver"), &args)?;
    wait("the claim's new size", 30, || {
        Ok((cluster.get(&["pvc", "files"])?["status"]["capacity"]["storage"] == "2Gi").then_some(()))
    })?;
    let log = calls(&dir);
    assert_eq!(called(&log, "NodeExpandVolume", "vol-1").len(), 1);
    assert_eq!(
        called(&log, "NodePublishVolume", "vol-1").len(),
        1,
        "what was published before the restart is left alone"
    );
    assert_eq!(cluster.kubectl(&["exec", "v", "--", "cat", "/p/f"])?, "data\n");
    assert_eq!(cluster.get(&["pod", "v"])?["status"]["containerStatuses"][0]["restartCount"], 0);
    cluster.kubectl(&["delete", "pod", "v", "--timeout=30s"])?;
    let log = calls(&dir);
    for call in ["NodeUnpublishVolume", "NodeUnstageVolume"] {
        assert_eq!(called(&log, call, "vol-1").len(), 1, "{call}");
        assert_eq!(called(&log, call, "vol-b").len(), 1, "{call}");
    }
    wait("the attachments to go", 10, || {
        Ok((cluster.get(&["volumeattachments"])?["items"].as_array().map(Vec::len) == Some(0)).then_some(()))
    })?;
    driver.signal("-INT")?;
    wait("the driver to leave the CSINode", 10, || {
        let node = cluster.get(&["csinode", cluster.name()])?;
        Ok(node["spec"]["drivers"].as_array().is_none_or(Vec::is_empty).then_some(()))
    })
}

const DONGLES: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: d}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - {name: i, image: "busybox:1.35", command: [sh, -c, 'echo $DONGLES'], resources: {limits: {example.com/dongle: 1}}}
  containers:
  - name: c
    image: busybox:1.35
    command: [sh, -c, 'echo $DONGLES; test -c /dev/dongle && echo node; sleep 3600']
    resources: {limits: {example.com/dongle: 2}}
"#;

fn dongles(cluster: &Cluster) -> Result<(Value, Value)> {
    let node = cluster.get(&["node", cluster.name()])?;
    let of = |list: &str| node["status"][list]["example.com/dongle"].clone();
    Ok((of("capacity"), of("allocatable")))
}

#[test]
fn a_device_plugin() -> Result<()> {
    let cluster = Cluster::up("e2e-devices")?;
    let state = cluster.data_dir().join("dongles");
    let args =
        ["device", "example.com/dongle", "3", &format!("{KUBELET}/device-plugins"), &state.display().to_string()];
    let plugin = Process::start(&cluster, env!("CARGO_BIN_EXE_device-plugin"), &args)?;
    let amounts = |what: &str, expect: (&str, &str)| {
        wait(what, 20, || Ok((dongles(&cluster)? == (json!(expect.0), json!(expect.1))).then_some(())))
    };
    amounts("three dongles", ("3", "3"))?;
    cluster.apply(DONGLES)?;
    ready(&cluster, "d")?;
    assert_eq!(cluster.kubectl(&["logs", "d", "-c", "i"])?, "dev-2\n");
    assert_eq!(cluster.kubectl(&["logs", "d", "-c", "c"])?, "dev-1,dev-2\nnode\n", "the init container's is passed on");
    let log = || std::fs::read_to_string(state.join("calls.log")).context("calls");
    assert!(log()?.contains("PreStart dev-1,dev-2"));
    let health = |want: &str| {
        wait("the health of dev-1", 10, || {
            let status =
                cluster.get(&["pod", "d"])?["status"]["containerStatuses"][0]["allocatedResourcesStatus"][0].clone();
            let ours = json!({"resourceID": "dev-1", "health": want});
            let listed = status["resources"].as_array().is_some_and(|l| l.contains(&ours));
            Ok((status["name"] == "example.com/dongle" && listed).then_some(()))
        })
    };
    health("Healthy")?;
    std::fs::write(state.join("unhealthy"), "dev-0 dev-1")?;
    plugin.signal("-HUP")?;
    amounts("two to fall ill", ("3", "1"))?;
    health("Unhealthy")?;
    let given = pod_resources(&cluster)?;
    assert_eq!(given, ["dev-1", "dev-2"]);
    // The kubelet dies: the plugin registers anew, and the pod keeps what it has.
    Command::new("kill").args(["-9", &cluster.server_pid()?.to_string()]).status()?;
    wait("the API to be back", 30, || Ok(cluster.kubectl(&["get", "pod", "d"]).ok()))?;
    amounts("the plugin to be back", ("3", "1"))?;
    assert_eq!(cluster.get(&["pod", "d"])?["status"]["phase"], "Running");
    assert_eq!(pod_resources(&cluster)?, ["dev-1", "dev-2"]);
    drop(plugin);
    amounts("the plugin to be gone", ("3", "0"))?;
    cluster.kubectl(&["delete", "pod", "d", "--timeout=30s"])?;
    assert_eq!(pod_resources(&cluster)?, Vec::<String>::new());
    Ok(())
}

/// Devices of all pods, as the pod-resources API lists them.
fn pod_resources(cluster: &Cluster) -> Result<Vec<String>> {
    use protos::podresources::ListPodResourcesRequest;
    use protos::podresources::pod_resources_lister_client::PodResourcesListerClient;
    let path = format!("/proc/{}/root{KUBELET}/pod-resources/kubelet.sock", cluster.server_pid()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let channel = protos::socket::connect(path.as_ref(), std::time::Duration::from_secs(5)).await?;
        let answer = PodResourcesListerClient::new(channel).list(ListPodResourcesRequest {}).await?.into_inner();
        let containers = answer.pod_resources.into_iter().flat_map(|p| p.containers);
        Ok(containers.flat_map(|c| c.devices).flat_map(|d| d.device_ids).collect())
    })
}

const CLAIMS: &str = r#"
apiVersion: resource.k8s.io/v1
kind: DeviceClass
metadata: {name: dc}
spec: {}
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: t}
spec: {spec: {devices: {requests: [{name: r, exactly: {deviceClassName: dc}}]}}}
---
apiVersion: v1
kind: Pod
metadata: {name: d}
spec:
  nodeName: e2e-dra
  terminationGracePeriodSeconds: 1
  resourceClaims: [{name: x, resourceClaimTemplateName: t}]
  containers:
  - {name: c, image: "busybox:1.35", command: [sh, -c, 'echo $DRA; test -c /dev/dra0 && echo node; sleep 3600'], resources: {claims: [{name: x}]}}
"#;

/// One device on the node, and pods that leave it to the scheduler who has it.
const SCHEDULED: &str = r#"
apiVersion: resource.k8s.io/v1
kind: ResourceSlice
metadata: {name: s}
spec:
  driver: dra.example.com
  nodeName: e2e-dra
  pool: {name: pool, generation: 1, resourceSliceCount: 1}
  devices: [{name: d0, attributes: {model: {string: x}}}]
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: chosen}
spec: {spec: {devices: {requests: [{name: r, exactly: {deviceClassName: dc, selectors: [{cel: {expression: "device.attributes['dra.example.com'].model == 'x'"}}]}}]}}}
"#;

fn scheduled(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  resourceClaims: [{{name: x, resourceClaimTemplateName: chosen}}]\n  containers:\n  - {{name: c, image: \"busybox:1.35\", command: [sh, -c, 'echo $DRA; sleep 3600'], resources: {{claims: [{{name: x}}]}}}}\n"
    )
}

/// A CDI specification of this machine; removed when dropped.
struct Cdi(PathBuf);

impl Drop for Cdi {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_dra_driver() -> Result<()> {
    let cluster = Cluster::up("e2e-dra")?;
    let cdi = Cdi("/var/run/cdi/sagong-e2e.json".into());
    std::fs::create_dir_all("/var/run/cdi")?;
    let edits = json!({"env": ["DRA=d0"], "deviceNodes": [{"path": "/dev/dra0", "hostPath": "/dev/null"}]});
    let devices = json!([{"name": "d0", "containerEdits": edits}]);
    std::fs::write(&cdi.0, json!({"cdiVersion": "0.6.0", "kind": "example.com/dra", "devices": devices}).to_string())?;
    let state = cluster.data_dir().join("dra");
    let (endpoint, registration) = (
        format!("{KUBELET}/plugins/dra.example.com/dra.sock"),
        format!("{KUBELET}/plugins_registry/dra.example.com.sock"),
    );
    let args = ["dra", "dra.example.com", &endpoint, &registration, &state.display().to_string()];
    let _driver = Process::start(&cluster, env!("CARGO_BIN_EXE_device-plugin"), &args)?;
    cluster.apply(CLAIMS)?;
    let claim = wait("the claim that is made of the template", 10, || {
        let pod = cluster.get(&["pod", "d"])?;
        Ok(pod["status"]["resourceClaimStatuses"][0]["resourceClaimName"].as_str().map(str::to_owned))
    })?;
    wait("the node to refuse what is not reserved", 10, || {
        let events = cluster.kubectl(&["get", "events", "--field-selector", "reason=FailedPrepareDynamicResources"])?;
        Ok(events.contains("is not allowed to use ResourceClaim").then_some(()))
    })?;
    // What the scheduler does.
    let uid = cluster.get(&["pod", "d"])?["metadata"]["uid"].clone();
    let results = json!([{"request": "r", "driver": "dra.example.com", "pool": "pool", "device": "d0"}]);
    let status = json!({"status": {"allocation": {"devices": {"results": results}},
        "reservedFor": [{"resource": "pods", "name": "d", "uid": uid}]}});
    let patch = status.to_string();
    cluster.kubectl(&["patch", "resourceclaim", &claim, "--subresource=status", "--type=merge", "-p", &patch])?;
    ready(&cluster, "d")?;
    assert_eq!(cluster.kubectl(&["logs", "d"])?, "d0\nnode\n");
    let shown = cluster.get(&["pod", "d"])?["status"]["containerStatuses"][0]["allocatedResourcesStatus"][0].clone();
    assert_eq!(shown["name"], "claim:x");
    cluster.kubectl(&["delete", "pod", "d", "--timeout=30s"])?;
    let log = std::fs::read_to_string(state.join("calls.log"))?;
    assert!(log.contains("Prepare default/") && log.contains("Unprepare default/"), "{log}");
    wait("the claim to go with its pod", 20, || {
        Ok((cluster.get(&["resourceclaims"])?["items"].as_array().map(Vec::len) == Some(0)).then_some(()))
    })?;
    the_scheduler_allocates(&cluster)
}

fn the_scheduler_allocates(cluster: &Cluster) -> Result<()> {
    cluster.apply(SCHEDULED)?;
    cluster.apply(&scheduled("first"))?;
    ready(cluster, "first")?;
    assert_eq!(cluster.kubectl(&["logs", "first"])?, "d0\n");
    let claim = cluster.get(&["resourceclaims"])?["items"][0].clone();
    let result = &claim["status"]["allocation"]["devices"]["results"][0];
    assert_eq!((&result["device"], &result["pool"], &result["request"]), (&json!("d0"), &json!("pool"), &json!("r")));
    assert_eq!(claim["status"]["reservedFor"][0]["name"], "first");
    assert_eq!(claim["metadata"]["finalizers"][0], "resource.kubernetes.io/delete-protection");
    // There is no second device; the first is free once its pod is gone.
    cluster.apply(&scheduled("second"))?;
    wait("the second pod to wait", 20, || {
        let conditions = cluster.get(&["pod", "second"])?["status"]["conditions"].to_string();
        Ok(conditions.contains("0/1 nodes are available: 1 cannot allocate all claims. still not schedulable").then_some(()))
    })?;
    cluster.kubectl(&["delete", "pod", "first", "--timeout=30s"])?;
    ready(cluster, "second")?;
    cluster.kubectl(&["delete", "pod", "second", "--timeout=30s"])?;
    Ok(())
}
