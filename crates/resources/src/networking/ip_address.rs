//! IP addresses that services hold.

use crate::columns::NAME;
use crate::field::{Errors, Fields, Path, same};
use crate::{Ctx, MetadataChecks, Strategy, names};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::Value;

/// IP addresses.
pub struct IpAddress;

const COLUMNS: &[Column] =
    &[NAME, Column::string("ParentRef").field("io.k8s.api.networking.v1.IPAddressSpec", "parentRef")];

impl Strategy for IpAddress {
    fn has_status(&self) -> bool {
        false
    }

    fn metadata_on_update(&self) -> MetadataChecks {
        MetadataChecks::Both
    }

    fn validate_name(&self, name: &str, _prefix: bool) -> Vec<String> {
        names::strict_ip(name)
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let (mut errors, parent) = (Errors::default(), obj.at("spec").at("parentRef"));
        let path = Path::root("spec.parentRef");
        if parent.is_null() {
            errors.required(&path, "");
            return errors.0;
        }
        let group = parent.text("group");
        if !group.is_empty() {
            errors.invalid_each(&path.field("group"), group, names::dns1123_subdomain(group, false));
        }
        for (field, required) in [("resource", true), ("name", true), ("namespace", false)] {
            super::segment(&mut errors, parent.text(field), required, &path.field(field));
        }
        errors.0
    }

    fn validate_update(&self, ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors(self.validate(ctx, new));
        let (now, was) = (new.at("spec").at("parentRef"), old.at("spec").at("parentRef"));
        if !same(now, was) {
            let (schema, path) = ("io.k8s.api.networking.v1.ParentReference", Path::root("spec.parentRef"));
            match now.is_null() {
                true => errors.invalid(&path, Value::Null, crate::field::IMMUTABLE),
                false => errors.invalid_struct(&path, schema, now, crate::field::IMMUTABLE),
            }
        }
        errors.0
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let parent = obj.at("spec").at("parentRef");
        let parts = ["group", "resource", "namespace", "name"].map(|f| parent.text(f));
        let text = parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join("/");
        // The age is there without a column of its own, as upstream has it.
        vec![api::meta::name(obj).into(), text.into(), crate::age::since_creation(obj, now).into()]
    }
}
