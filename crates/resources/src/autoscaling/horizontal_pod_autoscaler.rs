//! Horizontal pod autoscalers, in their v2 form.

use super::metrics;
use crate::age;
use crate::columns::{AGE, NAME};
use crate::field::{Errors, Fields, Path, map_mut, set_default};
use crate::rules::{self, Check, Rule};
use crate::{Ctx, StatusRules, Strategy, names};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Horizontal pod autoscalers.
pub struct HorizontalPodAutoscaler;

const SPEC: Path<'_> = Path::root("spec");
const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Reference").field("io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerSpec", "scaleTargetRef"),
    Column::string("Targets").field("io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerSpec", "metrics"),
    Column::string("MinPods").field("io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerSpec", "minReplicas"),
    Column::string("MaxPods").field("io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerSpec", "maxReplicas"),
    Column::string("Replicas").field("io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerStatus", "currentReplicas"),
    AGE,
];
const BEHAVIOR: &[Rule] =
    &[("scaleUp", Check::By(metrics::scaling_rules)), ("scaleDown", Check::By(metrics::scaling_rules))];

impl Strategy for HorizontalPodAutoscaler {
    fn default(&self, obj: &mut Object) {
        super::v1::drop_annotations(obj);
        if let Some(spec) = map_mut(obj, "spec") {
            set_default(spec, "minReplicas", 1);
            if spec.list("metrics").is_empty() {
                spec["metrics"] = json!([{"type": "Resource",
                    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
            }
            if spec.at("behavior").is_object() {
                behavior_defaults(&mut spec["behavior"]);
            }
        }
        if let Some(status) = map_mut(obj, "status") {
            if !status.has("desiredReplicas") {
                status["desiredReplicas"] = 0.into();
            }
            if !status.has("currentMetrics") {
                status["currentMetrics"] = Value::Null;
            }
        }
    }

    fn status_rules(&self) -> StatusRules {
        StatusRules::begins(|| json!({"desiredReplicas": 0, "currentMetrics": null}))
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        names::dns1123_subdomain(name, prefix)
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        validate(obj.at("spec"), &Value::Null).0
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        validate(new.at("spec"), old.at("spec")).0
    }

    fn validate_status_update(&self, _ctx: &Ctx<'_>, new: &Object, _old: &Object) -> Vec<Cause> {
        let (mut errors, path) = (Errors::default(), Path::root("status"));
        for field in ["currentReplicas", "desiredReplicas"] {
            errors.non_negative(&path.field(field), new.at("status").int(field).unwrap_or(0));
        }
        errors.0
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (obj.at("spec"), obj.at("status"));
        let target = spec.at("scaleTargetRef");
        let min = spec.int("minReplicas").map_or("<unset>".into(), |m| m.to_string());
        vec![
            api::meta::name(obj).into(),
            format!("{}/{}", target.text("kind"), target.text("name")).into(),
            metrics::summary(spec.list("metrics"), status.list("currentMetrics")).into(),
            min.into(),
            spec.int("maxReplicas").unwrap_or(0).into(),
            status.int("currentReplicas").unwrap_or(0).into(),
            age::since_creation(obj, now).into(),
        ]
    }
}

/// Errors of a spec; what the old one had wrong before may stay.
fn validate(spec: &Value, old: &Value) -> Errors {
    let mut errors = Errors::default();
    let (min, max) = (spec.int("minReplicas"), spec.int("maxReplicas").unwrap_or(0));
    let least = if old.int("minReplicas") == Some(0) { 0 } else { 1 };
    if let Some(min) = min.filter(|m| *m < least) {
        errors.invalid(&SPEC.field("minReplicas"), min, &format!("must be greater than or equal to {least}"));
    }
    match max {
        0 => errors.required(&SPEC.field("maxReplicas"), "must be set and greater than 0"),
        max if max < 0 => errors.invalid(&SPEC.field("maxReplicas"), max, "must be greater than or equal to 1"),
        _ => {}
    }
    if min.is_some_and(|min| max < min) {
        errors.invalid(&SPEC.field("maxReplicas"), max, "must be greater than or equal to `minReplicas`");
    }
    let (target, was) = (spec.at("scaleTargetRef"), old.at("scaleTargetRef"));
    let kept = !old.is_null() && ["apiVersion", "kind"].iter().all(|field| target.text(field) == was.text(field));
    let version = match target.text("kind") {
        _ if kept => metrics::Version::Any,
        // the only one without a group that can be scaled
        "ReplicationController" => metrics::Version::Valid,
        _ => metrics::Version::Grouped,
    };
    metrics::reference(&mut errors, target, version, &SPEC.field("scaleTargetRef"));
    let version = if metrics::has_bad_versions(old) { metrics::Version::Any } else { metrics::Version::Valid };
    metrics::metrics(&mut errors, spec, version, &SPEC.field("metrics"));
    rules::check(&mut errors, spec, &SPEC, &[("behavior", Check::By(behavior))]);
    errors
}

fn behavior(errors: &mut Errors, behavior: &Value, path: &Path<'_>) {
    rules::check(errors, behavior, path, BEHAVIOR);
}

fn behavior_defaults(behavior: &mut Value) {
    let policy = |kind: &str, value: i64| json!({"type": kind, "value": value, "periodSeconds": 15});
    let up = [policy("Pods", 4), policy("Percent", 100)];
    let down = [policy("Percent", 100)];
    for (direction, policies) in [("scaleUp", &up[..]), ("scaleDown", &down[..])] {
        let Some(rules) = map_mut(behavior, direction) else { continue };
        set_default(rules, "selectPolicy", "Max");
        if direction == "scaleUp" {
            set_default(rules, "stabilizationWindowSeconds", 0);
        }
        if !rules.has("policies") {
            rules["policies"] = policies.into();
        }
    }
}
