//! Admission policies written in CEL.

use super::matching;
use crate::age;
use crate::columns::{AGE, NAME};
use crate::field::{Errors, Fields, Path, field_mut, map_mut, set_default};
use crate::{Ctx, MetadataChecks, Strategy, copy_field, names};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Validating (false) and mutating (true) admission policies.
pub struct AdmissionPolicy {
    /// Whether it may change objects.
    pub mutating: bool,
}

const SPEC: Path<'_> = Path::root("spec");
const COLUMNS: &[Column] = &[
    NAME,
    Column::integer("Validations")
        .describe("Validations indicates the number of validation rules defined in this configuration"),
    Column::string("ParamKind").describe("ParamKind specifies the kind of resources used to parameterize this policy"),
    AGE,
];
const MUTATING_COLUMNS: &[Column] = &[
    NAME,
    Column::integer("Mutations")
        .describe("Mutation indicates the number of mutations rules defined in this configuration"),
    Column::string("ParamKind").describe("ParamKind specifies the kind of resources used to parameterize this policy"),
    AGE,
];
const REASONS: [&str; 4] = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
const NEEDS_ONE: &str = "validations or auditAnnotations must contain at least one item";

impl Strategy for AdmissionPolicy {
    fn default(&self, obj: &mut Object) {
        if let Some(spec) = map_mut(obj, "spec") {
            set_default(spec, "failurePolicy", "Fail");
            field_mut(spec, "matchConstraints").into_iter().for_each(matching::resources_defaults);
        }
        if !self.mutating {
            map_mut(obj, "status");
        }
    }

    fn prepare_for_create(&self, _ctx: &Ctx<'_>, obj: &mut Object) {
        if !self.mutating {
            obj["status"] = json!({});
        }
    }

    fn has_status(&self) -> bool {
        !self.mutating
    }

    fn prepare_for_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        if !self.mutating {
            copy_field(new, old, "status");
        }
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn metadata_on_update(&self) -> MetadataChecks {
        MetadataChecks::Create
    }

    fn allow_unconditional_update(&self) -> bool {
        !self.mutating
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let (mut errors, spec) = (Errors::default(), obj.at("spec"));
        common(&mut errors, spec);
        match self.mutating {
            true => mutations(&mut errors, spec),
            false => validations(&mut errors, obj, spec),
        }
        errors.0
    }

    fn prepare_for_status_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        let (status, rv) = (new.at("status").clone(), new.at("metadata").at("resourceVersion").clone());
        let managed = new.at("metadata").at("managedFields").clone();
        *new = old.clone();
        new["status"] = status;
        api::meta::set(new, "resourceVersion", rv);
        api::meta::set(new, "managedFields", managed);
    }

    fn columns(&self) -> &'static [Column] {
        if self.mutating { MUTATING_COLUMNS } else { COLUMNS }
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let spec = obj.at("spec");
        let kind = spec.at("paramKind");
        let kind = if kind.is_null() {
            "<unset>".into()
        } else {
            format!("{}/{}", kind.text("apiVersion"), kind.text("kind"))
        };
        let list = if self.mutating { "mutations" } else { "validations" };
        vec![
            api::meta::name(obj).into(),
            spec.list(list).len().into(),
            kind.into(),
            age::since_creation(obj, now).into(),
        ]
    }
}

fn common(errors: &mut Errors, spec: &Value) {
    errors.supported(&SPEC.field("failurePolicy"), spec.text("failurePolicy"), &["Fail", "Ignore"]);
    if spec.has("paramKind") {
        param_kind(errors, spec.at("paramKind"), &SPEC.field("paramKind"));
    }
    let (of, path) = (spec.at("matchConstraints"), SPEC.field("matchConstraints"));
    if of.is_null() {
        errors.required(&path, "");
    } else {
        matching::match_resources(errors, of, &path);
        if of.list("resourceRules").is_empty() {
            errors.required(&path.field("resourceRules"), "");
        }
    }
    matching::conditions(errors, spec.list("matchConditions"), &SPEC.field("matchConditions"));
    let list = SPEC.field("variables");
    for (i, variable) in spec.list("variables").iter().enumerate() {
        let (path, name) = (list.index(i), variable.text("name"));
        if name.trim().is_empty() {
            errors.required(&path.field("name"), "name is not specified");
        } else if !names::c_identifier(name).is_empty() {
            errors.invalid(&path.field("name"), name, "must be a valid CEL identifier");
        }
        if variable.text("expression").trim().is_empty() {
            errors.required(&path.field("expression"), "expression is not specified");
        }
    }
}

fn param_kind(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    let (api_version, kind) = (of.text("apiVersion"), of.text("kind"));
    let at = path.field("apiVersion");
    if api_version.is_empty() {
        errors.required(&at, "");
    } else {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let group_wrong = if group.is_empty() { Vec::new() } else { names::dns1123_subdomain(group, false) };
        for (part, wrong) in [(group, group_wrong), (version, names::dns1035_label(version, false))] {
            if !wrong.is_empty() {
                errors.invalid(&at, part, &wrong.join(","));
            }
        }
    }
    if kind.is_empty() {
        return errors.required(&path.field("kind"), "");
    }
    let wrong = names::dns1035_label(&kind.to_lowercase(), false);
    if !wrong.is_empty() {
        let text = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
        errors.invalid(&path.field("kind"), kind, &text);
    }
}

fn validations(errors: &mut Errors, obj: &Object, spec: &Value) {
    let (list, audits) = (spec.list("validations"), spec.list("auditAnnotations"));
    let (path, audit_path) = (SPEC.field("validations"), SPEC.field("auditAnnotations"));
    if list.is_empty() && audits.is_empty() {
        errors.required(&path, NEEDS_ONE);
        return errors.required(&audit_path, NEEDS_ONE);
    }
    for (i, validation) in list.iter().enumerate() {
        let path = path.index(i);
        if validation.text("expression").trim().is_empty() {
            errors.required(&path.field("expression"), "expression is not specified");
        }
        for field in ["messageExpression", "message"] {
            let text = validation.text(field);
            if !text.is_empty() && text.trim().is_empty() {
                errors.invalid(&path.field(field), text, "must be non-empty if specified");
            } else if field == "message" && text.trim().contains('\n') {
                errors.invalid(&path.field(field), text, "must not contain line breaks");
            }
        }
        if validation.has("reason") {
            errors.supported(&path.field("reason"), validation.text("reason"), &REASONS);
        }
    }
    for (i, audit) in audits.iter().enumerate() {
        let (path, key) = (audit_path.index(i), audit.text("key"));
        let full = format!("{}/{key}", api::meta::name(obj));
        errors.invalid_each(&path.field("key"), &full, names::qualified_name(&full));
        if audit.text("valueExpression").trim().is_empty() {
            errors.required(&path.field("valueExpression"), "valueExpression is not specified");
        }
        if audits[..i].iter().any(|a| a.text("key") == key) {
            errors.duplicate(&path.field("key"), key);
        }
    }
}

fn mutations(errors: &mut Errors, spec: &Value) {
    let (list, path) = (spec.list("mutations"), SPEC.field("mutations"));
    if list.is_empty() {
        errors.required(&path, "mutations must contain at least one item");
    }
    for (i, mutation) in list.iter().enumerate() {
        let path = path.index(i);
        let kinds = [("ApplyConfiguration", "applyConfiguration"), ("JSONPatch", "jsonPatch")];
        let kind = mutation.text("patchType");
        match kinds.iter().find(|(k, _)| *k == kind) {
            None if kind.is_empty() => errors.required(&path.field("patchType"), ""),
            None => errors.not_supported(&path.field("patchType"), kind, &kinds.map(|(k, _)| k)),
            Some((_, field)) if !mutation.has(field) => {
                errors.required(&path.field(field), &format!("must be specified when patchType is {kind}"));
            }
            Some((_, field)) => {
                if mutation.at(field).text("expression").trim().is_empty() {
                    errors.required(&path.field(field).field("expression"), "expression is not specified");
                }
            }
        }
    }
    match spec.text("reinvocationPolicy") {
        "" => errors.required(&SPEC.field("reinvocationPolicy"), ""),
        policy => errors.one_of(&SPEC.field("reinvocationPolicy"), policy, &["IfNeeded", "Never"]),
    }
}
