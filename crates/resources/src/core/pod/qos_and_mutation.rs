//! What the server adds to a new pod: its first status, and selectors completed from its labels.

use crate::Ctx;
use crate::field::{Fields, items_mut};
use serde_json::{Value, json};

/// Pending, with its quality-of-service class; gated pods say so.
pub fn initial_status(ctx: &Ctx<'_>, obj: &Value) -> Value {
    let spec = obj.at("spec");
    let mut status = json!({"phase": "Pending", "qosClass": super::resources::qos_class(spec)});
    if !spec.list("schedulingGates").is_empty() {
        status["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "lastProbeTime": null,
            "lastTransitionTime": ctx.timestamp(), "message": "Scheduling is blocked due to non-empty scheduling gates"}]);
    }
    status
}

/// Merges the values of `matchLabelKeys` and `mismatchLabelKeys` into the selectors beside them.
pub fn merge_label_keys(obj: &mut Value) {
    let labels = obj.at("metadata").at("labels").clone();
    let Some(spec) = obj.get_mut("spec") else { return };
    items_mut(spec, "topologySpreadConstraints").for_each(|c| merge(c, &labels));
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(of) = spec.pointer_mut(&format!("/affinity/{kind}")) else { continue };
        items_mut(of, "requiredDuringSchedulingIgnoredDuringExecution").for_each(|t| merge(t, &labels));
        for weighted in items_mut(of, "preferredDuringSchedulingIgnoredDuringExecution") {
            weighted.get_mut("podAffinityTerm").into_iter().for_each(|t| merge(t, &labels));
        }
    }
}

fn merge(term: &mut Value, labels: &Value) {
    if !term.at("labelSelector").is_object() {
        return;
    }
    for (field, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in term.texts(field).into_iter().map(str::to_owned).collect::<Vec<_>>() {
            let Some(value) = labels.get(&key) else { continue };
            let requirement = json!({"key": key, "operator": operator, "values": [value]});
            let selector = &mut term["labelSelector"];
            match selector.get_mut("matchExpressions").and_then(Value::as_array_mut) {
                Some(list) => list.push(requirement),
                None => selector["matchExpressions"] = json!([requirement]),
            }
        }
    }
}
