//! `autoscaling/v1` ⇄ v2: what v1 has no field for travels in annotations.

use super::horizontal_pod_autoscaler::HorizontalPodAutoscaler;
use super::v1_annotations::{
    SPEC, STATUS, read_behavior, read_conditions, read_metrics, write_behavior, write_conditions, write_metrics,
};
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
const SCALE_DOWN: &str = "autoscaling.alpha.kubernetes.io/scale-down-tolerance";
const SCALE_UP: &str = "autoscaling.alpha.kubernetes.io/scale-up-tolerance";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";

impl Strategy for HorizontalPodAutoscalerV1 {
    /// What is written as annotations is put into the form that it has when it is read, and without any metric the
    /// CPU is aimed at.
    fn default(&self, obj: &mut Object) {
        if let Some(spec) = map_mut(obj, "spec") {
            set_default(spec, "minReplicas", 1);
        }
        to_stored(obj);
        from_stored(obj);
    }

    fn status_rules(&self) -> StatusRules {
        HorizontalPodAutoscaler.status_rules()
    }

    fn validate(&self, ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        HorizontalPodAutoscaler.validate(ctx, obj)
    }

    fn validate_update(&self, ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        HorizontalPodAutoscaler.validate_update(ctx, new, old)
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
    let annotation = |key: &str| api::meta::annotation(obj, key).map(str::to_owned);
    let metrics = annotation(METRICS).and_then(|text| read_metrics(&text, &SPEC));
    let current = annotation(CURRENT).and_then(|text| read_metrics(&text, &STATUS));
    let behavior = annotation(BEHAVIOR).and_then(|text| read_behavior(&text));
    let conditions = annotation(CONDITIONS).and_then(|text| read_conditions(&text));
    if let Some(spec) = map_mut(obj, "spec") {
        let mut metrics = metrics.unwrap_or_default();
        let aim = taken_from(spec, "targetCPUUtilizationPercentage");
        let aim = if aim.is_null() && metrics.is_empty() { 80.into() } else { aim };
        if !aim.is_null() {
            metrics.push(cpu(json!({"type": "Utilization", "averageUtilization": aim}), "target"));
        }
        spec["metrics"] = metrics.into();
        behavior.into_iter().for_each(|behavior| spec["behavior"] = behavior);
    }
    if let Some(status) = map_mut(obj, "status") {
        let used = taken_from(status, "currentCPUUtilizationPercentage");
        let used = (!used.is_null()).then(|| vec![cpu(json!({"averageUtilization": used}), "current")]);
        // what is written down knows more than the field
        if let Some(list) = current.or(used) {
            status["currentMetrics"] = list.into();
        }
        conditions.into_iter().for_each(|conditions| status["conditions"] = conditions.into());
    }
    HorizontalPodAutoscaler.default(obj);
}

fn cpu(value: Value, field: &str) -> Value {
    let mut resource = json!({"name": "cpu"});
    resource[field] = value;
    json!({"type": "Resource", "resource": resource})
}

/// Removes the annotations that hold what v1 has no field for; no other version knows them.
pub fn drop_annotations(obj: &mut Object) {
    const ALL: [&str; 6] = [METRICS, BEHAVIOR, SCALE_DOWN, SCALE_UP, CURRENT, CONDITIONS];
    let Some(map) = obj.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else { return };
    if ALL.iter().filter(|key| map.remove(**key).is_some()).count() > 0 {
        drop_empty(&mut obj["metadata"], "annotations");
    }
}

fn from_stored(obj: &mut Object) {
    obj["apiVersion"] = "autoscaling/v1".into();
    drop_annotations(obj);
    let mut kept = Vec::new();
    if let Some(spec) = map_mut(obj, "spec") {
        let metrics = taken_from(spec, "metrics");
        let (of_cpu, others): (Vec<Value>, Vec<Value>) = metrics
            .as_array()
            .into_iter()
            .flatten()
            .cloned()
            .partition(|metric| utilization(metric, "target").is_some());
        if let Some(percent) = of_cpu.first().and_then(|metric| utilization(metric, "target")) {
            spec["targetCPUUtilizationPercentage"] = percent.clone();
        }
        let behavior = taken_from(spec, "behavior");
        kept.push((METRICS, (!others.is_empty()).then(|| write_metrics(&others, &SPEC))));
        kept.push((BEHAVIOR, (!behavior.is_null()).then(|| write_behavior(&behavior))));
    }
    if let Some(status) = map_mut(obj, "status") {
        let (current, conditions) = (taken_from(status, "currentMetrics"), taken_from(status, "conditions"));
        let (current, conditions) = (list_of(&current), list_of(&conditions));
        for field in ["currentReplicas", "desiredReplicas"] {
            set_default(status, field, 0);
        }
        if let Some(percent) = current.iter().filter_map(|metric| utilization(metric, "current")).next_back() {
            status["currentCPUUtilizationPercentage"] = percent.clone();
        }
        kept.push((CURRENT, (!current.is_empty()).then(|| write_metrics(current, &STATUS))));
        kept.push((CONDITIONS, (!conditions.is_empty()).then(|| write_conditions(conditions))));
    }
    for (key, text) in kept {
        text.into_iter().for_each(|text| api::meta::set_annotation(obj, key, &text));
    }
}

fn list_of(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn taken_from(of: &mut Value, field: &str) -> Value {
    of.as_object_mut().and_then(|map| map.remove(field)).unwrap_or(Value::Null)
}

/// The CPU's utilization, which v1 has a field for.
fn utilization<'a>(metric: &'a Value, field: &str) -> Option<&'a Value> {
    let resource = metric.at("resource");
    let cpu = metric.text("type") == "Resource" && resource.text("name") == "cpu";
    Some(resource.at(field).at("averageUtilization")).filter(|percent| cpu && !percent.is_null())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_in_v1() {
        let v2 = json!({"apiVersion": "autoscaling/v2", "metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "minReplicas": 1,
            "metrics": [
                {"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "1"}}},
                cpu(json!({"type": "Utilization", "averageUtilization": 50}), "target")]},
            "status": {"currentReplicas": 0, "desiredReplicas": 0, "currentMetrics": [
                cpu(json!({"averageUtilization": 40, "averageValue": "0"}), "current")]}});
        let mut obj = v2.clone();
        from_stored(&mut obj);
        assert_eq!(obj["spec"]["targetCPUUtilizationPercentage"], 50);
        assert_eq!(obj["status"]["currentCPUUtilizationPercentage"], 40);
        to_stored(&mut obj);
        assert!(crate::field::same(&obj, &v2), "{obj}");
    }
}
