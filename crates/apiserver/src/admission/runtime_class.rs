//! RuntimeClass: a pod of a class gets the class's overhead and scheduling constraints.

use super::{Attributes, Operation, Plugin};
use crate::server::ApiServer;
use api::{Object, Status, meta};
use async_trait::async_trait;
use serde_json::Value;
use std::sync::Arc;

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

/// The plugin.
pub struct RuntimeClass;

#[async_trait]
impl Plugin for RuntimeClass {
    async fn admit(&self, server: &ApiServer, a: &Attributes<'_>, pod: &mut Object) -> Result<(), Status> {
        if a.operation != Operation::Create || !a.is("", "pods") {
            return Ok(());
        }
        let Some(name) = pod.pointer("/spec/runtimeClassName").and_then(Value::as_str).map(str::to_owned) else {
            return Ok(());
        };
        let class = class(server, a, &name).await?;
        set_overhead(a, pod, &class)?;
        set_scheduling(a, pod, &class)
    }

    /// The overhead must be the class's, whatever became of it since [`Plugin::admit`]; without one of a class, even an
    /// empty one is refused.
    async fn validate(&self, server: &ApiServer, a: &Attributes<'_>, pod: Option<&Object>) -> Result<(), Status> {
        let Some(pod) = pod.filter(|_| a.operation == Operation::Create && a.is("", "pods")) else { return Ok(()) };
        let class = match pod.pointer("/spec/runtimeClassName").and_then(Value::as_str) {
            Some(name) => Some(class(server, a, name).await?),
            None => None,
        };
        let overhead = pod.pointer("/spec/overhead").filter(|overhead| !overhead.is_null());
        let defined = class.as_deref().and_then(|class| class.get("overhead")).filter(|defined| !defined.is_null());
        match (defined, overhead) {
            (Some(defined), overhead) if quantities(defined.get("podFixed")) != quantities(overhead) => {
                Err(a.forbidden(MISMATCH))
            }
            (None, Some(_)) => {
                let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
                Err(a.forbidden(why))
            }
            _ => Ok(()),
        }
    }
}

/// The class; one that the cache does not know yet may have been made a moment ago.
async fn class(server: &ApiServer, a: &Attributes<'_>, name: &str) -> Result<Arc<Object>, Status> {
    if let Some(class) = server.lives().runtime_classes.get("", name) {
        return Ok(class);
    }
    // Upstream forgets to make this one a 403.
    super::check_segment(name).map_err(|why| Status::new(500, "", why))?;
    let store = server.store("node.k8s.io", "runtimeclasses").ok_or_else(Status::no_such_path)?;
    let stored = store.get("", name).await?;
    let stored =
        stored.ok_or_else(|| a.forbidden(&format!("pod rejected: RuntimeClass {} not found", api::quoted(name))))?;
    stored.object().map(Arc::new)
}

/// None is as good as empty.
fn quantities(list: Option<&Value>) -> Option<&Value> {
    list.filter(|list| list.as_object().is_some_and(|map| !map.is_empty()))
}

fn set_overhead(a: &Attributes<'_>, pod: &mut Object, class: &Object) -> Result<(), Status> {
    let fixed = quantities(class.pointer("/overhead/podFixed"));
    let given = quantities(pod.pointer("/spec/overhead")).cloned();
    match (fixed, given) {
        (Some(fixed), Some(given)) if *fixed != given => Err(a.forbidden(MISMATCH)),
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
            let why = format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                value.as_str().unwrap_or(""),
                selector[key].as_str().unwrap_or("")
            );
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
