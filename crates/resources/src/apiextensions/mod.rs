//! `apiextensions.k8s.io`: custom resource definitions. The schemas inside are checked by `structural`.
//!
//! What all versions have in common is named without the version in errors, as upstream's internal form has it.

mod approval;
mod conversion;
mod names;
mod spec;
mod versions;

use crate::field::{Errors, Fields, Path, field_mut, items_mut, map_mut, set_default};
use crate::structural::definition::unrecognized;
use crate::{Ctx, Strategy, copy_field};
use api::{Cause, Object};
use serde_json::{Value, json};
use spec::Before;

/// Custom resource definitions.
pub struct CustomResourceDefinition;

const SPEC: Path<'_> = Path::root("spec");
const STATUS: Path<'_> = Path::root("status");

impl Strategy for CustomResourceDefinition {
    fn default(&self, obj: &mut Object) {
        let stored = storage_version(obj);
        let Some(spec) = map_mut(obj, "spec") else { return };
        if let Some(names) = map_mut(spec, "names") {
            let kind = names.text("kind").to_owned();
            if !kind.is_empty() {
                set_default(names, "singular", kind.to_lowercase());
                set_default(names, "listKind", format!("{kind}List"));
            }
        }
        if !spec.has("conversion") {
            spec["conversion"] = json!({"strategy": "None"});
        }
        let webhook = field_mut(spec, "conversion").and_then(|c| field_mut(c, "webhook"));
        let service = webhook.and_then(|w| field_mut(w, "clientConfig")).and_then(|c| field_mut(c, "service"));
        if let Some(service) = service {
            set_default(service, "port", 443);
        }
        for version in items_mut(spec, "versions") {
            for flag in ["served", "storage"] {
                if !version.has(flag) {
                    version[flag] = false.into();
                }
            }
        }
        if let Some(status) = map_mut(obj, "status")
            && let (Some(stored), true) = (stored, status.list("storedVersions").is_empty())
        {
            status["storedVersions"] = json!([stored]);
        }
    }

    fn prepare_for_create(&self, _ctx: &Ctx<'_>, obj: &mut Object) {
        let stored = storage_version(obj).map_or(Value::Null, |name| json!([name]));
        obj["status"] =
            json!({"conditions": null, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored});
    }

    fn prepare_for_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        copy_field(new, old, "status");
        // a version that begins to be stored stays among the stored ones
        let Some(stored) = storage_version(new) else { return };
        let Some(status) = map_mut(new, "status") else { return };
        let mut list = status.list("storedVersions").to_vec();
        if !list.contains(&stored) {
            list.push(stored);
            status["storedVersions"] = list.into();
        }
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn is_built_in(&self) -> bool {
        // Finalizers are as free as those of custom resources: its own is not fully qualified.
        false
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        spec::definition(&mut errors, obj, &Before::nothing());
        names::of_status(&mut errors, obj);
        stored_versions(&mut errors, obj);
        approval::check(&mut errors, obj, None);
        preserve_unknown(&mut errors, obj, None);
        errors.0
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        let before = Before::of(old);
        spec::definition(&mut errors, new, &before);
        let (now, was) = (new.at("spec"), old.at("spec"));
        if before.established {
            errors.immutable(&SPEC.field("scope"), now.at("scope"), was.at("scope"));
            errors.immutable(&SPEC.field("names.kind"), now.at("names").at("kind"), was.at("names").at("kind"));
        }
        errors.immutable(&SPEC.field("group"), now.at("group"), was.at("group"));
        errors.immutable(&SPEC.field("names.plural"), now.at("names").at("plural"), was.at("names").at("plural"));
        names::of_status(&mut errors, new);
        stored_versions(&mut errors, new);
        approval::check(&mut errors, new, Some(old));
        preserve_unknown(&mut errors, new, Some(old));
        errors.0
    }

    fn validate_name_of(&self, obj: &Object, name: &str, prefix: bool) -> Vec<String> {
        let spec = obj.at("spec");
        let mut wrong = self.validate_name(name, prefix);
        if name != format!("{}.{}", spec.at("names").text("plural"), spec.text("group")) {
            wrong.push("must be spec.names.plural+\".\"+spec.group".into());
        }
        wrong
    }

    fn warnings(&self, obj: &Object, old: Option<&Object>) -> Vec<String> {
        let known = old.map(unrecognized_formats).unwrap_or_default();
        let new = unrecognized_formats(obj).into_iter().filter(|format| !known.contains(format));
        new.map(|format| format!("unrecognized format {format:?}")).collect()
    }

    fn prepare_for_status_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        copy_field(new, old, "spec");
    }

    fn validate_status_update(&self, _ctx: &Ctx<'_>, new: &Object, _old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        names::of_status(&mut errors, new);
        errors.0
    }
}

/// The name of the first version that is stored.
fn storage_version(obj: &Object) -> Option<Value> {
    obj.at("spec").list("versions").iter().find(|v| v.flag("storage")).map(|v| v.at("name").clone())
}

/// What was ever stored must stay known.
fn stored_versions(errors: &mut Errors, obj: &Object) {
    let (stored, path) = (obj.at("status").texts("storedVersions"), STATUS.field("storedVersions"));
    let versions = obj.at("spec").list("versions");
    if stored.is_empty() {
        return errors.invalid(&path, Value::Null, "must have at least one stored version");
    }
    // A name is found once: of two versions with it the second one is not known.
    let mut known = stored.clone();
    for version in versions {
        let name = version.text("name");
        let place = known.iter().position(|stored| *stored == name);
        if version.flag("storage") && place.is_none() {
            errors.invalid(&path, stored.clone(), &format!("must have the storage version {name}"));
        }
        place.map(|at| known.swap_remove(at));
    }
    for (i, name) in stored.iter().enumerate() {
        if !versions.iter().any(|v| v.text("name") == *name) {
            let why = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            errors.invalid(&path.index(i), *name, &why);
        }
    }
}

fn preserve_unknown(errors: &mut Errors, new: &Object, old: Option<&Object>) {
    let set = |obj: &Object| obj.at("spec").flag("preserveUnknownFields");
    if set(new) && !old.is_some_and(set) {
        let why =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.invalid(&SPEC.field("preserveUnknownFields"), true, why);
    }
}

/// The formats of all schemas that are not known; what all versions have in common counts once.
fn unrecognized_formats(obj: &Object) -> Vec<String> {
    let versions = obj.at("spec").list("versions");
    let shown = if spec::common(versions, "schema") { &versions[..versions.len().min(1)] } else { versions };
    shown.iter().flat_map(|v| unrecognized(v.at("schema").at("openAPIV3Schema"))).collect()
}
