//! RuntimeClass: a pod of a class gets the class's overhead and scheduling constraints.

use super::{Attributes, Operation, Plugin};
use crate::server::ApiServer;
use api::{Object, Status, meta};
use async_trait::async_trait;
use serde_json::Value;
use std::sync::Arc;

/// The plugin.
pub struct RuntimeClass;

#[async_trait]
impl Plugin for RuntimeClass {
    async fn admit(&self, server: &ApiServer, a: &Attributes<'_>, pod: &mut Object) -> Result<(), Status> {
        if a.operation != Operation::Create || !a.is("", "pods") {
            return Ok(());
        }
        let name = pod.pointer("/spec/runtimeClassName").and_then(Value::as_str).unwrap_or("").to_owned();
        if name.is_empty() {
            return Ok(());
        }
        let Some(class) = find(server, &name).await? else {
            return Err(a.forbidden(&format!("pod rejected: RuntimeClass {name:?} not found")));
        };
        set_overhead(a, pod, &class)?;
        set_scheduling(a, pod, &class)
    }

    /// An overhead that the client has set, even an empty one, must be the class's.
    async fn validate(&self, server: &ApiServer, a: &Attributes<'_>, pod: Option<&Object>) -> Result<(), Status> {
        let overhead = pod.and_then(|pod| pod.pointer("/spec/overhead")).filter(|overhead| !overhead.is_null());
        let (Some(overhead), Operation::Create, true) = (overhead, a.operation, a.is("", "pods")) else {
            return Ok(());
        };
        let name = pod.and_then(|pod| pod.pointer("/spec/runtimeClassName")).and_then(Value::as_str).unwrap_or("");
        let class = if name.is_empty() { None } else { find(server, name).await? };
        match class.as_deref().and_then(|class| class.pointer("/overhead/podFixed")) {
            Some(fixed) if fixed == overhead => Ok(()),
            Some(_) => Err(a.forbidden("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")),
            None => {
                let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
                Err(a.forbidden(why))
            }
        }
    }
}

/// The class; one that the cache does not know yet may have been made a moment ago.
async fn find(server: &ApiServer, name: &str) -> Result<Option<Arc<Object>>, Status> {
    if let Some(class) = server.lives().runtime_classes.get("", name) {
        return Ok(Some(class));
    }
    let store = server.store("node.k8s.io", "runtimeclasses").ok_or_else(Status::no_such_path)?;
    store.get("", name).await?.map(|stored| stored.object().map(Arc::new)).transpose()
}

fn set_overhead(a: &Attributes<'_>, pod: &mut Object, class: &Object) -> Result<(), Status> {
    let fixed = class.pointer("/overhead/podFixed").filter(|f| f.as_object().is_some_and(|m| !m.is_empty()));
    let given = pod.pointer("/spec/overhead").filter(|f| f.as_object().is_some_and(|m| !m.is_empty())).cloned();
    match (fixed, given) {
        (Some(fixed), Some(given)) if *fixed != given => {
            Err(a.forbidden("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"))
        }
        (Some(fixed), None) => {
            meta::field_mut(pod, "spec").insert("overhead".into(), fixed.clone());
            Ok(())
        }
        _ => Ok(()),
    }
}

fn set_scheduling(a: &Attributes<'_>, pod: &mut Object, class: &Object) -> Result<(), Status> {
    let spec = meta::field_mut(pod, "spec");
    for (key, value) in class.pointer("/scheduling/nodeSelector").and_then(Value::as_object).into_iter().flatten() {
        let selector = spec.entry("nodeSelector").or_insert_with(|| Value::Object(Default::default()));
        let Some(selector) = selector.as_object_mut() else { continue };
        if selector.get(key).is_some_and(|present| present != value) {
            let why = format!("conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                value.as_str().unwrap_or(""), selector[key].as_str().unwrap_or(""));
            return Err(a.forbidden(&why));
        }
        selector.insert(key.clone(), value.clone());
    }
    let wanted = class.pointer("/scheduling/tolerations").and_then(Value::as_array);
    for toleration in wanted.into_iter().flatten() {
        let list = spec.entry("tolerations").or_insert_with(|| Value::Array(Vec::new()));
        if let Some(list) = list.as_array_mut().filter(|l| !l.contains(toleration)) {
            list.push(toleration.clone());
        }
    }
    Ok(())
}
