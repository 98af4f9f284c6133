//! The directory of static pods: read at the start, and whenever something in it changes.

use super::{HASH, SEEN, SOURCE};
use crate::config::Config;
use crate::logs::notify;
use api::k8s::core::v1::{Pod, Toleration};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Largest file that is read.
const MAX_FILE: u64 = 10 << 20;
/// Pause before a directory that is not there is looked for again, as there is nothing to watch.
const MISSING: Duration = Duration::from_secs(20);
/// A file that is being written changes several times in a row.
const SETTLE: Duration = Duration::from_millis(50);

/// Calls `tell` with all static pods, at the start and after every change; runs until dropped.
pub async fn run(config: &Config, tell: impl Fn(Vec<Arc<Pod>>)) {
    if config.settings.static_pod_path.is_empty() {
        return std::future::pending().await;
    }
    let dir = PathBuf::from(&config.settings.static_pod_path);
    let mut known: BTreeMap<PathBuf, Arc<Pod>> = BTreeMap::new();
    loop {
        // Watched before it is read, so that no change between is missed.
        let watch = if dir.is_dir() { notify::watch(&dir).ok() } else { notify::watch_file(&dir).ok() };
        known = read(&dir, config, known);
        tell(known.values().cloned().collect());
        match &watch {
            Some(watch) => watch.changed().await,
            None => tokio::time::sleep(MISSING).await,
        }
        tokio::time::sleep(SETTLE).await;
    }
}

/// The static pods as their files are now; none where there is no directory of them.
pub fn read_once(config: &Config) -> Vec<Arc<Pod>> {
    match config.settings.static_pod_path.as_str() {
        "" => Vec::new(),
        dir => read(Path::new(dir), config, BTreeMap::new()).into_values().collect(),
    }
}

/// The pods of a directory; a file that cannot be read keeps the pod it had.
fn read(dir: &Path, config: &Config, before: BTreeMap<PathBuf, Arc<Pod>>) -> BTreeMap<PathBuf, Arc<Pod>> {
    let mut files: Vec<PathBuf> = match dir.is_dir() {
        true => std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect(),
        false => vec![dir.to_owned()],
    };
    files.retain(|path| {
        let hidden = path.file_name().is_none_or(|n| n.to_string_lossy().starts_with('.'));
        !hidden && path.is_file()
    });
    files.sort();
    let mut out = BTreeMap::new();
    for path in files {
        match load(&path, config) {
            Ok(pod) => {
                let old = before.get(&path).filter(|old| old.metadata.uid == pod.metadata.uid).cloned();
                out.insert(path, old.unwrap_or_else(|| Arc::new(pod)));
            }
            Err(why) => {
                tracing::error!(path = %path.display(), why, "cannot read a static pod");
                if let Some(old) = before.get(&path) {
                    out.insert(path, old.clone());
                }
            }
        }
    }
    out
}

fn load(path: &Path, config: &Config) -> Result<Pod, String> {
    use std::io::Read;
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    file.take(MAX_FILE).read_to_string(&mut text).map_err(|e| e.to_string())?;
    parse(&text, path, &config.node_name)
}

/// Reads one static pod and completes it.
pub fn parse(text: &str, path: &Path, node: &str) -> Result<Pod, String> {
    let value: Value = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
    if value["kind"] != "Pod" || value["apiVersion"] != "v1" {
        return Err(format!(
            "invalid pod: no kind {} is registered for version {}",
            value["kind"], value["apiVersion"]
        ));
    }
    let uid = value["metadata"]["uid"].as_str().filter(|u| !u.is_empty()).map(str::to_owned);
    let uid = uid.unwrap_or_else(|| hash(&value, path, node));
    let mut pod: Pod = serde_json::from_value(value).map_err(|e| format!("invalid pod: {e}"))?;
    let name = pod.metadata.name.clone().filter(|n| !n.is_empty()).ok_or("invalid pod: name is needed for the pod")?;
    let spec =
        pod.spec.as_mut().filter(|s| !s.containers.is_empty()).ok_or("invalid pod: spec.containers: Required value")?;
    if let Some(reference) = api_reference(&serde_json::to_value(&*spec).unwrap_or_default()) {
        return Err(format!("static pods may not reference {reference}"));
    }
    complete(spec, node);
    let meta = &mut pod.metadata;
    meta.name = Some(format!("{name}-{}", node.to_lowercase()));
    meta.namespace.get_or_insert_with(|| "default".into());
    let annotations = meta.annotations.get_or_insert_default();
    annotations.insert(HASH.into(), uid.clone());
    annotations.insert(SOURCE.into(), "file".into());
    annotations.insert(SEEN.into(), jiff::Timestamp::now().to_string());
    meta.uid = Some(uid);
    pod.status = serde_json::from_value(json!({"phase": "Pending"})).ok();
    Ok(pod)
}

/// What the API server would have filled in, as far as the kubelet reads it.
fn complete(spec: &mut api::k8s::core::v1::PodSpec, node: &str) {
    spec.node_name = Some(node.to_owned());
    let tolerations = spec.tolerations.get_or_insert_default();
    let all = Toleration { operator: Some("Exists".into()), effect: Some("NoExecute".into()), ..Toleration::default() };
    if !tolerations.contains(&all) {
        tolerations.push(all);
    }
    spec.restart_policy.get_or_insert_with(|| "Always".into());
    spec.dns_policy.get_or_insert_with(|| "ClusterFirst".into());
    spec.termination_grace_period_seconds.get_or_insert(30);
    spec.scheduler_name.get_or_insert_with(|| "default-scheduler".into());
    spec.security_context.get_or_insert_default();
    spec.enable_service_links.get_or_insert(true);
    let on_node = spec.host_network == Some(true);
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        container.termination_message_path.get_or_insert_with(|| "/dev/termination-log".into());
        container.termination_message_policy.get_or_insert_with(|| "File".into());
        let image = container.image.clone().unwrap_or_default();
        let policy = crate::images::reference::default_policy(&image);
        container.image_pull_policy.get_or_insert_with(|| policy.into());
        for port in container.ports.iter_mut().flatten() {
            port.protocol.get_or_insert_with(|| "TCP".into());
            if on_node {
                port.host_port.get_or_insert(port.container_port);
            }
        }
    }
}

/// The first kind of API object that a pod refers to, which static pods may not.
fn api_reference(spec: &Value) -> Option<&'static str> {
    if spec["serviceAccountName"].as_str().is_some_and(|n| !n.is_empty()) {
        return Some("serviceaccounts");
    }
    if spec["imagePullSecrets"].as_array().is_some_and(|l| !l.is_empty()) {
        return Some("secrets");
    }
    if spec["resourceClaims"].as_array().is_some_and(|l| !l.is_empty()) {
        return Some("resourceclaims");
    }
    const VOLUMES: [(&str, &str); 4] = [
        ("secret", "secrets"),
        ("configMap", "configmaps"),
        ("persistentVolumeClaim", "persistentvolumeclaims"),
        ("ephemeral", "persistentvolumeclaims"),
    ];
    const SOURCES: [(&str, &str); 5] = [
        ("secret", "secrets"),
        ("configMap", "configmaps"),
        ("serviceAccountToken", "serviceaccounts"),
        ("clusterTrustBundle", "clustertrustbundles"),
        ("podCertificate", "podcertificates"),
    ];
    let first = |value: &Value, table: &[(&str, &'static str)]| {
        table.iter().find(|(field, _)| !value[*field].is_null()).map(|(_, kind)| *kind)
    };
    for volume in spec["volumes"].as_array().into_iter().flatten() {
        let projected = volume["projected"]["sources"].as_array().into_iter().flatten();
        if let Some(kind) = first(volume, &VOLUMES).or_else(|| projected.into_iter().find_map(|s| first(s, &SOURCES))) {
            return Some(kind);
        }
    }
    const ENV: [(&str, &str); 4] = [
        ("configMapRef", "configmaps"),
        ("secretRef", "secrets"),
        ("configMapKeyRef", "configmaps"),
        ("secretKeyRef", "secrets"),
    ];
    let lists = ["containers", "initContainers"].into_iter().filter_map(|l| spec[l].as_array());
    lists.flatten().find_map(|container| {
        let from = container["envFrom"].as_array().into_iter().flatten();
        let values = container["env"].as_array().into_iter().flatten().map(|e| &e["valueFrom"]);
        from.chain(values).find_map(|e| first(e, &ENV))
    })
}

/// 32 hex digits of what the file says and where it is.
fn hash(value: &Value, path: &Path, node: &str) -> String {
    use sha2::{Digest, Sha256};
    let text = format!("{value}host:{node}file:{}", path.display());
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(16).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::PodExt;

    fn read(text: &str) -> Result<Pod, String> {
        parse(text, Path::new("/manifests/a.yaml"), "Node1")
    }

    const POD: &str =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, image: 'a:1'}]}\n";

    #[test]
    fn a_file_becomes_a_pod() {
        let pod = read(POD).expect("pod");
        assert_eq!((pod.name(), pod.namespace(), pod.uid().len()), ("web-node1", "default", 32));
        assert!(super::super::is_static(&pod) && !super::super::is_mirror(&pod));
        assert_eq!(pod.spec().containers[0].image_pull_policy.as_deref(), Some("IfNotPresent"));
        assert_eq!(pod.uid(), read(POD).expect("pod").uid(), "the same file is the same pod");
        assert_ne!(pod.uid(), read(&POD.replace("a:1", "a:2")).expect("pod").uid());
    }

    #[test]
    fn nonsense_and_references_are_refused() {
        for (from, to, want) in [
            ("kind: Pod", "kind: Service", "no kind"),
            ("name: web", "x: y", "name is needed"),
            ("containers: [", "serviceAccountName: a, containers: [", "may not reference serviceaccounts"),
            ("{name: c,", "{name: c, envFrom: [{secretRef: {name: s}}],", "may not reference secrets"),
            (
                "containers: [",
                "volumes: [{name: v, configMap: {name: m}}], containers: [",
                "may not reference configmaps",
            ),
        ] {
            let got = read(&POD.replace(from, to)).expect_err(to);
            assert!(got.contains(want), "{got}");
        }
        assert!(read("{").is_err());
    }
}
