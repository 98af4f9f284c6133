//! The checks of the restricted level.

use super::baseline::{any_proc_mount, unconfined, uses};
use super::checks::Finding;
use super::view::{View, containers, context, name, plural, quoted, setters, texts};
use serde_json::Value;
use std::collections::BTreeSet;

const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
/// Every other kind of volume that there is.
const OTHER_VOLUMES: [&str; 21] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "nfs",
    "iscsi",
    "glusterfs",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "fc",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "storageos",
];

/// `allowPrivilegeEscalation`
pub fn allow_privilege_escalation(view: &View<'_>) -> Option<Finding> {
    let bad = view.containers_where(|c| c.get("allowPrivilegeEscalation") != Some(&Value::Bool(false)));
    if view.is_windows() || bad.is_empty() {
        return None;
    }
    let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&bad));
    Finding::new("allowPrivilegeEscalation != false", detail)
}

/// `capabilities_restricted`
pub fn capabilities(view: &View<'_>) -> Option<Finding> {
    if view.is_windows() {
        return None;
    }
    let of = |context: &Value, field: &str| -> Vec<String> {
        let list = context.get("capabilities").into_iter().flat_map(|c| texts(c, field));
        list.map(str::to_owned).collect()
    };
    let added = |c: &Value| -> Vec<String> { of(c, "add").into_iter().filter(|c| c != "NET_BIND_SERVICE").collect() };
    let keeping = view.containers_where(|c| of(c, "drop").iter().all(|c| c != "ALL"));
    let adding = view.containers_where(|c| !added(c).is_empty());
    let values: BTreeSet<_> = view.containers.iter().flat_map(|c| added(context(c))).collect();
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&keeping)));
    }
    if !adding.is_empty() {
        let (who, what) = (containers(&adding), quoted(&values));
        details.push(format!("{who} must not include {what} in securityContext.capabilities.add"));
    }
    if details.is_empty() { None } else { Finding::new("unrestricted capabilities", details.join("; ")) }
}

/// `procMount_restricted`
pub fn proc_mount(view: &View<'_>) -> Option<Finding> {
    any_proc_mount(view)
}

/// `restrictedVolumes`
pub fn volumes(view: &View<'_>) -> Option<Finding> {
    let set = |volume: &Value, kind: &str| volume.get(kind).is_some_and(Value::is_object);
    let bad = view.list("volumes").iter().filter(|v| !VOLUMES.iter().any(|kind| set(v, kind)));
    let kind = |v: &Value| OTHER_VOLUMES.iter().copied().find(|kind| set(v, kind)).unwrap_or("unknown");
    let (names, kinds): (Vec<_>, BTreeSet<_>) = bad.map(|v| (name(v), kind(v))).unzip();
    if names.is_empty() {
        return None;
    }
    let (volumes, types) = (plural("volume", names.len()), plural("restricted volume type", kinds.len()));
    let detail = format!("{volumes} {} {} {types} {}", quoted(&names), uses(names.len()), quoted(&kinds));
    Finding::new("restricted volume types", detail)
}

/// `runAsNonRoot`
pub fn run_as_non_root(view: &View<'_>) -> Option<Finding> {
    if view.has_user_namespace() {
        return None;
    }
    let value = |c: &Value| c.get("runAsNonRoot").and_then(Value::as_bool);
    let (pod, reason) = (value(view.pod("")), "runAsNonRoot != true");
    if let Some(who) = setters(pod == Some(false), &view.containers_where(|c| value(c) == Some(false))) {
        return Finding::new(reason, format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    let silent = view.containers_where(|c| value(c).is_none());
    if pod == Some(true) || silent.is_empty() {
        return None;
    }
    Finding::new(reason, format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&silent)))
}

/// `runAsUser`
pub fn run_as_user(view: &View<'_>) -> Option<Finding> {
    if view.has_user_namespace() {
        return None;
    }
    let root = |c: &Value| c.get("runAsUser").and_then(Value::as_i64) == Some(0);
    let who = setters(root(view.pod("")), &view.containers_where(root))?;
    Finding::new("runAsUser=0", format!("{who} must not set runAsUser=0"))
}

/// `seccompProfile_restricted`
pub fn seccomp_profile(view: &View<'_>) -> Option<Finding> {
    if view.is_windows() {
        return None;
    }
    if let Some(finding) = unconfined(view) {
        return Some(finding);
    }
    let unset = |c: &Value| !c.get("seccompProfile").is_some_and(Value::is_object);
    let silent = view.containers_where(unset);
    if !unset(view.pod("")) || silent.is_empty() {
        return None;
    }
    let detail = format!(
        "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
        containers(&silent)
    );
    Finding::new("seccompProfile", detail)
}
