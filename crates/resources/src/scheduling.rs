//! `scheduling.k8s.io`: priority classes.

use crate::age;
use crate::columns::{AGE, NAME};
use crate::field::{Errors, Fields, Path, set_default};
use crate::{Ctx, Strategy};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::Value;

/// Priority classes.
pub struct PriorityClass;

/// The highest value of a class that is not the system's.
const HIGHEST: i64 = 1_000_000_000;
/// The system's own classes.
pub const SYSTEM: [(&str, i64); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];
const COLUMNS: &[Column] = &[
    NAME,
    Column::integer("Value").field("io.k8s.api.scheduling.v1.PriorityClass", "value"),
    Column { kind: "boolean", ..Column::string("Global-Default") }
        .field("io.k8s.api.scheduling.v1.PriorityClass", "globalDefault"),
    AGE,
    Column::string("PreemptionPolicy").field("io.k8s.api.scheduling.v1.PriorityClass", "preemptionPolicy"),
];

impl Strategy for PriorityClass {
    fn default(&self, obj: &mut Object) {
        set_default(obj, "preemptionPolicy", "PreemptLowerPriority");
        if !obj.has("value") {
            obj["value"] = 0.into();
        }
    }

    fn has_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn generation_changes(&self, _new: &Object, _old: &Object) -> bool {
        false
    }

    fn allow_unconditional_update(&self) -> bool {
        true
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        let (name, value) = (api::meta::name(obj), obj.int("value").unwrap_or(0));
        if name.starts_with("system-") {
            system(&mut errors, obj, name, value);
        } else if value > HIGHEST {
            let text = format!("maximum allowed value of a user defined priority is {HIGHEST}");
            errors.forbidden(&Path::root("value"), &text);
        }
        if obj.has("preemptionPolicy") {
            let path = Path::root("preemptionPolicy");
            match obj.text("preemptionPolicy") {
                "" => errors.required(&path, ""),
                policy => errors.one_of(&path, policy, &["PreemptLowerPriority", "Never"]),
            }
        }
        errors.0
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        if new.at("value") != old.at("value") {
            errors.forbidden(&Path::root("value"), "may not be changed in an update.");
        }
        errors.immutable(&Path::root("preemptionPolicy"), new.at("preemptionPolicy"), old.at("preemptionPolicy"));
        errors.0
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        vec![
            api::meta::name(obj).into(),
            obj.int("value").unwrap_or(0).into(),
            obj.flag("globalDefault").into(),
            age::since_creation(obj, now).into(),
            obj.text("preemptionPolicy").into(),
        ]
    }
}

fn system(errors: &mut Errors, obj: &Object, name: &str, value: i64) {
    let why = match SYSTEM.iter().find(|(known, _)| *known == name) {
        None => format!("{name} is not a known system priority class"),
        Some((_, want)) if *want != value => format!("value of {name} PriorityClass must be {want}"),
        Some(_) if obj.flag("globalDefault") => format!("globalDefault of {name} PriorityClass must be false"),
        Some(_) => return,
    };
    let text = format!("priority class names with 'system-' prefix are reserved for system use only. error: {why}");
    errors.forbidden(&Path::root("metadata.name"), &text);
}
