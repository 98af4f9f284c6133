//! Namespaces.

use crate::age;
use crate::columns::{AGE, NAME};
use crate::field::{Errors, Fields, Path, map_mut, set_default};
use crate::{Ctx, Propagation, StatusRules, Strategy, copy_field, metadata, names};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Namespaces.
pub struct Namespace;

const COLUMNS: &[Column] = &[NAME, Column::string("Status").describe("The status of the namespace"), AGE];

impl Strategy for Namespace {
    fn default(&self, obj: &mut Object) {
        map_mut(obj, "spec");
        let name = api::meta::name(obj).to_owned();
        if let (false, Some(labels)) = (name.is_empty(), map_mut(obj, "metadata").and_then(|m| map_mut(m, "labels"))) {
            labels["kubernetes.io/metadata.name"] = name.into();
        }
        if let Some(status) = map_mut(obj, "status") {
            set_default(status, "phase", "Active");
        }
    }

    fn status_rules(&self) -> StatusRules {
        StatusRules::begins(|| json!({"phase": "Active"}))
    }

    fn prepare_for_create(&self, _ctx: &Ctx<'_>, obj: &mut Object) {
        self.status_rules().begin(obj);
        let mut list: Vec<Value> = obj.at("spec").list("finalizers").to_vec();
        if !list.iter().any(|f| f == "kubernetes") {
            list.push("kubernetes".into());
        }
        obj["spec"]["finalizers"] = list.into();
    }

    fn prepare_for_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        if let Some(spec) = map_mut(new, "spec") {
            copy_field(spec, old.at("spec"), "finalizers");
        }
        copy_field(new, old, "status");
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        names::dns1123_label(name, prefix)
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        finalizers(&mut errors, obj);
        errors.0
    }

    fn validate_status_update(&self, _ctx: &Ctx<'_>, new: &Object, _old: &Object) -> Vec<Cause> {
        let (mut errors, path, phase) = (Errors::default(), Path::root("status.Phase"), new.at("status").text("phase"));
        let (word, text) = match api::meta::is_deleting(new) {
            false => ("Active", "may only be 'Active' if `deletionTimestamp` is empty"),
            true => ("Terminating", "may only be 'Terminating' if `deletionTimestamp` is not empty"),
        };
        if phase != word {
            errors.invalid(&path, phase, text);
        }
        errors.0
    }

    fn default_propagation(&self) -> Propagation {
        Propagation::Background
    }

    fn selectable_fields(&self, obj: &Object) -> Vec<(&'static str, String)> {
        vec![("status.phase", obj.at("status").text("phase").into()), ("name", api::meta::name(obj).into())]
    }

    fn metadata_on_update(&self) -> crate::MetadataChecks {
        crate::MetadataChecks::Both
    }

    fn metadata_on_status_update(&self) -> crate::MetadataChecks {
        crate::MetadataChecks::Update
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let phase = obj.at("status").text("phase");
        vec![api::meta::name(obj).into(), phase.into(), age::since_creation(obj, now).into()]
    }

    fn subresource(&self, name: &str) -> Option<&'static dyn Strategy> {
        (name == "finalize").then_some(&Finalize as &dyn Strategy)
    }
}

fn finalizers(errors: &mut Errors, obj: &Object) {
    let path = Path::root("spec.finalizers");
    for name in obj.at("spec").texts("finalizers") {
        metadata::kube_finalizer(errors, name, &path);
    }
}

/// `namespaces/finalize`: only the finalizers of the spec change.
struct Finalize;

impl Strategy for Finalize {
    fn default(&self, obj: &mut Object) {
        Namespace.default(obj);
    }

    fn prepare_for_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        copy_field(new, old, "status");
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, _old: &Object) -> Vec<Cause> {
        let (mut errors, path) = (Errors::default(), Path::root("spec.finalizers"));
        for (i, name) in new.at("spec").texts("finalizers").into_iter().enumerate() {
            metadata::kube_finalizer(&mut errors, name, &path.index(i));
        }
        errors.0
    }
}
