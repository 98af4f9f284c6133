//! Config maps.

use crate::age;
use crate::columns::{AGE, NAME};
use crate::field::{Errors, Fields, Path, drop_empty, same};
use crate::{Ctx, Strategy, names};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::Value;

/// Config maps.
pub struct ConfigMap;

/// Bytes of all values together.
const MAX_SIZE: usize = 1024 * 1024;
const COLUMNS: &[Column] = &[NAME, Column::string("Data").field("io.k8s.api.core.v1.ConfigMap", "data"), AGE];

impl Strategy for ConfigMap {
    fn default(&self, obj: &mut Object) {
        for field in ["data", "binaryData"] {
            drop_empty(obj, field);
        }
    }

    fn has_status(&self) -> bool {
        false
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        let mut size = 0;
        for field in ["data", "binaryData"] {
            let path = Path::root(field);
            for (key, value) in obj.entries(field) {
                errors.invalid_each(&path.key(key), key, names::config_map_key(key));
                if field == "data" && obj.at("binaryData").has(key) {
                    errors.invalid(&path.key(key), key.as_str(), "duplicate of key present in binaryData");
                }
                size += value_size(field, value);
            }
        }
        if size > MAX_SIZE {
            errors.too_long(&Path::root("[]"), MAX_SIZE);
        }
        errors.0
    }

    fn validate_update(&self, ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        immutable(&mut errors, new, old, &["data", "binaryData"]);
        errors.0.extend(self.validate(ctx, new));
        errors.0
    }

    fn metadata_on_update(&self) -> crate::MetadataChecks {
        crate::MetadataChecks::Both
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let count = obj.entries("data").count() + obj.entries("binaryData").count();
        vec![api::meta::name(obj).into(), count.into(), age::since_creation(obj, now).into()]
    }
}

fn value_size(field: &str, value: &Value) -> usize {
    let text = value.as_str().unwrap_or("");
    if field == "data" { text.len() } else { super::secret::decoded_len(text) }
}

/// Errors of changes to an object that says it is immutable.
pub fn immutable(errors: &mut Errors, new: &Object, old: &Object, fields: &[&str]) {
    const TEXT: &str = "field is immutable when `immutable` is set";
    if !old.flag("immutable") {
        return;
    }
    if !new.flag("immutable") {
        errors.forbidden(&Path::root("immutable"), TEXT);
    }
    for field in fields.iter().filter(|f| !same(new.at(f), old.at(f))) {
        errors.forbidden(&Path::root(field), TEXT);
    }
}
