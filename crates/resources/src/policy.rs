//! `policy`: pod disruption budgets.

use crate::age;
use crate::apps::{at_most_all, int_or_percent, print_selector};
use crate::columns::{AGE, NAME};
use crate::field::{Errors, Fields, Path, go_struct, map_mut};
use crate::{Ctx, MetadataChecks, StatusRules, Strategy, conditions, metadata};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::Value;

/// Pod disruption budgets.
pub struct PodDisruptionBudget;

const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Min Available").describe("The minimum number of pods that must be available."),
    Column::string("Max Unavailable").describe("The maximum number of pods that may be unavailable."),
    Column::integer("Allowed Disruptions").describe("Calculated number of pods that may be disrupted at this time."),
    AGE,
];
const COUNTS: [&str; 4] = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
const SPEC: Path<'_> = Path::root("spec");

impl Strategy for PodDisruptionBudget {
    fn default(&self, obj: &mut Object) {
        map_mut(obj, "spec");
        map_mut(obj, "status").into_iter().for_each(zero);
    }

    fn status_rules(&self) -> StatusRules {
        StatusRules::begins(|| COUNTS.iter().map(|count| (*count, 0)).collect())
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn metadata_on_create(&self) -> bool {
        false
    }

    fn metadata_on_update(&self) -> MetadataChecks {
        MetadataChecks::None
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let (mut errors, spec) = (Errors::default(), obj.at("spec"));
        if spec.has("minAvailable") && spec.has("maxUnavailable") {
            // the selector has names of its own in upstream's JSON, the rest has Go's
            let printed = go_struct(&[("MinAvailable", spec.at("minAvailable").clone())]);
            let rest = go_struct(&[
                ("MaxUnavailable", spec.at("maxUnavailable").clone()),
                ("UnhealthyPodEvictionPolicy", spec.at("unhealthyPodEvictionPolicy").clone()),
            ]);
            let selector = if spec.has("selector") { print_selector(spec.at("selector")) } else { "null".into() };
            let printed = format!("{},\"Selector\":{selector},{}", &printed[..printed.len() - 1], &rest[1..]);
            errors.invalid_printed(&SPEC, || printed, "minAvailable and maxUnavailable cannot be both set");
        }
        for field in ["minAvailable", "maxUnavailable"].into_iter().filter(|f| spec.has(f)) {
            int_or_percent(&mut errors, spec.at(field), &SPEC.field(field));
            at_most_all(&mut errors, spec.at(field), &SPEC.field(field));
        }
        metadata::label_selector(&mut errors, spec.at("selector"), &SPEC.field("selector"));
        if spec.has("unhealthyPodEvictionPolicy") {
            let policy = spec.text("unhealthyPodEvictionPolicy");
            errors.supported(&SPEC.field("unhealthyPodEvictionPolicy"), policy, &["AlwaysAllow", "IfHealthyBudget"]);
        }
        errors.0
    }

    fn validate_status_update(&self, _ctx: &Ctx<'_>, new: &Object, _old: &Object) -> Vec<Cause> {
        let (mut errors, path, status) = (Errors::default(), Path::root("status"), new.at("status"));
        conditions::conditions(&mut errors, status.list("conditions"), &path.field("conditions"));
        for field in COUNTS {
            errors.non_negative(&path.field(field), status.int(field).unwrap_or(0));
        }
        errors.0
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let spec = obj.at("spec");
        let text = |field: &str| match spec.at(field) {
            Value::Null => "N/A".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        vec![
            api::meta::name(obj).into(),
            text("minAvailable").into(),
            text("maxUnavailable").into(),
            obj.at("status").int("disruptionsAllowed").unwrap_or(0).into(),
            age::since_creation(obj, now).into(),
        ]
    }
}

fn zero(status: &mut Value) {
    for field in COUNTS {
        if !status.has(field) {
            status[field] = 0.into();
        }
    }
}
