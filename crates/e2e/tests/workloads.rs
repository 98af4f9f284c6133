//! Jobs, daemon sets, mounted configuration, and pods that are not well.

use anyhow::{Context, Result};
use e2e::{Cluster, wait};
use serde_json::Value;

fn example(name: &str) -> String {
    format!("{}/../../examples/{name}.yaml", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn workloads() -> Result<()> {
    let cluster = Cluster::up("e2e-workloads")?;
    for name in ["job", "daemonset", "config", "unhappy"] {
        cluster.kubectl(&["apply", "-f", &example(name)])?;
    }
    a_daemon_set_runs(&cluster)?;
    a_revision_leaves_a_name_to_what_has_it(&cluster)?;
    a_change_reaches_a_mounted_file(&cluster)?;
    events_say_why_a_pod_waits(&cluster)?;
    too_much_memory_is_killed(&cluster)?;
    a_failing_liveness_probe_restarts(&cluster)?;
    readiness_takes_a_pod_out_of_its_service(&cluster)?;
    a_job_completes_the_third_time(&cluster)
}

fn a_daemon_set_runs(cluster: &Cluster) -> Result<()> {
    wait("the daemon set", 30, || Ok((cluster.get(&["daemonset", "everywhere"])?["status"]["numberReady"] == 1).then_some(())))
}

/// The revision of the daemon set with this number.
fn revision(cluster: &Cluster, number: u64) -> Result<Value> {
    wait("the revision", 30, || {
        let list = cluster.get(&["controllerrevisions", "-l", "app=everywhere"])?;
        let found = list["items"].as_array().into_iter().flatten().find(|r| r["revision"] == number);
        Ok(found.cloned())
    })
}

fn a_revision_leaves_a_name_to_what_has_it(cluster: &Cluster) -> Result<()> {
    let change = |to: &str| {
        let patch = format!(r#"{{"spec":{{"template":{{"metadata":{{"annotations":{{"v":{to}}}}}}}}}}}"#);
        cluster.kubectl(&["patch", "daemonset", "everywhere", "-p", &patch])
    };
    change("\"1\"")?;
    let taken = revision(cluster, 2)?;
    change("null")?;
    let before = revision(cluster, 3)?;
    // The name is kept, with the data of the other.
    let name = taken["metadata"]["name"].as_str().context("a name")?;
    cluster.kubectl(&["delete", "controllerrevision", name])?;
    let (labels, owners) = (&taken["metadata"]["labels"], &taken["metadata"]["ownerReferences"]);
    let metadata = serde_json::json!({"name": name, "labels": labels, "ownerReferences": owners});
    let other = serde_json::json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": metadata, "data": before["data"], "revision": 1});
    cluster.apply(&other.to_string())?;
    change("\"1\"")?;
    assert_ne!(revision(cluster, 4)?["metadata"]["name"], name);
    let counted = || Ok((cluster.get(&["daemonset", "everywhere"])?["status"]["collisionCount"] == 1).then_some(()));
    wait("the collision to be counted", 30, counted)
}

fn a_change_reaches_a_mounted_file(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/reader", "--timeout=30s"])?;
    let read = || cluster.kubectl(&["exec", "reader", "--", "sh", "-c", "cat /settings/colour; echo \" $COLOUR\""]);
    assert_eq!(read()?.trim(), "blue blue");
    cluster.kubectl(&["patch", "configmap", "settings", "-p", r#"{"data":{"colour":"green"}}"#])?;
    wait("the file to change", 30, || Ok((read()?.trim() == "green blue").then_some(())))
}

fn events_say_why_a_pod_waits(cluster: &Cluster) -> Result<()> {
    let events = wait("an event", 20, || {
        let text = cluster.kubectl(&["describe", "pod", "too-big"])?;
        Ok(text.contains("FailedScheduling").then_some(text))
    })?;
    assert!(events.contains("0/1 nodes are available: 1 Insufficient memory."), "{events}");
    wait("the missing image", 20, || Ok(cluster.kubectl(&["get", "pod", "unknown-image"])?.contains("ErrImageNeverPull").then_some(())))
}

fn container(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

fn too_much_memory_is_killed(cluster: &Cluster) -> Result<()> {
    wait("OOMKilled", 40, || {
        let pod = cluster.get(&["pod", "greedy"])?;
        Ok((container(&pod)["state"]["terminated"]["reason"] == "OOMKilled" && container(&pod)["state"]["terminated"]["exitCode"] == 137).then_some(()))
    })
}

fn a_failing_liveness_probe_restarts(cluster: &Cluster) -> Result<()> {
    wait("a restart", 40, || Ok(container(&cluster.get(&["pod", "sick"])?)["restartCount"].as_u64().filter(|n| *n > 0)))?;
    let text = cluster.kubectl(&["describe", "pod", "sick"])?;
    assert!(text.contains("Container c failed liveness probe, will be restarted"), "{text}");
    Ok(())
}

const GATED: &str = "
apiVersion: v1
kind: Pod
metadata: {name: gated, labels: {app: gated}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: busybox:1.35
    command: [sh, -c, 'touch /tmp/ready; sleep 3600']
    readinessProbe: {exec: {command: [cat, /tmp/ready]}, periodSeconds: 1, failureThreshold: 1}
---
apiVersion: v1
kind: Service
metadata: {name: gated}
spec: {selector: {app: gated}, ports: [{port: 80}]}
";

fn readiness_takes_a_pod_out_of_its_service(cluster: &Cluster) -> Result<()> {
    cluster.apply(GATED)?;
    let ready = |want: bool| {
        wait("the endpoint's readiness", 30, || {
            let slices = cluster.get(&["endpointslices", "-l", "kubernetes.io/service-name=gated"])?;
            let ready = slices["items"][0]["endpoints"][0]["conditions"]["ready"].as_bool();
            Ok((ready == Some(want)).then_some(()))
        })
    };
    ready(true)?;
    cluster.kubectl(&["exec", "gated", "--", "rm", "/tmp/ready"])?;
    ready(false)?;
    assert!(cluster.kubectl(&["get", "endpoints", "gated"])?.contains("<none>"));
    Ok(())
}

fn a_job_completes_the_third_time(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["wait", "--for=condition=complete", "job/third-time", "--timeout=90s"])?;
    let pods = cluster.get(&["pods", "-l", "batch.kubernetes.io/job-name=third-time"])?;
    let pod = pods["items"].get(0).context("the job's pod")?;
    assert_eq!(container(pod)["restartCount"], 2);
    assert!(cluster.kubectl(&["logs", "job/third-time"])?.contains("try 3"));
    Ok(())
}
