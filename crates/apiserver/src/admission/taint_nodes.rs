//! TaintNodesByCondition: a new node takes no pods until it is known to be ready.

use super::{Attributes, Operation, Plugin};
use crate::server::ApiServer;
use api::{Object, Status, meta};
use async_trait::async_trait;
use serde_json::{Value, json};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// The plugin.
pub struct TaintNodesByCondition;

#[async_trait]
impl Plugin for TaintNodesByCondition {
    async fn admit(&self, _server: &ApiServer, a: &Attributes<'_>, node: &mut Object) -> Result<(), Status> {
        if a.operation != Operation::Create || !a.is("", "nodes") {
            return Ok(());
        }
        let spec = meta::field_mut(node, "spec");
        let mut taints = spec.get("taints").and_then(Value::as_array).cloned().unwrap_or_default();
        let known = |t: &Value| t["key"] == NOT_READY && t["effect"] == "NoSchedule";
        if !taints.iter().any(known) {
            taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
            spec.insert("taints".into(), taints.into());
        }
        Ok(())
    }
}
