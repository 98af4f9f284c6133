//! What pods and events say of what went wrong, and of a pod that is resized as a whole, in upstream's words.

use anyhow::{Result, ensure};
use e2e::{Cluster, image};
use serde_json::{Value, json};

/// A pod of one busybox container `c`; `more` goes over both.
fn apply(cluster: &Cluster, name: &str, container: Value, pod: Value) -> Result<()> {
    let mut c = json!({"name": "c", "image": image::BUSYBOX, "command": ["sleep", "1000"]});
    let mut spec = json!({"terminationGracePeriodSeconds": 1});
    for (onto, more) in [(&mut c, container), (&mut spec, pod)] {
        more.as_object().into_iter().flatten().for_each(|(key, value)| onto[key] = value.clone());
    }
    spec["containers"] = json!([c]);
    cluster
        .apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).to_string())
        .map(drop)
}

/// Waits until the status of a pod holds, and gives it.
fn status(cluster: &Cluster, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
    e2e::wait(&format!("{name}: {what}"), 60, || {
        Ok(cluster.get(&["pod", name]).ok().map(|pod| pod["status"].clone()).filter(&holds))
    })
}

fn event(cluster: &Cluster, name: &str, reason: &str) -> Result<String> {
    let selector = format!("--field-selector=involvedObject.name={name},reason={reason}");
    e2e::wait(&format!("{name}: the event {reason}"), 60, || {
        let events = cluster.get(&["events", &selector])?;
        Ok(events["items"][0]["message"].as_str().map(str::to_owned))
    })
}

#[test]
fn what_goes_wrong_is_told_as_upstream_tells_it() -> Result<()> {
    let cluster = Cluster::up("told")?;
    let never = json!({"restartPolicy": "Never"});
    apply(&cluster, "start", json!({"command": ["/nope"]}), never)?;
    let mount = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let claim = json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "no"}}], "nodeName": "told"});
    apply(&cluster, "claim", mount.clone(), claim)?;
    let absent = json!({"volumes": [{"name": "v", "image": {"reference": "127.0.0.1:1/no:1"}}]});
    apply(&cluster, "absent", mount, absent)?;
    let unknown = json!({"securityContext": {"capabilities": {"add": ["NO_SUCH"]}}});
    apply(&cluster, "unknown", unknown, json!({}))?;
    let hook = json!({"lifecycle": {"preStop": {"exec": {"command": ["sleep", "100"]}}}});
    apply(&cluster, "hook", hook, json!({}))?;

    let ended = status(&cluster, "start", "failed", |s| s["phase"] == "Failed")?;
    let state = &ended["containerStatuses"][0]["state"]["terminated"];
    ensure!(state["reason"] == "StartError" && state["exitCode"] == 128, "{ended:#}");
    let told = event(&cluster, "claim", "FailedMount")?;
    let want = "Unable to attach or mount volumes: unmounted volumes=[v], unattached volumes=[], failed to process volumes=[v]: error processing PVC default/no: failed to fetch PVC from API server: persistentvolumeclaims \"no\" not found";
    ensure!(told == want, "{told}");
    let reason = |s: &Value| s["containerStatuses"][0]["state"]["waiting"]["reason"].as_str().map(str::to_owned);
    let pulls = ["ErrImagePull", "ImagePullBackOff"];
    status(&cluster, "absent", "waiting for the image of its volume", |s| {
        reason(s).is_some_and(|reason| pulls.contains(&reason.as_str())) && s["podIP"].is_string()
    })?;
    status(&cluster, "unknown", "running", |s| s["phase"] == "Running")?;
    status(&cluster, "hook", "running", |s| s["phase"] == "Running")?;
    cluster.kubectl(&["delete", "pod", "hook", "--wait=false"])?;
    ensure!(event(&cluster, "hook", "FailedPreStopHook")? == "PreStopHook failed");
    Ok(())
}

#[test]
fn a_crash_loop_that_is_deleted_shows_how_it_ended() -> Result<()> {
    let cluster = Cluster::up("loop")?;
    let finalizer = json!([{"op": "add", "path": "/metadata/finalizers", "value": ["example.com/look"]}]).to_string();
    apply(&cluster, "loop", json!({"command": ["sh", "-c", "exit 3"]}), json!({}))?;
    let first = |s: &Value| s["containerStatuses"][0]["state"].clone();
    status(&cluster, "loop", "backing off", |s| first(s)["waiting"]["reason"] == "CrashLoopBackOff")?;
    cluster.kubectl(&["patch", "pod", "loop", "--type=json", "-p", &finalizer])?;
    cluster.kubectl(&["delete", "pod", "loop", "--wait=false"])?;
    let ended = status(&cluster, "loop", "over", |s| s["phase"] == "Failed")?;
    ensure!(first(&ended)["terminated"]["exitCode"] == 3, "{ended:#}");
    let none = json!([{"op": "remove", "path": "/metadata/finalizers"}]).to_string();
    cluster.kubectl(&["patch", "pod", "loop", "--type=json", "-p", &none])?;
    Ok(())
}

#[test]
fn a_pod_is_resized_as_a_whole() -> Result<()> {
    let cluster = Cluster::up("whole")?;
    let amounts =
        |cpu: &str, memory: &str| json!({"requests": {"cpu": "50m"}, "limits": {"cpu": cpu, "memory": memory}});
    let command = json!({"command": ["sh", "-c", "sleep 1000"]});
    apply(&cluster, "whole", command, json!({"resources": amounts("200m", "64Mi")}))?;
    let limits = |cpu: &str, memory: &str| json!({"cpu": cpu, "memory": memory});
    let has = |want: Value| move |s: &Value| s["phase"] == "Running" && s["resources"]["limits"] == want;
    status(&cluster, "whole", "running", has(limits("200m", "64Mi")))?;
    let patch = json!({"spec": {"resources": amounts("300m", "128Mi")}}).to_string();
    cluster.kubectl(&["patch", "pod", "whole", "--subresource=resize", "-p", &patch])?;
    let resized = status(&cluster, "whole", "resized", has(limits("300m", "128Mi")))?;
    ensure!(resized["containerStatuses"][0]["restartCount"] == 0, "{resized:#}");
    event(&cluster, "whole", "ResizeCompleted")?;
    let removed = json!({"spec": {"resources": {"limits": {"memory": null}}}}).to_string();
    let refused = cluster.kubectl(&["patch", "pod", "whole", "--subresource=resize", "-p", &removed]);
    let why = format!("{:#}", refused.expect_err("a limit was taken away"));
    ensure!(why.contains("spec.resources.limits: Forbidden: pod-level resource limits cannot be removed"), "{why}");
    Ok(())
}
