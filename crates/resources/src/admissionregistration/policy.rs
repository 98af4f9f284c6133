//! Admission policies written in CEL.

use super::expressions::{Compiler, Gives};
use super::matching;
use crate::age;
use crate::columns::{AGE, NAME};
use crate::field::{Errors, Fields, Path, field_mut, map_mut, repeated, same, set_default};
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
const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
const MAX_ANNOTATIONS: usize = 20;
/// Values may be twice as long: expressions join strings.
const MAX_ANNOTATION_EXPRESSION: usize = 5 * 1024;
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

    /// Finalizers are not held against the standard ones.
    fn is_built_in(&self) -> bool {
        false
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
        false
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        self.errors(obj, false)
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let (new_spec, old_spec) = (new.at("spec"), old.at("spec"));
        let stays = |field: &str| same(new_spec.at(field), old_spec.at(field));
        self.errors(new, stays("paramKind") && stays("matchConditions"))
    }

    fn validate_status_update(&self, _ctx: &Ctx<'_>, new: &Object, _old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        let (status, path) = (new.at("status"), Path::root("status"));
        let (checking, list) = (path.field("typeChecking"), status.at("typeChecking").list("expressionWarnings"));
        let warnings = checking.field("expressionWarnings");
        for (i, warning) in list.iter().enumerate() {
            let path = warnings.index(i);
            for field in ["warning", "fieldRef"] {
                if warning.text(field).trim().is_empty() {
                    errors.required(&path.field(field), "");
                }
            }
        }
        errors.0
    }

    fn warnings(&self, obj: &Object, _old: Option<&Object>) -> Vec<String> {
        matching::warnings(obj)
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

impl AdmissionPolicy {
    /// All errors; conditions that stay as they are were valid once.
    fn errors(&self, obj: &Object, same_conditions: bool) -> Vec<Cause> {
        let (mut errors, spec) = (Errors::default(), obj.at("spec"));
        common(&mut errors, spec);
        if self.mutating {
            matching::mutable_operations(&mut errors, spec.at("matchConstraints"), &SPEC.field("matchConstraints"));
        }
        if !same_conditions {
            let (list, path) = (spec.list("matchConditions"), SPEC.field("matchConditions"));
            matching::conditions(&mut errors, list, spec.has("paramKind"), &path);
        }
        let mut compiler = Compiler::new(spec.has("paramKind"));
        if self.mutating || !spec.list("variables").is_empty() {
            compiler = compiler.with_variables();
        }
        variables(&mut errors, spec, &mut compiler);
        match self.mutating {
            true => mutations(&mut errors, spec, &compiler),
            false => validations(&mut errors, obj, spec, &compiler),
        }
        errors.0
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
}

fn variables(errors: &mut Errors, spec: &Value, compiler: &mut Compiler) {
    let list = SPEC.field("variables");
    for (i, variable) in spec.list("variables").iter().enumerate() {
        let (path, name) = (list.index(i), variable.text("name"));
        if name.trim().is_empty() {
            errors.required(&path.field("name"), "name is not specified");
        } else if !is_identifier(name) {
            errors.invalid(&path.field("name"), name, "must be a valid CEL identifier");
        }
        let (text, path) = (variable.text("expression"), path.field("expression"));
        if text.trim().is_empty() {
            errors.required(&path, "expression is not specified");
        } else {
            matching::compiled(errors, text, compiler.variable(name, text), &path);
        }
    }
}

/// Whether CEL takes a name for an identifier.
fn is_identifier(name: &str) -> bool {
    names::c_identifier(name).is_empty() && !expression::is_reserved(name)
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

fn validations(errors: &mut Errors, obj: &Object, spec: &Value, compiler: &Compiler) {
    let (list, audits) = (spec.list("validations"), spec.list("auditAnnotations"));
    let (path, audit_path) = (SPEC.field("validations"), SPEC.field("auditAnnotations"));
    if list.is_empty() && audits.is_empty() {
        errors.required(&path, NEEDS_ONE);
        return errors.required(&audit_path, NEEDS_ONE);
    }
    for (i, one) in list.iter().enumerate() {
        validation(errors, one, compiler, &path.index(i));
    }
    if audits.len() > MAX_ANNOTATIONS {
        let text = format!("must not have more than {MAX_ANNOTATIONS} auditAnnotations");
        errors.invalid(&audit_path, audits.to_vec(), &text);
    }
    let twice = repeated(audits.iter().map(|audit| audit.text("key")));
    for (i, audit) in audits.iter().enumerate() {
        let path = audit_path.index(i);
        annotation(errors, api::meta::name(obj), audit, compiler, &path);
        let key = audit.text("key");
        if twice[i] {
            errors.duplicate(&path.field("key"), key);
        }
    }
}

fn validation(errors: &mut Errors, validation: &Value, compiler: &Compiler, path: &Path<'_>) {
    let expression = validation.text("expression");
    match expression.trim() {
        "" => errors.required(&path.field("expression"), "expression is not specified"),
        _ => {
            let compiled = compiler.compile(expression, true, Gives::Bool);
            matching::compiled(errors, expression, compiled, &path.field("expression"));
        }
    }
    for field in ["messageExpression", "message"] {
        let (text, path) = (validation.text(field), path.field(field));
        match (field, text, text.trim()) {
            (_, "", _) => {}
            (_, _, "") => errors.invalid(&path, text, "must be non-empty if specified"),
            ("message", _, trimmed) if trimmed.contains('\n') => {
                errors.invalid(&path, text, "must not contain line breaks");
            }
            ("message", ..) => {}
            _ => matching::compiled(errors, text, compiler.compile(text, false, Gives::Text), &path),
        }
    }
    if validation.has("reason") {
        errors.supported(&path.field("reason"), validation.text("reason"), &REASONS);
    }
}

fn annotation(errors: &mut Errors, policy: &str, annotation: &Value, compiler: &Compiler, path: &Path<'_>) {
    let key = annotation.text("key");
    if policy.is_empty() {
        errors.invalid(&path.field("key"), key, "requires metadata.name be non-empty");
    } else {
        let full = format!("{policy}/{key}");
        errors.invalid_each(&path.field("key"), &full, names::qualified_name(&full));
    }
    let (text, path) = (annotation.text("valueExpression"), path.field("valueExpression"));
    match text.trim() {
        "" => errors.required(&path, "valueExpression is not specified"),
        trimmed if trimmed.len() > MAX_ANNOTATION_EXPRESSION => {
            errors.required(&path, &format!("must not exceed {MAX_ANNOTATION_EXPRESSION} bytes in length"));
        }
        trimmed => matching::compiled(errors, text, compiler.compile(trimmed, true, Gives::TextOrNull), &path),
    }
}

fn mutations(errors: &mut Errors, spec: &Value, compiler: &Compiler) {
    let (list, path) = (spec.list("mutations"), SPEC.field("mutations"));
    if list.is_empty() {
        errors.required(&path, "mutations must contain at least one item");
    }
    for (i, one) in list.iter().enumerate() {
        mutation(errors, one, compiler, &path.index(i));
    }
    match spec.text("reinvocationPolicy") {
        "" => errors.required(&SPEC.field("reinvocationPolicy"), ""),
        policy => errors.one_of(&SPEC.field("reinvocationPolicy"), policy, &["IfNeeded", "Never"]),
    }
}

/// A form of mutation: its name, its field, the other form's field, and what its expression gives.
const FORMS: [(&str, &str, &str, Gives); 2] = [
    ("ApplyConfiguration", "applyConfiguration", "jsonPatch", Gives::Configuration),
    ("JSONPatch", "jsonPatch", "applyConfiguration", Gives::Patches),
];

fn mutation(errors: &mut Errors, mutation: &Value, compiler: &Compiler, path: &Path<'_>) {
    let kind = mutation.text("patchType");
    let Some((_, field, other, gives)) = FORMS.iter().find(|(name, ..)| *name == kind) else {
        return match kind {
            "" => errors.required(&path.field("patchType"), ""),
            _ => errors.not_supported(&path.field("patchType"), kind, &FORMS.map(|(name, ..)| name)),
        };
    };
    let at = path.field(field);
    if !mutation.has(field) {
        errors.required(&at, &format!("must be specified when patchType is {kind}"));
    } else {
        let (text, at) = (mutation.at(field).text("expression").trim(), at.field("expression"));
        match text {
            "" => errors.required(&at, ""),
            _ => matching::compiled(errors, text, compiler.compile(text, true, *gives), &at),
        }
    }
    if mutation.has(other) {
        let text = format!("must not be specified when patchType is {kind}");
        errors.invalid(&path.field(other), format!("{{{other}}}"), &text);
    }
}
