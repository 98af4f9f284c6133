//! The life of pods: the real API server in memory, a runtime in memory, volumes on the real file system (root).

mod support;

use serde_json::{Value, json};
use support::Cluster;

fn condition<'a>(pod: &'a Value, name: &str) -> &'a Value {
    pod["status"]["conditions"].as_array().and_then(|c| c.iter().find(|c| c["type"] == name)).unwrap_or(&Value::Null)
}

fn container(name: &str, command: &[&str]) -> Value {
    json!({"name": name, "image": "busybox:1", "command": command})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_and_is_deleted() {
    let cluster = Cluster::start().await;
    cluster.config_map("settings", json!({"a": "1", "b": "2"})).await;
    let mut main = container("main", &["run", "$(GREETING)"]);
    main["env"] = json!([{"name": "GREETING", "value": "hello $(WHO)"}, {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a"}}}, {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]);
    main["volumeMounts"] =
        json!([{"name": "settings", "mountPath": "/settings"}, {"name": "scratch", "mountPath": "/scratch"}]);
    let volumes = json!([{"name": "settings", "configMap": {"name": "settings"}}, {"name": "scratch", "emptyDir": {}}]);
    let made = cluster.create("p", json!({"containers": [main], "volumes": volumes})).await;
    let pod = cluster.wait("p", "readiness", |p| condition(p, "Ready")["status"] == "True").await;
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(pod["status"]["podIP"], "10.1.0.5");
    assert_eq!(pod["status"]["hostIP"], "127.0.0.1");
    assert_eq!(pod["status"]["qosClass"], "BestEffort");
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(
        (&status["ready"], &status["started"], &status["restartCount"]),
        (&json!(true), &json!(true), &json!(0))
    );
    assert!(status["containerID"].as_str().is_some_and(|id| id.starts_with("fake://")));
    assert!(status["state"]["running"]["startedAt"].is_string());

    let config = cluster.runtime.config("main").expect("config");
    let env = |name: &str| config.envs.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    assert_eq!((env("NAME"), env("A"), env("IP")), (Some("p"), Some("1"), Some("10.1.0.5")));
    assert_eq!(config.command, ["run", "hello $(WHO)"]);
    let mount = |path: &str| config.mounts.iter().find(|m| m.container_path == path).map(|m| m.host_path.clone());
    let file = std::path::PathBuf::from(mount("/settings").expect("mount")).join("a");
    assert_eq!(std::fs::read_to_string(&file).expect("file"), "1");
    let token = mount("/var/run/secrets/kubernetes.io/serviceaccount").expect("token volume");
    assert!(std::fs::read_to_string(format!("{token}/token")).expect("token").split('.').count() == 3);
    assert_eq!(std::fs::read_to_string(format!("{token}/namespace")).expect("namespace"), "default");
    assert!(std::fs::read_to_string(mount("/etc/hosts").expect("hosts")).expect("hosts").contains("10.1.0.5\tp\n"));
    for (reason, message) in [
        ("Pulled", "Container image \"busybox:1\" already present on machine and can be accessed by the pod"),
        ("Created", "Container created"),
        ("Started", "Container started"),
    ] {
        cluster.event(reason, message).await;
    }

    cluster.config_map("settings", json!({"a": "changed"})).await;
    for _ in 0..100 {
        if std::fs::read_to_string(&file).is_ok_and(|t| t == "changed") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(std::fs::read_to_string(&file).expect("file"), "changed");

    cluster.delete("p").await;
    cluster.gone("p").await;
    cluster.event("Killing", "Stopping container main").await;
    for _ in 0..100 {
        if !cluster.pod_dir(&made).exists() && cluster.runtime.calls().contains(&"remove_pod_sandbox".to_owned()) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("something of the pod is left: {:?}", cluster.runtime.calls());
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_end_as_their_policy_says() {
    let cluster = Cluster::start().await;
    for (name, policy, code, phase) in
        [("ok", "Never", "0", "Succeeded"), ("bad", "Never", "3", "Failed"), ("once", "OnFailure", "0", "Succeeded")]
    {
        cluster.create(name, json!({"restartPolicy": policy, "containers": [container("c", &["exit", code])]})).await;
        let pod = cluster.phase(name, phase).await;
        assert_eq!(pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"].to_string(), code);
        assert_eq!(condition(&pod, "Ready")["reason"], if phase == "Failed" { "PodFailed" } else { "PodCompleted" });
        cluster.delete(name).await;
        cluster.gone(name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_back_off_and_images_are_waited_for() {
    let cluster = Cluster::start().await;
    cluster.create("crash", json!({"containers": [container("c", &["exit", "1"])]})).await;
    let waits = |reason: &'static str| {
        move |p: &Value| p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == reason
    };
    let pod = cluster.wait("crash", "CrashLoopBackOff", waits("CrashLoopBackOff")).await;
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(status["restartCount"], 1);
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 1);
    let message = status["state"]["waiting"]["message"].as_str().expect("message");
    assert!(message.starts_with("back-off 10s restarting failed container=c pod=crash_default("), "{message}");
    assert_eq!(pod["status"]["phase"], "Running");
    cluster.event("BackOff", "Back-off restarting failed container c in pod crash_default(").await;

    cluster.create("image", json!({"containers": [{"name": "c", "image": "missing:1"}]})).await;
    cluster.wait("image", "ErrImagePull", waits("ErrImagePull")).await;
    let pod = cluster.wait("image", "ImagePullBackOff", waits("ImagePullBackOff")).await;
    let message = &pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"];
    assert_eq!(message, "Back-off pulling image \"missing:1\": ErrImagePull: missing:1: not found");
    cluster.create("name", json!({"containers": [{"name": "c", "image": "Upper:1"}]})).await;
    cluster.wait("name", "InvalidImageName", waits("InvalidImageName")).await;
    let mut env = container("c", &["run"]);
    env["env"] = json!([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "nope", "key": "a"}}}]);
    cluster.create("config", json!({"containers": [env]})).await;
    let pod = cluster.wait("config", "CreateContainerConfigError", waits("CreateContainerConfigError")).await;
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"], "configmap \"nope\" not found");
    // The config map comes, and with it the container, without waiting for the next attempt.
    cluster.config_map("nope", json!({"a": "1"})).await;
    cluster.phase("config", "Running").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn init_containers_and_sidecars_keep_their_order() {
    let cluster = Cluster::start().await;
    let mut sidecar = container("side", &["run"]);
    sidecar["restartPolicy"] = "Always".into();
    let spec = json!({"restartPolicy": "Never", "initContainers": [container("first", &["exit", "0"]), sidecar, container("second", &["exit", "0"])],
        "containers": [container("main", &["run"])]});
    cluster.create("p", spec).await;
    let pod = cluster.wait("p", "readiness", |p| condition(p, "Ready")["status"] == "True").await;
    let started: Vec<String> =
        cluster.runtime.calls().into_iter().filter(|c| c.starts_with("create_container")).collect();
    assert_eq!(started, ["first", "side", "second", "main"].map(|n| format!("create_container {n} 0")));
    assert_eq!(condition(&pod, "Initialized")["status"], "True");
    cluster.runtime.end("main", 0);
    cluster.phase("p", "Succeeded").await;
    assert!(cluster.runtime.calls().contains(&"stop_container side".to_owned()), "the sidecar is ended with the pod");
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_decide_about_readiness_and_restarts() {
    let cluster = Cluster::start().await;
    let mut unready = container("c", &["run"]);
    unready["readinessProbe"] = json!({"exec": {"command": ["probe", "1"]}, "periodSeconds": 1});
    cluster.create("unready", json!({"containers": [unready]})).await;
    cluster.event("Unhealthy", "Readiness probe failed: said").await;
    let pod = cluster.phase("unready", "Running").await;
    assert_eq!(condition(&pod, "Ready")["message"], "containers with unready status: [c]");
    let mut sick = container("c", &["run"]);
    sick["livenessProbe"] = json!({"exec": {"command": ["probe", "1"]}, "periodSeconds": 1, "failureThreshold": 1});
    cluster.create("sick", json!({"containers": [sick]})).await;
    cluster
        .wait("sick", "a restart", |p| p["status"]["containerStatuses"][0]["restartCount"].as_i64() >= Some(1))
        .await;
    cluster.event("Killing", "Container c failed liveness probe, will be restarted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_kubelet_takes_over_what_runs() {
    let mut cluster = Cluster::start().await;
    cluster.create("p", json!({"containers": [container("c", &["run"])]})).await;
    let ready = |p: &Value| condition(p, "Ready")["status"] == "True";
    let before = cluster.wait("p", "readiness", ready).await;
    let calls = cluster.runtime.calls().len();
    cluster.restart_kubelet().await;
    cluster.create("next", json!({"containers": [container("n", &["run"])]})).await;
    cluster.wait("next", "readiness", ready).await;
    let after = cluster.wait("p", "readiness", ready).await;
    assert_eq!(after["status"]["containerStatuses"], before["status"]["containerStatuses"]);
    let made: Vec<String> =
        cluster.runtime.calls().split_off(calls).into_iter().filter(|c| c.starts_with("create_container")).collect();
    assert_eq!(made, ["create_container n 0"], "what runs is not started again");
    cluster.delete("p").await;
    cluster.gone("p").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_do_not_fit_are_rejected() {
    let cluster = Cluster::start().await;
    let mut big = container("c", &["run"]);
    big["resources"] = json!({"requests": {"cpu": "1000"}});
    cluster.create("big", json!({"containers": [big]})).await;
    let pod = cluster.phase("big", "Failed").await;
    assert_eq!(pod["status"]["reason"], "OutOfcpu");
    assert!(pod["status"]["containerStatuses"].is_null());
    assert!(pod["status"]["message"].as_str().is_some_and(|m| {
        m.starts_with("Pod was rejected: Node didn't have enough resource: cpu, requested: 1000000, used: 0")
    }));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_answers_for_its_status() {
    let cluster = Cluster::start().await;
    let nodes: kube::Api<api::k8s::core::v1::Node> = kube::Api::all(cluster.admin.clone());
    let patch = async |status: Value| {
        let patch = kube::api::Patch::Strategic(json!({"status": status}));
        nodes.patch_status("n1", &Default::default(), &patch).await.map(drop)
    };
    let wait = async |what: &str, holds: &dyn Fn(&Value) -> bool| {
        for _ in 0..300 {
            let node = serde_json::to_value(nodes.get_opt("n1").await.expect("get")).expect("json");
            if holds(&node) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("the node never came to {what}");
    };
    wait("readiness", &|n| condition(n, "Ready")["status"] == "True").await;
    patch(json!({"capacity": {"example.com/dongle": "5"}})).await.expect("patch");
    wait("a dongle", &|n| n["status"]["allocatable"]["example.com/dongle"] == "5").await;
    patch(json!({"capacity": {"example.com/dongle": null}})).await.expect("patch");
    wait("no dongle", &|n| n["status"]["allocatable"]["example.com/dongle"].is_null()).await;
    patch(json!({"conditions": [{"type": "Ready", "status": "Unknown"}]})).await.expect("patch");
    wait("readiness again", &|n| condition(n, "Ready")["status"] == "True").await;
}

/// Has the one container of `p` ask for other resources.
async fn resize(cluster: &Cluster, request: &str, limit: &str) {
    let resources = json!({"requests": {"cpu": request}, "limits": {"cpu": limit}});
    let patch = kube::api::Patch::Strategic(json!({"spec": {"containers": [{"name": "c", "resources": resources}]}}));
    cluster.pods().patch_subresource("resize", "p", &Default::default(), &patch).await.expect("resize");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resize_reaches_what_runs() {
    let mut cluster = Cluster::start().await;
    let mut main = container("c", &["run"]);
    main["resources"] = json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}});
    cluster.create("p", json!({"containers": [main]})).await;
    cluster.phase("p", "Running").await;
    resize(&cluster, "300m", "400m").await;
    let granted = |p: &Value, cpu: &str| p["status"]["containerStatuses"][0]["resources"]["limits"]["cpu"] == cpu;
    let pod = cluster.wait("p", "its new size", |p| granted(p, "400m")).await;
    assert_eq!(pod["status"]["containerStatuses"][0]["allocatedResources"]["cpu"], "300m");
    assert!(cluster.runtime.calls().contains(&"update_container_resources 40000".to_owned()));
    // Another pod takes all but half a CPU: what the node has does not suffice, though it could.
    let mut other = container("c", &["run"]);
    let free = format!("{}m", cluster.allocatable_cpu().await - 500);
    other["resources"] = json!({"requests": {"cpu": free}});
    cluster.create("q", json!({"containers": [other]})).await;
    cluster.phase("q", "Running").await;
    resize(&cluster, "900m", "900m").await;
    let pod = cluster.wait("p", "a deferral", |p| condition(p, "PodResizePending")["reason"] == "Deferred").await;
    assert!(granted(&pod, "400m"), "what it has does not change");
    let calls = cluster.runtime.calls().len();
    cluster.restart_kubelet().await;
    cluster.create("late", json!({"containers": [container("c", &["run"])]})).await;
    cluster.phase("late", "Running").await;
    let pod = cluster.wait("p", "a deferral", |p| condition(p, "PodResizePending")["reason"] == "Deferred").await;
    assert!(granted(&pod, "400m") && pod["status"]["phase"] == "Running", "a restart neither grants nor ends: {pod}");
    assert!(!cluster.runtime.calls()[calls..].iter().any(|call| call.starts_with("update_container_resources")));
    resize(&cluster, "100m", "200m").await;
    cluster.wait("p", "the old size", |p| granted(p, "200m") && condition(p, "PodResizePending").is_null()).await;
}
