//! `node.k8s.io`: runtime classes.

use crate::age;
use crate::columns::{AGE, NAME};
use crate::core::pod::{tolerations, warnings};
use crate::core::quantities::{container_resource_name, requirements};
use crate::field::{Errors, Fields, Path, repeated};
use crate::{Ctx, MetadataChecks, Strategy, metadata, names};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Runtime classes.
pub struct RuntimeClass;

const COLUMNS: &[Column] = &[NAME, Column::string("Handler"), AGE];

impl Strategy for RuntimeClass {
    fn has_status(&self) -> bool {
        false
    }

    fn metadata_on_update(&self) -> MetadataChecks {
        MetadataChecks::Both
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    /// Its finalizers are not held against the standard ones.
    fn is_built_in(&self) -> bool {
        false
    }

    fn warnings(&self, obj: &Object, _old: Option<&Object>) -> Vec<String> {
        let selected = obj.at("scheduling").entries("nodeSelector");
        let outdated = selected.filter_map(|(label, _)| warnings::deprecated_label(label));
        outdated.map(|why| format!("scheduling.nodeSelector: {why}")).collect()
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        match obj.text("handler") {
            "" => errors.required(&Path::root("handler"), ""),
            handler => errors.invalid_each(&Path::root("handler"), handler, names::dns1123_label(handler, false)),
        }
        if obj.at("overhead").has("podFixed") {
            let limits = json!({"limits": obj.at("overhead").at("podFixed")});
            // named after the form in which upstream checks it
            requirements(&mut errors, &limits, &[], &Path::root("overhead"), container_resource_name);
        }
        let (scheduling, path) = (obj.at("scheduling"), Path::root("scheduling"));
        metadata::labels(&mut errors, scheduling.at("nodeSelector"), &path.field("nodeSelector"));
        let list = scheduling.list("tolerations");
        tolerations(&mut errors, scheduling, &path.field("tolerations"));
        let key = |of: &Value| ["key", "operator", "value", "effect"].map(|field| of.text(field).to_owned());
        let twice = repeated(list.iter().map(key));
        for (i, toleration) in list.iter().enumerate() {
            if twice[i] {
                let schema = "io.k8s.api.core.v1.Toleration";
                let printed = || schema::internal_json(schema, toleration, schema::Layout::Compact);
                errors.duplicate_printed(&path.field("tolerations").index(i), printed);
            }
        }
        errors.0
    }

    fn validate_update(&self, ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors(self.validate(ctx, new));
        errors.immutable(&Path::root("handler"), new.at("handler"), old.at("handler"));
        errors.0
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        vec![api::meta::name(obj).into(), obj.text("handler").into(), age::since_creation(obj, now).into()]
    }
}
