//! Pods that do their worst: each is contained, and the node stays Ready.

use anyhow::{Result, ensure};
use e2e::{Cluster, image, wait};
use std::path::Path;
use std::time::{Duration, Instant};

/// Small limits, so that they are reached soon; a full disk of the machine is not what is tested.
const SETTINGS: &str = "podPidsLimit: 100\ncontainerLogMaxSize: 1Mi\ncontainerLogMaxFiles: 3\ncontainerLogMonitorInterval: 3s\n\
evictionHard: {memory.available: 50Mi}\nimageGCHighThresholdPercent: 100\nimageGCLowThresholdPercent: 99\n";

fn pod(name: &str, script: &str, env: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: c\n    image: {}\n    command: [sh, -c, {script:?}]\n{env}",
        image::BUSYBOX
    )
}

fn ready(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["wait", "--for=condition=Ready", "node", "--all", "--timeout=1s"]).map(drop)
}

fn size(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { size(&entry.path()) } else { entry.metadata().map_or(0, |m| m.len()) }).sum()
}

#[test]
fn the_node_stays_ready() -> Result<()> {
    let cluster = Cluster::with_settings("hostile", SETTINGS)?;
    for attack in [many_variables, fork_bomb, flood, deaf_to_term] {
        attack(&cluster)?;
        ready(&cluster)?;
    }
    // What comes afterwards runs as ever.
    cluster.apply(&pod("after", "sleep 1000", ""))?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/after", "--timeout=20s"]).map(drop)
}

fn many_variables(cluster: &Cluster) -> Result<()> {
    let env: String = (0..10_000).map(|n| format!("    - {{name: V{n}, value: '{}'}}\n", "x".repeat(40))).collect();
    let file = cluster.data_dir().join("many.yaml");
    std::fs::write(&file, pod("many", "env | grep -c ^V; sleep 1000", &format!("    env:\n{env}")))?;
    // Applied, it would be there twice: the annotation has a limit of its own.
    cluster.kubectl(&["create", "-f", &file.to_string_lossy()])?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/many", "--timeout=30s"])?;
    wait("its log", 5, || Ok((cluster.kubectl(&["logs", "many"])?.trim() == "10000").then_some(())))?;
    // More than a program can be given at once is refused with the kernel's reason.
    let long = "y".repeat(140_000);
    std::fs::write(&file, pod("long", "true", &format!("    env:\n    - {{name: LONG, value: {long}}}\n")))?;
    cluster.kubectl(&["create", "-f", &file.to_string_lossy()])?;
    wait("the reason", 20, || {
        let status = cluster.get(&["pod", "long"])?["status"]["containerStatuses"][0].to_string();
        Ok(status.to_lowercase().contains("argument list too long").then_some(()))
    })?;
    cluster.kubectl(&["delete", "pod", "many", "long", "--timeout=20s"]).map(drop)
}

fn fork_bomb(cluster: &Cluster) -> Result<()> {
    cluster.apply(&pod("bomb", "echo lit; b() { b | b & }; b; sleep 1000", ""))?;
    wait("the bomb", 20, || Ok(cluster.kubectl(&["logs", "bomb"])?.contains("fork").then_some(())))?;
    ready(cluster)?;
    // Its neighbours have processes of their own.
    cluster.apply(&pod("neighbour", "sleep 1000", ""))?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/neighbour", "--timeout=30s"])?;
    cluster.kubectl(&["delete", "pod", "bomb", "neighbour", "--timeout=30s"]).map(drop)
}

fn flood(cluster: &Cluster) -> Result<()> {
    cluster.apply(&pod("flood", "yes $(seq 100)", ""))?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/flood", "--timeout=20s"])?;
    let uid = cluster.get(&["pod", "flood"])?["metadata"]["uid"].to_string();
    let log = wait("its logs", 10, || Ok(find(&cluster.data_dir().join("clusters/hostile"), uid.trim_matches('"'))))?;
    let begun = Instant::now();
    let mut largest = 0;
    while begun.elapsed() < Duration::from_secs(12) {
        largest = largest.max(size(&log));
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("a flood of 12 s took {} MB of logs at most", largest >> 20);
    // The file that is written to and the one before it, each twice the limit at most, and compressed ones.
    ensure!(largest < 8 << 20, "{largest} bytes of logs");
    let files = std::fs::read_dir(log.join("c"))?.count();
    ensure!(files <= 4, "three files, and one that is being compressed: {files}");
    ensure!(cluster.kubectl(&["logs", "flood", "--tail=1"])?.contains("1 2 3"));
    cluster.kubectl(&["delete", "pod", "flood", "--timeout=20s"])?;
    ensure!(begun.elapsed() < Duration::from_secs(30), "the flood goes on");
    wait("the logs to go", 20, || Ok((!log.exists()).then_some(())))
}

/// The log directory of a pod.
fn find(dir: &Path, uid: &str) -> Option<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path()).filter(|path| path.is_dir() && !path.is_symlink());
    entries.into_iter().find_map(|path| {
        let name = path.file_name()?.to_string_lossy().into_owned();
        if name.starts_with("default_") && name.ends_with(uid) { Some(path) } else { find(&path, uid) }
    })
}

fn deaf_to_term(cluster: &Cluster) -> Result<()> {
    cluster.apply(&pod("deaf", "trap '' TERM INT HUP; while :; do sleep 1; done", ""))?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/deaf", "--timeout=20s"])?;
    let begun = Instant::now();
    cluster.kubectl(&["delete", "pod", "deaf", "--timeout=20s"])?;
    let took = begun.elapsed();
    ensure!(took > Duration::from_millis(900) && took < Duration::from_secs(8), "its grace was a second: {took:?}");
    Ok(())
}
