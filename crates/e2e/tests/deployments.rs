//! Deployments and services: scaled, healed, rolled and reached.

use anyhow::{Context, Result};
use e2e::{Cluster, wait};
use std::process::{Command, Stdio};

const WEB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/web.yaml");

#[test]
fn a_web_service() -> Result<()> {
    let cluster = Cluster::up("e2e-deployments")?;
    cluster.kubectl(&["run", "nginx-pod", "--image=web:1", "--port=80"])?;
    cluster.kubectl(&["create", "deployment", "hello", "--image=web:1"])?;
    cluster.kubectl(&["apply", "-f", WEB])?;
    for name in ["web", "hello"] {
        cluster.kubectl(&["rollout", "status", &format!("deployment/{name}"), "--timeout=30s"])?;
    }
    assert!(cluster.kubectl(&["get", "deployments"])?.contains("2/2"));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/nginx-pod", "--timeout=20s"])?;

    cluster.kubectl(&["scale", "deployment/web", "--replicas=3"])?;
    ready(&cluster, 3)?;
    heals(&cluster)?;
    rolls_without_a_failed_request(&cluster)?;
    is_reached(&cluster)?;
    assert!(cluster.kubectl(&["cluster-info"])?.contains("control plane"));
    assert!(cluster.kubectl(&["config", "view", "--minify"])?.contains(cluster.name()));
    Ok(())
}

fn ready(cluster: &Cluster, count: u64) -> Result<()> {
    wait("the replicas", 30, || {
        let deployment = cluster.get(&["deployment", "web"])?;
        let status = &deployment["status"];
        Ok((status["readyReplicas"] == count && status["replicas"] == count).then_some(()))
    })
}

/// The uids of the pods with the container ids that run in them.
fn instances(cluster: &Cluster) -> Result<Vec<(String, String)>> {
    let pods = cluster.get(&["pods", "-l", "app=web"])?;
    let items = pods["items"].as_array().context("items")?;
    let text = |v: &serde_json::Value| v.as_str().unwrap_or("").to_owned();
    Ok(items.iter().map(|p| (text(&p["metadata"]["name"]), text(&p["status"]["containerStatuses"][0]["containerID"]))).collect())
}

fn heals(cluster: &Cluster) -> Result<()> {
    let before = instances(cluster)?;
    let (victim, id) = before.first().context("a pod")?.clone();
    cluster.kubectl(&["exec", &victim, "--", "sh", "-c", "kill -9 1; kill -QUIT 1"]).ok();
    wait("the container to be replaced", 30, || Ok(instances(cluster)?.into_iter().find(|(name, new)| *name == victim && *new != id && !new.is_empty())))?;
    cluster.kubectl(&["delete", "pod", &before[1].0, "--wait=false"])?;
    wait("the pod to be replaced", 30, || {
        let now = instances(cluster)?;
        Ok((now.len() == 3 && now.iter().all(|(name, _)| *name != before[1].0)).then_some(()))
    })?;
    ready(cluster, 3)
}

fn rolls_without_a_failed_request(cluster: &Cluster) -> Result<()> {
    let service = cluster.get(&["service", "web"])?;
    let address = service["spec"]["clusterIP"].as_str().context("clusterIP")?;
    let loop_ = format!("while true; do curl -s -m 5 http://{address}/ || echo FAILED; done");
    let mut client = Command::new("sh").args(["-c", &loop_]).stdout(Stdio::piped()).spawn()?;
    let rolled = roll(cluster);
    client.kill()?;
    let output = client.wait_with_output()?;
    rolled?;
    let text = String::from_utf8_lossy(&output.stdout);
    let failures = text.lines().filter(|l| l.contains("FAILED")).count();
    assert_eq!(failures, 0, "of {} requests", text.lines().count());
    assert!(text.contains("web:1") && text.contains("web:2"), "requests met both versions");
    let history = cluster.kubectl(&["rollout", "history", "deployment/web"])?;
    assert!(history.contains("REVISION"), "{history}");
    cluster.kubectl(&["rollout", "undo", "deployment/web"])?;
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    assert_eq!(cluster.get(&["deployment", "web"])?["spec"]["template"]["spec"]["containers"][0]["image"], "web:1");
    Ok(())
}

fn roll(cluster: &Cluster) -> Result<()> {
    std::thread::sleep(std::time::Duration::from_millis(500));
    cluster.kubectl(&["set", "image", "deployment/web", "web=web:2"])?;
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    std::thread::sleep(std::time::Duration::from_millis(500));
    Ok(())
}

fn is_reached(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["expose", "deployment", "hello", "--name=by-port", "--type=NodePort", "--port=80"])?;
    cluster.kubectl(&["expose", "deployment", "hello", "--name=by-name", "--type=ClusterIP", "--port=80"])?;
    let by_name = wait("the service by name", 10, || Ok(Some(cluster.kubectl(&["exec", "nginx-pod", "--", "curl", "-sf", "-m", "2", "http://by-name.default"])?)))?;
    assert!(by_name.starts_with("web:1 hello-"), "{by_name}");
    let service = cluster.get(&["service", "by-port"])?;
    let node = cluster.get(&["node", cluster.name()])?;
    let address = node["status"]["addresses"][0]["address"].as_str().context("address")?.to_owned();
    let url = format!("http://{address}:{}", service["spec"]["ports"][0]["nodePort"]);
    let by_port = wait("the service by node port", 10, || {
        let output = Command::new("curl").args(["-sf", "-m", "2", &url]).output()?;
        Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned()))
    })?;
    assert!(by_port.starts_with("web:1 hello-"), "{by_port}");
    Ok(())
}
