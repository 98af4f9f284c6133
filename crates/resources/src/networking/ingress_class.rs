//! Ingress classes.

use crate::age;
use crate::columns::{AGE, NAME};
use crate::field::{Errors, Fields, Path, field_mut, map_mut, set_default};
use crate::{Ctx, MetadataChecks, Strategy, names};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::Value;

/// Ingress classes.
pub struct IngressClass;

const SPEC: Path<'_> = Path::root("spec");
const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Controller").describe("Controller that is responsible for handling this class"),
    Column::string("Parameters").describe("A reference to a resource with additional parameters"),
    AGE,
];

impl Strategy for IngressClass {
    fn default(&self, obj: &mut Object) {
        if let Some(parameters) = map_mut(obj, "spec").and_then(|s| field_mut(s, "parameters")) {
            set_default(parameters, "scope", "Cluster");
        }
    }

    fn has_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn metadata_on_update(&self) -> MetadataChecks {
        MetadataChecks::Both
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let (mut errors, spec) = (Errors::default(), obj.at("spec"));
        let (controller, path) = (spec.text("controller"), SPEC.field("controller"));
        if controller.len() > 250 {
            errors.too_long(&path, 250);
        }
        domain_prefixed_path(&mut errors, controller, &path);
        if spec.has("parameters") {
            parameters(&mut errors, spec.at("parameters"), &SPEC.field("parameters"));
        }
        errors.0
    }

    fn validate_update(&self, ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        let (now, was) = (new.at("spec"), old.at("spec"));
        errors.immutable_text(&SPEC.field("controller"), now.at("controller"), was.at("controller"));
        errors.0.extend(self.validate(ctx, new));
        errors.0
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let (spec, of) = (obj.at("spec"), obj.at("spec").at("parameters"));
        let parameters = match (of.is_null(), of.text("apiGroup")) {
            (true, _) => "<none>".to_owned(),
            (false, "") => format!("{}/{}", of.text("kind"), of.text("name")),
            (false, group) => format!("{}.{group}/{}", of.text("kind"), of.text("name")),
        };
        vec![
            api::meta::name(obj).into(),
            spec.text("controller").into(),
            parameters.into(),
            age::since_creation(obj, now).into(),
        ]
    }
}

/// Errors of a path after a domain, `acme.io/foo`.
pub fn domain_prefixed_path(errors: &mut Errors, text: &str, path: &Path<'_>) {
    if text.is_empty() {
        return errors.required(path, "");
    }
    let Some((domain, rest)) = text.split_once('/').filter(|(domain, rest)| !domain.is_empty() && !rest.is_empty())
    else {
        return errors.invalid(path, text, "must be a domain-prefixed path (such as \"acme.io/foo\")");
    };
    errors.invalid_each(path, domain, names::dns1123_subdomain(domain, false));
    let fine = |c: char| c.is_ascii_alphanumeric() || "/-._~%!$&'()*+,;=:".contains(c);
    if !rest.chars().all(fine) {
        let fmt = "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+";
        errors.invalid(path, rest, &names::regex_text("Invalid path", fmt, &[]));
    }
}

fn parameters(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    if of.has("apiGroup") {
        let group = of.text("apiGroup");
        errors.invalid_each(&path.field("apiGroup"), group, names::dns1123_subdomain(group, false));
    }
    for field in ["kind", "name"] {
        super::segment(errors, of.text(field), true, &path.field(field));
    }
    if !errors.supported(&path.field("scope"), of.text("scope"), &["Cluster", "Namespace"]) {
        return;
    }
    let at = path.field("namespace");
    match (of.text("scope"), of.at("namespace").as_str()) {
        ("Namespace", None) => errors.required(&at, "`parameters.scope` is set to 'Namespace'"),
        ("Namespace", Some(ns)) => errors.invalid_each(&at, ns, names::dns1123_label(ns, false)),
        (_, Some(_)) => errors.forbidden(&at, "`parameters.scope` is set to 'Cluster'"),
        _ => {}
    }
}
