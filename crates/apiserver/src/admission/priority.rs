//! Priority: a pod's priority is that of its class.

use super::{Attributes, Operation, Plugin};
use crate::server::ApiServer;
use api::{Object, Status, meta};
use async_trait::async_trait;
use serde_json::Value;
use std::sync::Arc;

/// The plugin.
pub struct Priority;

#[async_trait]
impl Plugin for Priority {
    async fn admit(&self, server: &ApiServer, a: &Attributes<'_>, pod: &mut Object) -> Result<(), Status> {
        match a.operation {
            Operation::Create if a.is("", "pods") => establish(server, a, pod).await,
            Operation::Update if a.is("", "pods") => {
                keep(pod, a.old.unwrap_or(&Value::Null));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn validate(&self, server: &ApiServer, a: &Attributes<'_>, o: Option<&Object>) -> Result<(), Status> {
        const SYSTEM: [&str; 2] = ["system-node-critical", "system-cluster-critical"];
        if a.operation == Operation::Delete && a.is("scheduling.k8s.io", "priorityclasses") && SYSTEM.contains(&a.name) {
            return Err(a.forbidden("this is a system priority class and cannot be deleted"));
        }
        let global = |class: &Object| class.get("globalDefault").and_then(Value::as_bool) == Some(true);
        let Some(class) = o.filter(|c| a.is("scheduling.k8s.io", "priorityclasses") && global(c)) else {
            return Ok(());
        };
        match default_class(server) {
            Some((name, _)) if a.operation == Operation::Create || name != meta::name(class) => Err(a.forbidden(
                &format!("PriorityClass {name} is already marked as default. Only one default can exist"),
            )),
            _ => Ok(()),
        }
    }
}

fn keep(pod: &mut Object, old: &Object) {
    let spec = meta::field_mut(pod, "spec");
    for field in ["priority", "preemptionPolicy"] {
        if let (None, Some(value)) = (spec.get(field), old.pointer("/spec").and_then(|s| s.get(field))) {
            spec.insert(field.into(), value.clone());
        }
    }
}

/// The default class; of several the one of the lowest priority.
fn default_class(server: &ApiServer) -> Option<(String, Arc<Object>)> {
    let classes = server.lives().priority_classes.in_namespace("");
    let defaults = classes.into_iter().filter(|(_, c)| c.get("globalDefault").and_then(Value::as_bool) == Some(true));
    defaults.min_by_key(|(_, c)| c.get("value").and_then(Value::as_i64))
}

async fn find(server: &ApiServer, a: &Attributes<'_>, name: &str) -> Result<Arc<Object>, Status> {
    if let Some(class) = server.lives().priority_classes.get("", name) {
        return Ok(class);
    }
    let store = server.store("scheduling.k8s.io", "priorityclasses").ok_or_else(Status::no_such_path)?;
    match store.get("", name).await? {
        Some(stored) => Ok(Arc::new(stored.object()?)),
        None => Err(a.forbidden(&format!("no PriorityClass with name {name} was found"))),
    }
}

async fn establish(server: &ApiServer, a: &Attributes<'_>, pod: &mut Object) -> Result<(), Status> {
    let name = pod.pointer("/spec/priorityClassName").and_then(Value::as_str).unwrap_or("").to_owned();
    let class = match name.as_str() {
        "" => default_class(server),
        name => Some((name.to_owned(), find(server, a, name).await?)),
    };
    let (name, priority, policy) = match &class {
        Some((name, class)) => {
            let value = class.get("value").and_then(Value::as_i64).unwrap_or(0);
            let policy = class.get("preemptionPolicy").and_then(Value::as_str).unwrap_or("PreemptLowerPriority");
            (name.as_str(), value, policy)
        }
        None => ("", 0, "PreemptLowerPriority"),
    };
    let spec = meta::field_mut(pod, "spec");
    if let Some(given) = spec.get("priority").and_then(Value::as_i64).filter(|p| *p != priority) {
        return Err(a.forbidden(&format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
             computed {priority} from the given PriorityClass name"
        )));
    }
    if let Some(given) = spec.get("preemptionPolicy").and_then(Value::as_str).filter(|p| *p != policy) {
        return Err(a.forbidden(&format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
             controller computed {policy} from the given PriorityClass name"
        )));
    }
    if !name.is_empty() {
        spec.insert("priorityClassName".into(), name.into());
    }
    spec.insert("priority".into(), priority.into());
    spec.insert("preemptionPolicy".into(), policy.into());
    Ok(())
}
