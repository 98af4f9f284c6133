//! DefaultTolerationSeconds: pods bear a node that is not ready or not reached for five minutes.

use super::{Attributes, Operation, Plugin};
use crate::server::ApiServer;
use api::{Object, Status, meta};
use async_trait::async_trait;
use serde_json::{Value, json};

const SECONDS: i64 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// The plugin.
pub struct DefaultTolerationSeconds;

#[async_trait]
impl Plugin for DefaultTolerationSeconds {
    async fn admit(&self, _server: &ApiServer, a: &Attributes<'_>, pod: &mut Object) -> Result<(), Status> {
        let writes = matches!(a.operation, Operation::Create | Operation::Update);
        if writes && a.is("", "pods") {
            add(meta::field_mut(pod, "spec"));
        }
        Ok(())
    }
}

fn add(spec: &mut serde_json::Map<String, Value>) {
    let present = spec.get("tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
    let tolerates = |taint: &str| {
        present.iter().any(|t| {
            let text = |key: &str| t.get(key).and_then(Value::as_str).unwrap_or("");
            matches!(text("key"), "" ) | (text("key") == taint) && matches!(text("effect"), "" | "NoExecute")
        })
    };
    let missing: Vec<_> = TAINTS.into_iter().filter(|taint| !tolerates(taint)).collect();
    if missing.is_empty() {
        return;
    }
    let mut all = present.clone();
    all.extend(missing.into_iter().map(|taint| {
        json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS})
    }));
    spec.insert("tolerations".into(), all.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations_are_added_where_missing() {
        let count = |tolerations: Value| {
            let mut pod = json!({"spec": {"tolerations": tolerations}});
            add(meta::field_mut(&mut pod, "spec"));
            pod["spec"]["tolerations"].as_array().map_or(0, Vec::len)
        };
        assert_eq!(count(Value::Null), 2);
        assert_eq!(count(json!([{"operator": "Exists"}])), 1);
        assert_eq!(count(json!([{"key": TAINTS[0], "operator": "Exists", "effect": "NoSchedule"}])), 3);
        assert_eq!(count(json!([{"key": TAINTS[0], "operator": "Exists", "effect": "NoExecute"}])), 2);
    }
}
