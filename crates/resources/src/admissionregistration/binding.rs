//! Bindings of admission policies.

use super::matching;
use crate::age;
use crate::columns::{AGE, NAME};
use crate::field::{Errors, Fields, Path, field_mut, map_mut, repeated};
use crate::{Ctx, MetadataChecks, Strategy, metadata, names};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::Value;

/// Bindings of validating (false) and mutating (true) admission policies.
pub struct AdmissionPolicyBinding {
    /// Whether its policy may change objects.
    pub mutating: bool,
}

const SPEC: Path<'_> = Path::root("spec");
const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];
const COLUMNS: &[Column] = &[
    NAME,
    Column::string("PolicyName")
        .describe("PolicyName indicates the policy definition which the policy binding binded to"),
    Column::string("ParamRef").describe("ParamRef indicates the param resource which sets the configuration param"),
    AGE,
];
const MUTATING_COLUMNS: &[Column] = &[
    NAME,
    Column::string("PolicyName")
        .describe("PolicyName indicates the policy definition which the policy binding binded to"),
    Column::string("ParamRef").describe("ParamRef indicates the param resource which sets the configuration param"),
    AGE,
];

impl Strategy for AdmissionPolicyBinding {
    fn default(&self, obj: &mut Object) {
        if let Some(spec) = map_mut(obj, "spec") {
            field_mut(spec, "matchResources").into_iter().for_each(matching::resources_defaults);
        }
    }

    /// Finalizers are not held against the standard ones.
    fn is_built_in(&self) -> bool {
        false
    }

    fn has_status(&self) -> bool {
        false
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
        let (mut errors, spec) = (Errors::default(), obj.at("spec"));
        match spec.text("policyName") {
            "" => errors.required(&SPEC.field("policyName"), ""),
            name => errors.invalid_each(&SPEC.field("policyName"), name, names::dns1123_subdomain(name, false)),
        }
        if spec.has("paramRef") {
            param_ref(&mut errors, spec.at("paramRef"), &SPEC.field("paramRef"));
        }
        if spec.has("matchResources") {
            matching::match_resources(&mut errors, spec.at("matchResources"), &SPEC.field("matchResources"));
        }
        if self.mutating {
            matching::mutable_operations(&mut errors, spec.at("matchResources"), &SPEC.field("matchResources"));
        } else {
            actions(&mut errors, spec, &SPEC.field("validationActions"));
        }
        errors.0
    }

    fn warnings(&self, obj: &Object, _old: Option<&Object>) -> Vec<String> {
        matching::warnings(obj)
    }

    fn columns(&self) -> &'static [Column] {
        if self.mutating { MUTATING_COLUMNS } else { COLUMNS }
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let (spec, of) = (obj.at("spec"), obj.at("spec").at("paramRef"));
        let parameters = match (of.is_null(), of.text("name"), of.has("selector")) {
            (true, ..) => "<unset>".to_owned(),
            (_, "", true) => metadata::format_selector(of.at("selector")),
            (_, "", false) => "*".into(),
            (_, name, _) if of.text("namespace").is_empty() => name.to_owned(),
            (_, name, _) => format!("{}/{name}", of.text("namespace")),
        };
        vec![
            api::meta::name(obj).into(),
            spec.text("policyName").into(),
            parameters.into(),
            age::since_creation(obj, now).into(),
        ]
    }
}

fn param_ref(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    let (name, selector) = (of.text("name"), of.at("selector"));
    if !name.is_empty() {
        errors.invalid_each(&path.field("name"), name, names::path_segment(name, false));
        if !selector.is_null() {
            errors.forbidden(&path.field("name"), EXCLUSIVE);
        }
    }
    if !selector.is_null() {
        metadata::label_selector(errors, selector, &path.field("selector"));
        if !name.is_empty() {
            errors.forbidden(&path.field("selector"), EXCLUSIVE);
        }
    }
    if name.is_empty() && selector.is_null() {
        errors.required(path, "one of name or selector must be specified");
    }
    match of.text("parameterNotFoundAction") {
        "" => errors.required(&path.field("parameterNotFoundAction"), ""),
        action => errors.one_of(&path.field("parameterNotFoundAction"), action, &["Deny", "Allow"]),
    }
}

fn actions(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let list = spec.texts("validationActions");
    let twice = repeated(list.iter());
    for (i, action) in list.iter().enumerate() {
        errors.supported(&path.index(i), action, &ACTIONS);
        if twice[i] {
            errors.duplicate(&path.index(i), *action);
        }
    }
    if list.contains(&"Deny") && list.contains(&"Warn") {
        let text = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        errors.invalid(path, list, text);
    }
    if spec.list("validationActions").is_empty() {
        errors.required(path, "at least one validation action is required");
    }
}
