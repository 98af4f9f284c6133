//! Controller revisions.

use crate::age;
use crate::columns::{AGE, NAME};
use crate::field::{Errors, Fields, Path};
use crate::{Ctx, MetadataChecks, Strategy};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::Value;

/// Controller revisions.
pub struct ControllerRevision;

const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Controller").describe("Controller of the object"),
    Column::string("Revision").field("io.k8s.api.apps.v1.ControllerRevision", "revision"),
    AGE,
];

impl Strategy for ControllerRevision {
    fn default(&self, obj: &mut Object) {
        if !obj.has("revision") {
            obj["revision"] = 0.into();
        }
    }

    fn has_status(&self) -> bool {
        false
    }

    fn metadata_on_update(&self) -> MetadataChecks {
        MetadataChecks::Both
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        revision(&mut errors, obj);
        match obj.at("data") {
            Value::Null => errors.required(&Path::root("data"), "data is mandatory"),
            Value::Object(_) => {}
            _ => errors.required(&Path::root("data"), "data must be a valid JSON object"),
        }
        errors.0
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        revision(&mut errors, new);
        errors.immutable(&Path::root("data"), new.at("data"), old.at("data"));
        errors.0
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let owners = obj.at("metadata").list("ownerReferences");
        let controller = owners.iter().find(|o| o.flag("controller")).map_or_else(
            || "<none>".to_owned(),
            |o| {
                let group = o.text("apiVersion").split_once('/').map_or("", |(group, _)| group);
                let kind = o.text("kind").to_lowercase();
                let kind = if group.is_empty() { kind } else { format!("{kind}.{group}") };
                format!("{kind}/{}", o.text("name"))
            },
        );
        vec![
            api::meta::name(obj).into(),
            controller.into(),
            obj.int("revision").unwrap_or(0).into(),
            age::since_creation(obj, now).into(),
        ]
    }
}

fn revision(errors: &mut Errors, obj: &Object) {
    errors.non_negative(&Path::root("revision"), obj.int("revision").unwrap_or(0));
}
