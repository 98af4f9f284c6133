//! NamespaceLifecycle: nothing is created in a namespace that does not exist or is going, and the system's
//! namespaces stay.

use super::{Attributes, Operation, Plugin};
use crate::server::ApiServer;
use api::{Object, Status};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::sync::Arc;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// The plugin.
pub struct NamespaceLifecycle;

#[async_trait]
impl Plugin for NamespaceLifecycle {
    async fn admit(&self, server: &ApiServer, a: &Attributes<'_>, _object: &mut Object) -> Result<(), Status> {
        if a.operation == Operation::Delete || a.namespace.is_empty() || a.is("", "namespaces") {
            return Ok(());
        }
        let namespace = find(server, a.namespace).await?;
        let phase = namespace.pointer("/status/phase").and_then(Value::as_str);
        let going = phase == Some("Terminating") || api::meta::is_deleting(&namespace);
        if a.operation == Operation::Create && going {
            return Err(terminating(a));
        }
        Ok(())
    }

    async fn validate(&self, _server: &ApiServer, a: &Attributes<'_>, _o: Option<&Object>) -> Result<(), Status> {
        if a.operation == Operation::Delete && a.is("", "namespaces") && IMMORTAL.contains(&a.name) {
            return Err(a.forbidden("this namespace may not be deleted"));
        }
        Ok(())
    }
}

/// The namespace, from the store where the cache is not there yet (or still shows it alive).
pub async fn find(server: &ApiServer, name: &str) -> Result<Arc<Object>, Status> {
    if let Some(namespace) = server.lives().namespaces.get("", name) {
        return Ok(namespace);
    }
    let store = server.store("", "namespaces").ok_or_else(Status::no_such_path)?;
    let stored = store.get("", name).await?.ok_or_else(|| Status::not_found("", "namespaces", name))?;
    Ok(Arc::new(stored.object()?))
}

fn terminating(a: &Attributes<'_>) -> Status {
    let namespace = a.namespace;
    let mut status =
        a.forbidden(&format!("unable to create new content in namespace {namespace} because it is being terminated"));
    status.details["causes"] = json!([{"reason": "NamespaceTerminating",
        "message": format!("namespace {namespace} is being terminated"), "field": "metadata.namespace"}]);
    status
}
