//! Resource quotas.

use crate::age;
use crate::columns::{AGE, NAME};
use crate::core::quantities::{amount, is_scoped, is_standard, quantity, resource_name, round_up};
use crate::field::{Errors, Fields, IMMUTABLE, Path, field_mut, map_mut};
use crate::{Ctx, StatusRules, Strategy};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeSet;

/// Resource quotas.
pub struct ResourceQuota;

const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Request").describe("Request represents a minimum amount of cpu/memory that a container may consume."),
    Column::string("Limit").describe("Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node."),
    AGE,

];
const SPEC: Path<'_> = Path::root("spec");
const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];
const COMPUTE: [&str; 7] = ["pods", "cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

impl Strategy for ResourceQuota {
    fn default(&self, obj: &mut Object) {
        if let Some(spec) = map_mut(obj, "spec") {
            field_mut(spec, "hard").into_iter().for_each(round_up);
        }
        if let Some(status) = map_mut(obj, "status") {
            for list in ["hard", "used"] {
                field_mut(status, list).into_iter().for_each(round_up);
            }
        }
    }

    fn status_rules(&self) -> StatusRules {
        StatusRules::begins(|| serde_json::json!({}))
    }

    fn warnings(&self, obj: &Object, old: Option<&Object>) -> Vec<String> {
        let hard = obj.at("spec").at("hard");
        let mut out = Vec::new();
        for name in ["cpu", "memory", "storage", "ephemeral-storage"].into_iter().filter(|_| old.is_none()) {
            let (requests, limits) = (format!("requests.{name}"), format!("limits.{name}"));
            let bare = !hard.has(&requests) && ["cpu", "memory"].contains(&name);
            let requests = if bare { name.to_owned() } else { requests };
            if !hard.has(&requests) || !hard.has(&limits) {
                continue;
            }
            let (request, limit) = (quantity(hard.at(&requests)), quantity(hard.at(&limits)));
            if request > limit {
                out.push(format!("ResourceQuota {requests} ({request}) should be less than {limits} ({limit})"));
            }
        }
        out
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        spec(&mut errors, obj.at("spec"));
        errors.0
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        spec(&mut errors, new.at("spec"));
        let [now, was] = [new, old].map(|obj| BTreeSet::from_iter(obj.at("spec").texts("scopes")));
        if now != was {
            errors.invalid(&SPEC.field("scopes"), new.at("spec").at("scopes").clone(), IMMUTABLE);
        }
        errors.0
    }

    fn validate_status_update(&self, _ctx: &Ctx<'_>, new: &Object, _old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        for list in ["hard", "used"] {
            let path = Path::root("status");
            amounts(&mut errors, new.at("status"), list, &path.field(list));
        }
        errors.0
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        let status = obj.at("status");
        for (name, hard) in status.entries("hard") {
            let text = format!("{name}: {}/{}", quantity(status.at("used").at(name)), quantity(hard));
            if name.starts_with("limits") { &mut limits } else { &mut requests }.push(text);
        }
        vec![
            api::meta::name(obj).into(),
            requests.join(", ").into(),
            limits.join(", ").into(),
            age::since_creation(obj, now).into(),
        ]
    }
}

fn amounts(errors: &mut Errors, of: &Value, list: &str, path: &Path<'_>) {
    for (name, value) in of.entries(list) {
        let path = path.key(name);
        resource_name(errors, name, &path);
        // Claims ask for storage; a quota limits `requests.storage`.
        if !name.contains('/') && (!is_standard(name) || name == "storage") {
            errors.invalid(&path, name.as_str(), "must be a standard resource for quota");
        }
        amount(errors, name, value, &path);
    }
}

fn spec(errors: &mut Errors, spec: &Value) {
    amounts(errors, spec, "hard", &SPEC.field("hard"));
    let scopes = spec.texts("scopes");
    scope_list(errors, spec, &scopes, &SPEC.field("scopes"));
    selector(errors, spec, &SPEC.field("scopeSelector.matchExpressions"));
}

fn fits(scope: &str, resource: &str) -> bool {
    match scope {
        "BestEffort" => resource == "pods",
        "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | "CrossNamespacePodAffinity" => {
            COMPUTE.contains(&resource)
        }
        "VolumeAttributesClass" => ["persistentvolumeclaims", "requests.storage"].contains(&resource),
        _ => true,
    }
}

fn scope_list(errors: &mut Errors, spec: &Value, scopes: &[&str], path: &Path<'_>) {
    let printed = spec.at("scopes");
    let mut invalid = |detail: &str| errors.add(|| Cause::invalid(path.to_string(), printed, detail));
    let scoped = scoped_resources(spec);
    for scope in scopes {
        if !SCOPES.contains(scope) {
            invalid("unsupported scope");
        }
        for _ in scoped.iter().filter(|resource| !fits(scope, resource)) {
            invalid("unsupported scope applied to resource");
        }
    }
    conflicts(errors, scopes, printed, path);
}

/// The limited resources that a scope may not fit: at most as many as there are such resources at all.
fn scoped_resources(spec: &Value) -> Vec<&str> {
    spec.entries("hard").map(|(resource, _)| resource.as_str()).filter(|resource| is_scoped(resource)).collect()
}

fn conflicts(errors: &mut Errors, scopes: &[&str], printed: &Value, path: &Path<'_>) {
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|s| scopes.contains(s)) {
            errors.invalid(path, printed.clone(), "conflicting scopes");
        }
    }
}

fn selector(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let (mut scopes, scoped) = (Vec::<&str>::new(), scoped_resources(spec));
    for requirement in spec.at("scopeSelector").list("matchExpressions") {
        let (scope, operator, values) =
            (requirement.text("scopeName"), requirement.text("operator"), requirement.list("values"));
        if !SCOPES.contains(&scope) {
            errors.invalid(&path.field("scopeName"), scope, "unsupported scope");
        }
        for _ in scoped.iter().filter(|resource| !fits(scope, resource)) {
            let schema = "io.k8s.api.core.v1.ScopeSelector";
            errors.invalid_struct(path, schema, spec.at("scopeSelector"), "unsupported scope applied to resource");
        }
        if !["PriorityClass", "VolumeAttributesClass"].contains(&scope)
            && SCOPES.contains(&scope)
            && operator != "Exists"
        {
            let text = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.invalid(&path.field("operator"), operator, text);
        }
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                let text = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.required(&path.field("values"), text);
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let text = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.invalid(&path.field("values"), values.to_vec(), text);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(&path.field("operator"), other, "not a valid selector operator"),
        }
        scopes.push(scope);
    }
    conflicts(errors, &scopes, spec.at("scopes"), path);
}
