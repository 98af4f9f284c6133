//! ServiceAccount: pods run as one, and find its token where they expect it.

use super::{Attributes, Operation, Plugin};
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
        if meta::annotation(pod, MIRROR).is_some() {
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
        Ok(())
    }

    async fn validate(&self, server: &ApiServer, a: &Attributes<'_>, pod: Option<&Object>) -> Result<(), Status> {
        let Some(pod) = pod.filter(|_| a.operation == Operation::Create && a.is("", "pods")) else { return Ok(()) };
        let name = pod.pointer("/spec/serviceAccountName").and_then(Value::as_str).unwrap_or("");
        if name.is_empty() || meta::annotation(pod, MIRROR).is_some() {
            return Ok(());
        }
        let account = find(server, a, name).await?;
        let enforced = meta::annotation(&account, ENFORCE_MOUNTABLE);
        match enforced.filter(|text| matches!(*text, "1" | "t" | "T" | "true" | "TRUE" | "True")) {
            Some(_) => only_mountable(pod, &account).map_err(|why| a.forbidden(&why)),
            None => Ok(()),
        }
    }
}

/// Refuses secrets that the account does not list.
fn only_mountable(pod: &Object, account: &Object) -> Result<(), String> {
    let list = |at: &'static str, of: &'static str| {
        pod.pointer(&format!("/{at}/{of}")).and_then(Value::as_array).into_iter().flatten()
    };
    let account_name = meta::name(account);
    let lists = |field: &str, name: &str| {
        let known = account.get(field).and_then(Value::as_array).into_iter().flatten();
        known.filter_map(|secret| secret.get("name")?.as_str()).any(|known| known == name)
    };
    let check = |what: String, name: &str| match lists("secrets", name) {
        true => Ok(()),
        false => Err(format!(
            "{what} secret.secretName={name:?} is not allowed because service account {account_name} does not \
             reference that secret"
        )),
    };
    let text = |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    for name in list("spec", "volumes").filter_map(|volume| text(volume, "/secret/secretName")) {
        check("volume with".into(), &name)?;
    }
    for (kind, word) in [("initContainers", "init container"), ("containers", "container")] {
        for container in list("spec", kind) {
            let called = text(container, "/name").unwrap_or_default();
            for env in container.get("env").and_then(Value::as_array).into_iter().flatten() {
                if let Some(name) = text(env, "/valueFrom/secretKeyRef/name") {
                    let variable = text(env, "/name").unwrap_or_default();
                    check(format!("{word} {called} with envVar {variable} referencing"), &name)?;
                }
            }
            for from in container.get("envFrom").and_then(Value::as_array).into_iter().flatten() {
                if let Some(name) = text(from, "/secretRef/name") {
                    check(format!("{word} {called} with envFrom referencing"), &name)?;
                }
            }
        }
    }
    for (at, secret) in list("spec", "imagePullSecrets").enumerate() {
        let name = text(secret, "/name").unwrap_or_default();
        if !lists("imagePullSecrets", &name) {
            return Err(format!(
                "imagePullSecrets[{at}].name={name:?} is not allowed because service account {account_name} does not \
                 reference that imagePullSecret"
            ));
        }
    }
    Ok(())
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
    let why = format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
    Err(a.forbidden(&why))
}

fn check_mirror(a: &Attributes<'_>, pod: &Object) -> Result<(), Status> {
    if pod.pointer("/spec/serviceAccountName").and_then(Value::as_str).is_some_and(|n| !n.is_empty()) {
        return Err(a.forbidden("a mirror pod may not reference service accounts"));
    }
    let text = pod.get("spec").map(Value::to_string).unwrap_or_default();
    if text.contains("\"secretName\":") || text.contains("\"secretKeyRef\":") || text.contains("\"secretRef\":") {
        return Err(a.forbidden("a mirror pod may not reference secrets"));
    }
    if text.contains("\"serviceAccountToken\":") {
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
