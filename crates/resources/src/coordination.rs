//! `coordination.k8s.io`: leases.

use crate::age;
use crate::columns::{AGE, NAME};
use crate::field::{Errors, Fields, Path, map_mut};
use crate::{Ctx, Strategy};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::Value;

/// Leases.
pub struct Lease;

const COLUMNS: &[Column] =
    &[NAME, Column::string("Holder").field("io.k8s.api.coordination.v1.LeaseSpec", "holderIdentity"), AGE];

impl Strategy for Lease {
    fn default(&self, obj: &mut Object) {
        map_mut(obj, "spec");
    }

    fn has_status(&self) -> bool {
        false
    }

    fn prepare_for_create(&self, _ctx: &Ctx<'_>, obj: &mut Object) {
        drop_gated(obj);
    }

    fn prepare_for_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        let spec = old.at("spec");
        if !spec.has("strategy") && !spec.has("preferredHolder") {
            drop_gated(new);
        }
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

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let (mut errors, spec, path) = (Errors::default(), obj.at("spec"), Path::root("spec"));
        if let Some(seconds) = spec.int("leaseDurationSeconds").filter(|s| *s <= 0) {
            errors.invalid(&path.field("leaseDurationSeconds"), seconds, "must be greater than 0");
        }
        errors.non_negative(&path.field("leaseTransitions"), spec.int("leaseTransitions").unwrap_or(0));
        errors.0
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let holder = obj.at("spec").text("holderIdentity");
        vec![api::meta::name(obj).into(), holder.into(), age::since_creation(obj, now).into()]
    }
}

/// Fields behind a feature gate that is off (CoordinatedLeaderElection).
fn drop_gated(obj: &mut Object) {
    for field in ["strategy", "preferredHolder"] {
        obj["spec"].as_object_mut().map(|map| map.remove(field));
    }
}
