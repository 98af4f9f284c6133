//! Volume attributes classes.

use crate::age;
use crate::columns::{AGE, NAME};
use crate::field::{Errors, Fields, Path, same};
use crate::{Ctx, MetadataChecks, Strategy, names};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::Value;

/// Volume attributes classes.
pub struct VolumeAttributesClass;

const PROTECTION: &str = "kubernetes.io/vac-protection";
const COLUMNS: &[Column] =
    &[NAME, Column::string("DriverName").field("io.k8s.api.storage.v1.VolumeAttributesClass", "driverName"), AGE];

impl Strategy for VolumeAttributesClass {
    fn has_status(&self) -> bool {
        false
    }

    fn prepare_for_create(&self, _ctx: &Ctx<'_>, obj: &mut Object) {
        // held while a claim uses it
        let mut list = obj.at("metadata").list("finalizers").to_vec();
        if !list.iter().any(|f| f == PROTECTION) {
            list.push(PROTECTION.into());
            api::meta::set(obj, "finalizers", list);
        }
    }

    fn metadata_on_update(&self) -> MetadataChecks {
        MetadataChecks::Both
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let (mut errors, path) = (Errors::default(), Path::root("driverName"));
        match obj.text("driverName") {
            "" => errors.required(&path, ""),
            name => {
                let name = name.to_lowercase();
                errors.invalid_each(&path, &name, names::qualified_name(&name));
            }
        }
        super::parameters(&mut errors, obj, true);
        errors.0
    }

    fn validate_update(&self, ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        if new.at("driverName") != old.at("driverName") {
            errors.forbidden(&Path::root("driverName"), "updates to driverName are forbidden.");
        }
        if !same(new.at("parameters"), old.at("parameters")) {
            errors.forbidden(&Path::root("parameters"), "updates to parameters are forbidden.");
        }
        errors.0.extend(self.validate(ctx, new));
        errors.0
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        vec![api::meta::name(obj).into(), obj.text("driverName").into(), age::since_creation(obj, now).into()]
    }
}
