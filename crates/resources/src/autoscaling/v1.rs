//! `autoscaling/v1` ⇄ v2: what v1 has no field for travels in annotations.

use super::horizontal_pod_autoscaler::HorizontalPodAutoscaler;
use crate::field::{Fields, drop_empty, map_mut, set_default};
use crate::table::Conversion;
use crate::{Ctx, StatusRules, Strategy};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

/// `autoscaling/v1` ⇄ v2.
pub static V1: Conversion =
    Conversion { stored: "autoscaling/v2", to_stored, from_stored, stored_field: |served| Some(served.to_owned()) };

/// v1 autoscalers: their own defaults, all else as v2.
pub struct HorizontalPodAutoscalerV1;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";

impl Strategy for HorizontalPodAutoscalerV1 {
    fn default(&self, obj: &mut Object) {
        if let Some(spec) = map_mut(obj, "spec") {
            set_default(spec, "minReplicas", 1);
        }
        // without any metric the CPU is aimed at
        let measured = api::meta::annotation(obj, METRICS).is_some_and(|text| !text.is_empty());
        if let (false, Some(spec)) = (measured, map_mut(obj, "spec")) {
            set_default(spec, "targetCPUUtilizationPercentage", 80);
        }
    }

    fn status_rules(&self) -> StatusRules {
        HorizontalPodAutoscaler.status_rules()
    }

    fn validate(&self, ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        HorizontalPodAutoscaler.validate(ctx, obj)
    }

    fn validate_status_update(&self, ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        HorizontalPodAutoscaler.validate_status_update(ctx, new, old)
    }

    fn columns(&self) -> &'static [Column] {
        HorizontalPodAutoscaler.columns()
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        HorizontalPodAutoscaler.row(obj, now)
    }
}

fn to_stored(obj: &mut Object) {
    obj["apiVersion"] = "autoscaling/v2".into();
    let (extra, behavior) = (taken(obj, METRICS), taken(obj, BEHAVIOR));
    let (conditions, current) = (taken(obj, CONDITIONS), taken(obj, CURRENT));
    if let Some(spec) = map_mut(obj, "spec") {
        let mut metrics: Vec<Value> = extra.as_array().cloned().unwrap_or_default();
        let target = spec.as_object_mut().and_then(|map| map.remove("targetCPUUtilizationPercentage"));
        let target = target.filter(|t| !t.is_null()).or_else(|| metrics.is_empty().then(|| json!(80)));
        if let Some(percent) = target {
            metrics.insert(0, cpu(json!({"type": "Utilization", "averageUtilization": percent}), "target"));
        }
        spec["metrics"] = metrics.into();
        if behavior.is_object() {
            spec["behavior"] = behavior;
        }
    }
    if let Some(status) = map_mut(obj, "status") {
        let mut list: Vec<Value> = current.as_array().cloned().unwrap_or_default();
        let used = status.as_object_mut().and_then(|map| map.remove("currentCPUUtilizationPercentage"));
        if let Some(percent) = used.filter(|v| !v.is_null()) {
            list.insert(0, cpu(json!({"averageUtilization": percent}), "current"));
        }
        if !list.is_empty() {
            status["currentMetrics"] = list.into();
        }
        if conditions.is_array() {
            status["conditions"] = conditions;
        }
    }
    HorizontalPodAutoscaler.default(obj);
}

fn cpu(value: Value, field: &str) -> Value {
    let mut resource = json!({"name": "cpu"});
    resource[field] = value;
    json!({"type": "Resource", "resource": resource})
}

/// The value of an annotation that holds JSON, removed.
fn taken(obj: &mut Object, key: &str) -> Value {
    let Some(map) = obj.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else { return Value::Null };
    let value = map.remove(key);
    drop_empty(&mut obj["metadata"], "annotations");
    value.as_ref().and_then(Value::as_str).and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null)
}

fn from_stored(obj: &mut Object) {
    obj["apiVersion"] = "autoscaling/v1".into();
    if let Some(spec) = map_mut(obj, "spec") {
        let (percent, metrics) = split(taken_from(spec, "metrics"), "target");
        let behavior = taken_from(spec, "behavior");
        percent.into_iter().for_each(|percent| spec["targetCPUUtilizationPercentage"] = percent);
        keep(obj, METRICS, metrics);
        keep(obj, BEHAVIOR, behavior);
    }
    if let Some(status) = map_mut(obj, "status") {
        let (percent, metrics) = split(taken_from(status, "currentMetrics"), "current");
        let conditions = taken_from(status, "conditions");
        for field in ["currentReplicas", "desiredReplicas"] {
            set_default(status, field, 0);
        }
        percent.into_iter().for_each(|percent| status["currentCPUUtilizationPercentage"] = percent);
        keep(obj, CURRENT, metrics);
        keep(obj, CONDITIONS, conditions);
    }
}

fn taken_from(of: &mut Value, field: &str) -> Value {
    of.as_object_mut().and_then(|map| map.remove(field)).unwrap_or(Value::Null)
}

/// The CPU's utilization, which v1 has a field for, and the other metrics.
fn split(metrics: Value, field: &str) -> (Option<Value>, Value) {
    let Value::Array(mut list) = metrics else { return (None, Value::Null) };
    let of_cpu = |m: &Value| {
        let resource = m.at("resource");
        let cpu = m.text("type") == "Resource" && resource.text("name") == "cpu";
        (cpu && resource.at(field).has("averageUtilization"))
            .then(|| resource.at(field).at("averageUtilization").clone())
    };
    let found = list.iter().enumerate().find_map(|(i, m)| of_cpu(m).map(|percent| (i, percent)));
    let percent = found.map(|(i, percent)| {
        list.remove(i);
        percent
    });
    (percent, if list.is_empty() { Value::Null } else { list.into() })
}

fn keep(obj: &mut Object, key: &str, value: Value) {
    if !crate::field::same(&value, &Value::Null) {
        api::meta::set_annotation(obj, key, &value.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_in_v1() {
        let v2 = json!({"apiVersion": "autoscaling/v2", "metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "minReplicas": 1,
            "metrics": [cpu(json!({"type": "Utilization", "averageUtilization": 50}), "target"),
                {"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "1"}}}]},
            "status": {"currentReplicas": 0, "desiredReplicas": 0}});
        let mut obj = v2.clone();
        from_stored(&mut obj);
        assert_eq!(obj["spec"]["targetCPUUtilizationPercentage"], 50);
        to_stored(&mut obj);
        assert!(crate::field::same(&obj, &v2), "{obj}");
    }
}
