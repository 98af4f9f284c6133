//! Containers outlive every Sagong process but their shims.

use anyhow::{Context, Result};
use e2e::{Cluster, wait};
use std::process::{Command, Stdio};

const WEB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/web.yaml");
const COUNTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/counter.yaml");

#[test]
fn kill_9_of_the_server() -> Result<()> {
    let cluster = Cluster::up("e2e-survival")?;
    cluster.kubectl(&["apply", "-f", WEB, "-f", COUNTER])?;
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=30s"])?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/counter", "--timeout=30s"])?;
    let (before, shims_before) = (containers(&cluster)?, shims(&cluster)?);
    assert_eq!(shims_before.len(), before.len(), "a shim for each pod");
    let address = cluster.get(&["service", "web"])?["spec"]["clusterIP"].as_str().context("clusterIP")?.to_owned();

    let requests = format!("for i in $(seq 150); do curl -s -m 5 http://{address}/ || echo FAILED; sleep 0.02; done");
    let client = Command::new("sh").args(["-c", &requests]).stdout(Stdio::piped()).spawn()?;
    let mut logs = cluster.command(&["logs", "-f", "counter"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let old = cluster.server_pid()?;
    let killed = Command::new("kill").args(["-9", &old.to_string()]).status()?;
    assert!(killed.success());
    let answers = String::from_utf8(client.wait_with_output()?.stdout)?;
    logs.kill()?;
    logs.wait()?;
    assert_eq!((answers.lines().count(), answers.matches("FAILED").count()), (150, 0));

    wait("a new server", 20, || Ok(cluster.try_kubectl(&["get", "--raw", "/readyz"])?.status.success().then_some(())))?;
    assert_ne!(cluster.server_pid()?, old);
    cluster.kubectl(&["create", "deployment", "after", "--image=busybox:1.35", "--", "sleep", "3600"])?;
    cluster.kubectl(&["rollout", "status", "deployment/after", "--timeout=30s"])?;
    let after = containers(&cluster)?;
    assert!(before.iter().all(|c| after.contains(c)), "before: {before:?}\nafter: {after:?}");
    let shims_after = shims(&cluster)?;
    assert!(
        shims_before.iter().all(|pid| shims_after.contains(pid)),
        "before: {shims_before:?}\nafter: {shims_after:?}"
    );
    assert!(cluster.kubectl(&["logs", "counter", "--tail=1"])?.contains(": "));
    cluster.kubectl(&["delete", "-f", COUNTER, "--grace-period=1"])?;
    Ok(())
}

/// Process ids of the shims.
fn shims(cluster: &Cluster) -> Result<Vec<i32>> {
    let named =
        |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "sagong-shim");
    Ok(cluster.processes()?.into_iter().filter(named).collect())
}

/// Every container as `pod/id/restarts`.
fn containers(cluster: &Cluster) -> Result<Vec<String>> {
    let pods = cluster.get(&["pods"])?;
    let items = pods["items"].as_array().context("items")?;
    let text = |pod: &serde_json::Value| {
        let status = &pod["status"]["containerStatuses"][0];
        format!("{}/{}/{}", pod["metadata"]["name"], status["containerID"], status["restartCount"])
    };
    Ok(items.iter().map(text).collect())
}
