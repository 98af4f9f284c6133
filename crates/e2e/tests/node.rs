//! What a node does by itself: static pods, limits of local storage, admission, images.

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, image};
use serde_json::Value;
use std::time::{Duration, Instant};

/// Waits until a query of a pod holds; `what` is for the message.
fn wait(cluster: &Cluster, pod: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
    let begun = Instant::now();
    loop {
        let found = cluster.get(&["pod", pod]);
        if let Ok(found) = &found
            && holds(found)
        {
            return Ok(found.clone());
        }
        ensure!(begun.elapsed() < Duration::from_secs(60), "{pod} is not {what}: {found:#?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn pod(name: &str, command: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: c, image: {}, command: [sh, -c, {command:?}]}}\n{more}",
        image::BUSYBOX
    )
}

fn running(pod: &Value) -> bool {
    pod["status"]["phase"] == "Running"
}

#[test]
fn static_pods_follow_their_files() -> Result<()> {
    let cluster = Cluster::up("static")?;
    let manifests = cluster.data_dir().join("clusters/static/server/manifests");
    let file = manifests.join("a.yaml");
    std::fs::write(&file, pod("a", "echo one; sleep 1000", ""))?;
    let first = wait(&cluster, "a-static", "running", running)?;
    ensure!(first["metadata"]["annotations"]["kubernetes.io/config.source"] == "file");
    // A mirror that is deleted comes back; what it shows goes on.
    cluster.kubectl(&["delete", "pod", "a-static", "--wait=false"])?;
    let uid = first["metadata"]["uid"].clone();
    let again = wait(&cluster, "a-static", "made again", |p| p["metadata"]["uid"] != uid && running(p))?;
    let id = |p: &Value| p["status"]["containerStatuses"][0]["containerID"].clone();
    ensure!(id(&first) == id(&again), "the container was not touched");
    std::fs::write(&file, pod("a", "echo two; sleep 1000", ""))?;
    wait(&cluster, "a-static", "replaced", |p| running(p) && id(p) != id(&first))?;
    ensure!(cluster.kubectl(&["logs", "a-static"])?.contains("two"));
    std::fs::remove_file(&file)?;
    let begun = Instant::now();
    while cluster.get(&["pod", "a-static"]).is_ok() {
        ensure!(begun.elapsed() < Duration::from_secs(30), "the mirror of a removed file stays");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

#[test]
fn the_lease_is_renewed() -> Result<()> {
    let cluster = Cluster::up("lease")?;
    let renewed = || Ok(cluster.get(&["lease", "lease", "-n", "kube-node-lease"])?["spec"]["renewTime"].as_str().map(str::to_owned));
    let first = e2e::wait("the node's lease", 10, renewed)?;
    e2e::wait("its renewal", 30, || Ok(renewed()?.filter(|time| *time != first)))?;
    Ok(())
}

#[test]
fn limits_of_local_storage_evict() -> Result<()> {
    let cluster = Cluster::up("storage")?;
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: big}}\nspec:\n  volumes: [{{name: v, emptyDir: {{sizeLimit: 1Mi}}}}]\n  containers:\n  - name: c\n    image: {}\n    command: [sh, -c, 'dd if=/dev/zero of=/v/a bs=1M count=4; sleep 1000']\n    volumeMounts: [{{name: v, mountPath: /v}}]\n",
        image::BUSYBOX
    );
    cluster.apply(&manifest)?;
    let ended = wait(&cluster, "big", "evicted", |p| p["status"]["phase"] == "Failed")?;
    ensure!(ended["status"]["reason"] == "Evicted");
    ensure!(ended["status"]["message"] == "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ", "{ended:#}");
    Ok(())
}

#[test]
fn what_does_not_fit_is_rejected() -> Result<()> {
    let cluster = Cluster::up("rejected")?;
    for (name, more, reason) in [
        ("sysctl", "  securityContext: {sysctls: [{name: kernel.sem, value: '1'}]}\n", "SysctlForbidden"),
        ("system", "  nodeName: rejected\n  os: {name: windows}\n", "PodOSNotSupported"),
        ("selector", "  nodeName: rejected\n  nodeSelector: {no: where}\n", "NodeAffinity"),
        ("cpu", "  nodeName: rejected\n  resources: {requests: {cpu: '10000'}, limits: {cpu: '10000'}}\n", "OutOfcpu"),
    ] {
        cluster.apply(&pod(name, "sleep 1000", more)).with_context(|| name.to_owned())?;
        let ended = wait(&cluster, name, "rejected", |p| p["status"]["phase"] == "Failed")?;
        ensure!(ended["status"]["reason"] == reason, "{ended:#}");
    }
    Ok(())
}

#[test]
fn images_are_saved_removed_and_loaded() -> Result<()> {
    let cluster = Cluster::up("images")?;
    let archive = cluster.data_dir().join("saved.tar");
    cluster.image(&["save", "-f", &archive.to_string_lossy(), image::BUSYBOX])?;
    cluster.image(&["rm", image::BUSYBOX])?;
    ensure!(!cluster.image(&["ls"])?.contains("busybox"));
    cluster.image(&["load", &archive.to_string_lossy()])?;
    cluster.apply(&pod("again", "ls -l /bin/sh; sleep 1000", ""))?;
    let shown = wait(&cluster, "again", "running", running)?;
    ensure!(shown["status"]["containerStatuses"][0]["image"] == "docker.io/library/busybox:1.35");
    ensure!(cluster.image(&["prune"])?.contains("Removed docker.io/library/web"), "what no container uses goes");
    ensure!(cluster.image(&["ls"])?.contains("busybox"), "what one uses stays");
    Ok(())
}
