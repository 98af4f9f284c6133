//! ServiceAccount: pods run as one, and find its token where they expect it.

use super::{Attributes, Operation, Plugin};
use crate::authz::node;
use crate::registry::meta::generate_name;
use crate::server::ApiServer;
use api::{Object, Status, meta};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME: &str = "kube-api-access-";
const MIRROR: &str = "kubernetes.io/config.mirror";
const ENFORCE_MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";
/// The account of a new namespace is made by a controller: wait for it this often.
const ATTEMPTS: usize = 10;
const INTERVAL: Duration = Duration::from_millis(100);
/// One hour and seven seconds, by which a token that may be extended is known.
const EXPIRATION: i64 = 3607;

/// The plugin.
pub struct ServiceAccount;

#[async_trait]
impl Plugin for ServiceAccount {
    async fn admit(&self, server: &ApiServer, a: &Attributes<'_>, pod: &mut Object) -> Result<(), Status> {
        if a.operation != Operation::Create || !a.is("", "pods") {
            return Ok(());
        }
        if is_mirror(pod) {
            return check_mirror(a, pod);
        }
        let name = match pod.pointer("/spec/serviceAccountName").and_then(Value::as_str) {
            None | Some("") => "default".to_owned(),
            Some(name) => name.to_owned(),
        };
        let account = find(server, a, &name).await?;
        let spec = meta::field_mut(pod, "spec");
        spec.insert("serviceAccountName".into(), name.clone().into());
        spec.insert("serviceAccount".into(), name.into());
        if automounts(&account, spec) {
            mount_token(spec);
        }
        let unset = spec.get("imagePullSecrets").and_then(Value::as_array).is_none_or(Vec::is_empty);
        if let (true, Some(secrets)) = (unset, account.get("imagePullSecrets")) {
            spec.insert("imagePullSecrets".into(), secrets.clone());
        }
        check_secrets(a, pod, &account)
    }

    async fn validate(&self, server: &ApiServer, a: &Attributes<'_>, pod: Option<&Object>) -> Result<(), Status> {
        let Some(pod) = pod.filter(|_| a.resource.group.is_empty() && a.resource.resource == "pods") else {
            return Ok(());
        };
        match (a.operation, a.subresource) {
            (Operation::Create, "") => judge_new(server, a, pod).await,
            (Operation::Update, "ephemeralcontainers") => judge_ephemeral(server, a, pod).await,
            _ => Ok(()),
        }
    }
}

/// Refuses a new pod, as it is after whatever has changed it, that may not have its account or a secret.
async fn judge_new(server: &ApiServer, a: &Attributes<'_>, pod: &Object) -> Result<(), Status> {
    if is_mirror(pod) {
        return check_mirror(a, pod);
    }
    check_secrets(a, pod, &*account_of(server, a, pod).await?)
}

/// Whether a kubelet shows by it what it runs from a file.
fn is_mirror(pod: &Object) -> bool {
    meta::annotation(pod, MIRROR).is_some()
}

/// Refuses a new pod a secret that its account does not list, where the account says so.
fn check_secrets(a: &Attributes<'_>, pod: &Object, account: &Object) -> Result<(), Status> {
    if enforces(account) { only_mountable(pod, account).map_err(|why| a.forbidden(&why)) } else { Ok(()) }
}

/// Refuses ephemeral containers with secrets that the pod's account does not list.
async fn judge_ephemeral(server: &ApiServer, a: &Attributes<'_>, pod: &Object) -> Result<(), Status> {
    let account = account_of(server, a, pod).await?;
    if !enforces(&account) {
        return Ok(());
    }
    // Upstream forgets to make this one a 403.
    containers_mountable(pod, &account, "ephemeralContainers", "ephemeral container")
        .map_err(|why| Status::new(500, "", why))
}

async fn account_of(server: &ApiServer, a: &Attributes<'_>, pod: &Object) -> Result<Arc<Object>, Status> {
    match pod.pointer("/spec/serviceAccountName").and_then(Value::as_str).unwrap_or("") {
        "" => {
            let why = format!("no service account specified for pod {}/{}", a.namespace, meta::name(pod));
            Err(a.forbidden(&why))
        }
        name => find(server, a, name).await,
    }
}

/// Whether the pods of an account may have the secrets that it lists and no others.
fn enforces(account: &Object) -> bool {
    let text = meta::annotation(account, ENFORCE_MOUNTABLE);
    text.is_some_and(|text| matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True"))
}

/// Refuses secrets that the account does not list.
fn only_mountable(pod: &Object, account: &Object) -> Result<(), String> {
    for name in list(pod, "volumes").filter_map(|volume| text(volume, "/secret/secretName")) {
        check_listed(account, "volume with", name)?;
    }
    containers_mountable(pod, account, "initContainers", "init container")?;
    containers_mountable(pod, account, "containers", "container")?;
    for (at, secret) in list(pod, "imagePullSecrets").enumerate() {
        let name = text(secret, "/name").unwrap_or("");
        if !lists(account, "imagePullSecrets", name) {
            let account = meta::name(account);
            return Err(format!(
                "imagePullSecrets[{at}].name={name:?} is not allowed because service account {account} does not \
                 reference that imagePullSecret"
            ));
        }
    }
    Ok(())
}

/// Refuses secrets that the environments of one list of containers are made of and the account does not list.
fn containers_mountable(pod: &Object, account: &Object, field: &str, word: &str) -> Result<(), String> {
    for container in list(pod, field) {
        let called = text(container, "/name").unwrap_or("");
        let entries = |field: &str| container.get(field).and_then(Value::as_array).into_iter().flatten();
        for env in entries("env") {
            if let Some(name) = text(env, "/valueFrom/secretKeyRef/name") {
                let variable = text(env, "/name").unwrap_or("");
                check_listed(account, &format!("{word} {called} with envVar {variable} referencing"), name)?;
            }
        }
        for name in entries("envFrom").filter_map(|from| text(from, "/secretRef/name")) {
            check_listed(account, &format!("{word} {called} with envFrom referencing"), name)?;
        }
    }
    Ok(())
}

fn check_listed(account: &Object, what: &str, name: &str) -> Result<(), String> {
    if lists(account, "secrets", name) {
        return Ok(());
    }
    let account = meta::name(account);
    Err(format!(
        "{what} secret.secretName={name:?} is not allowed because service account {account} does not reference that \
         secret"
    ))
}

fn lists(account: &Object, field: &str, name: &str) -> bool {
    let known = account.get(field).and_then(Value::as_array).into_iter().flatten();
    known.filter_map(|secret| text(secret, "/name")).any(|known| known == name)
}

fn list<'a>(pod: &'a Object, field: &str) -> impl Iterator<Item = &'a Value> {
    pod.get("spec").and_then(|spec| spec.get(field)?.as_array()).into_iter().flatten()
}

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}

async fn find(server: &ApiServer, a: &Attributes<'_>, name: &str) -> Result<Arc<Object>, Status> {
    let store = server.store("", "serviceaccounts").ok_or_else(Status::no_such_path)?;
    let attempts = if name == "default" { ATTEMPTS } else { 1 };
    for attempt in 0..attempts {
        if attempt > 0 {
            tokio::time::sleep(INTERVAL).await;
        }
        if let Some(account) = server.lives().service_accounts.get(a.namespace, name) {
            return Ok(account);
        }
        if let Some(stored) = store.get(a.namespace, name).await? {
            return Ok(Arc::new(stored.object()?));
        }
    }
    let namespace = a.namespace;
    let why = match super::check_segment(name) {
        Ok(()) => format!("serviceaccount {} not found", api::quoted(name)),
        Err(why) => why,
    };
    Err(a.forbidden(&format!("error looking up service account {namespace}/{name}: {why}")))
}

fn check_mirror(a: &Attributes<'_>, pod: &Object) -> Result<(), Status> {
    if pod.pointer("/spec/serviceAccountName").and_then(Value::as_str).is_some_and(|n| !n.is_empty()) {
        return Err(a.forbidden("a mirror pod may not reference service accounts"));
    }
    if node::has_secrets(pod) {
        return Err(a.forbidden("a mirror pod may not reference secrets"));
    }
    let mut sources =
        list(pod, "volumes").filter_map(|volume| volume.pointer("/projected/sources")?.as_array()).flatten();
    if sources.any(|source| source.get("serviceAccountToken").is_some_and(|token| !token.is_null())) {
        return Err(a.forbidden("a mirror pod may not use ServiceAccountToken volume projections"));
    }
    Ok(())
}

fn automounts(account: &Object, spec: &serde_json::Map<String, Value>) -> bool {
    let field = "automountServiceAccountToken";
    spec.get(field).and_then(Value::as_bool).or_else(|| account.get(field)?.as_bool()).unwrap_or(true)
}

fn mount_token(spec: &mut serde_json::Map<String, Value>) {
    let volumes = spec.get("volumes").and_then(Value::as_array).into_iter().flatten();
    let present = volumes.filter_map(|v| v.get("name")?.as_str()).find(|n| n.starts_with(VOLUME)).map(str::to_owned);
    let name = present.clone().unwrap_or_else(|| generate_name(VOLUME));
    let mut needed = false;
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter(|c| c.is_object()) {
            let mounts = container["volumeMounts"].take();
            let mut mounts = mounts.as_array().cloned().unwrap_or_default();
            if mounts.iter().all(|m| m.get("mountPath").and_then(Value::as_str) != Some(MOUNT_PATH)) {
                mounts.push(json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}));
                needed = true;
            }
            container["volumeMounts"] = mounts.into();
        }
    }
    if present.is_none() && needed {
        let entry = spec.entry("volumes").or_insert_with(|| json!([]));
        if let Some(volumes) = entry.as_array_mut() {
            volumes.push(json!({"name": name, "projected": source()}));
        } else {
            *entry = json!([{"name": name, "projected": source()}]);
        }
    }
}

fn source() -> Value {
    json!({"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": EXPIRATION}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace",
            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_mounted_once() {
        let mut pod = json!({"spec": {"containers": [{"name": "a"},
            {"name": "b", "volumeMounts": [{"name": "x", "mountPath": MOUNT_PATH}]}]}});
        let spec = meta::field_mut(&mut pod, "spec");
        mount_token(spec);
        mount_token(spec);
        assert_eq!(pod["spec"]["volumes"].as_array().map(Vec::len), Some(1));
        let mounts = |at: usize| pod["spec"]["containers"][at]["volumeMounts"].as_array().map(Vec::len);
        assert_eq!((mounts(0), mounts(1)), (Some(1), Some(1)));
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][0]["name"], pod["spec"]["volumes"][0]["name"]);
    }
}
