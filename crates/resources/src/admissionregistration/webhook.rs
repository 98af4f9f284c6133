//! Webhook configurations.

use super::{matching, webhook_client};
use crate::age;
use crate::columns::{AGE, NAME};
use crate::field::{Errors, Fields, Path, field_mut, items_mut, map_mut, repeated, same, set_default};
use crate::{Ctx, Strategy, metadata, names};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::Value;

/// Validating (false) and mutating (true) webhook configurations.
pub struct WebhookConfiguration {
    /// Whether its webhooks may change objects.
    pub mutating: bool,
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::integer("Webhooks").describe("Webhooks indicates the number of webhooks registered in this configuration"),
    AGE,
];
const VALIDATING_COLUMNS: &[Column] = &[
    NAME,
    Column::integer("Webhooks").describe("Webhooks indicates the number of webhooks registered in this configuration"),
    AGE,
];

impl Strategy for WebhookConfiguration {
    fn default(&self, obj: &mut Object) {
        for hook in items_mut(obj, "webhooks").filter(|h| h.is_object()) {
            set_default(hook, "failurePolicy", "Fail");
            set_default(hook, "matchPolicy", "Equivalent");
            set_default(hook, "timeoutSeconds", 10);
            map_mut(hook, "namespaceSelector");
            map_mut(hook, "objectSelector");
            if self.mutating {
                set_default(hook, "reinvocationPolicy", "Never");
            }
            matching::rule_defaults(hook, "rules");
            if let Some(service) = map_mut(hook, "clientConfig").and_then(|c| field_mut(c, "service")) {
                set_default(service, "port", 443);
            }
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

    fn generation_changes(&self, new: &Object, old: &Object) -> bool {
        new.get("webhooks") != old.get("webhooks")
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        self.errors(obj, false)
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        self.errors(new, conditions_stay(new, old))
    }

    fn warnings(&self, obj: &Object, _old: Option<&Object>) -> Vec<String> {
        matching::warnings(obj)
    }

    fn columns(&self) -> &'static [Column] {
        if self.mutating { COLUMNS } else { VALIDATING_COLUMNS }
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        vec![api::meta::name(obj).into(), obj.list("webhooks").len().into(), age::since_creation(obj, now).into()]
    }
}

impl WebhookConfiguration {
    /// All errors; conditions that stay as they are were valid once.
    fn errors(&self, obj: &Object, same_conditions: bool) -> Vec<Cause> {
        let (mut errors, list) = (Errors::default(), Path::root("webhooks"));
        let hooks = obj.list("webhooks");
        let twice = repeated(hooks.iter().map(|hook| hook.text("name")));
        for (i, hook) in hooks.iter().enumerate() {
            let path = list.index(i);
            webhook(&mut errors, hook, self.mutating, &path);
            if !same_conditions {
                let conditions = hook.list("matchConditions");
                matching::conditions(&mut errors, conditions, false, &path.field("matchConditions"));
            }
            review_versions(&mut errors, hook, &path.field("admissionReviewVersions"));
            let name = hook.text("name");
            if !name.is_empty() && twice[i] {
                errors.duplicate(&path.field("name"), name);
            }
        }
        errors.0
    }
}

fn conditions_stay(new: &Object, old: &Object) -> bool {
    let (new, old) = (new.list("webhooks"), old.list("webhooks"));
    let same = |(a, b): (&Value, &Value)| same(a.at("matchConditions"), b.at("matchConditions"));
    new.len() == old.len() && new.iter().zip(old).all(same)
}

fn webhook(errors: &mut Errors, hook: &Value, mutating: bool, path: &Path<'_>) {
    fully_qualified(errors, hook.text("name"), &path.field("name"));
    let rules = path.field("rules");
    for (i, rule) in hook.list("rules").iter().enumerate() {
        matching::rule(errors, rule, &rules.index(i));
    }
    errors.supported(&path.field("failurePolicy"), hook.text("failurePolicy"), &["Fail", "Ignore"]);
    errors.supported(&path.field("matchPolicy"), hook.text("matchPolicy"), &["Equivalent", "Exact"]);
    match hook.at("sideEffects").as_str() {
        None => errors.required(&path.field("sideEffects"), "must specify one of None, NoneOnDryRun"),
        Some(effects) => errors.one_of(&path.field("sideEffects"), effects, &["None", "NoneOnDryRun"]),
    }
    if let Some(seconds) = hook.int("timeoutSeconds").filter(|s| !(1..=30).contains(s)) {
        let text = "the timeout value must be between 1 and 30 seconds";
        errors.invalid(&path.field("timeoutSeconds"), seconds, text);
    }
    for selector in ["namespaceSelector", "objectSelector"] {
        metadata::label_selector(errors, hook.at(selector), &path.field(selector));
    }
    if mutating {
        errors.supported(&path.field("reinvocationPolicy"), hook.text("reinvocationPolicy"), &["IfNeeded", "Never"]);
    }
    webhook_client::client_config(errors, hook.at("clientConfig"), &path.field("clientConfig"));
}

fn fully_qualified(errors: &mut Errors, name: &str, path: &Path<'_>) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    let wrong = names::dns1123_subdomain(name, false);
    if !wrong.is_empty() {
        return errors.invalid(path, name, &wrong.join(","));
    }
    if name.split('.').count() < 3 {
        errors.invalid(path, name, "should be a domain with at least three segments separated by dots");
    }
}

fn review_versions(errors: &mut Errors, hook: &Value, path: &Path<'_>) {
    let list = hook.texts("admissionReviewVersions");
    if list.is_empty() {
        return errors.required(path, "must specify one of v1, v1beta1");
    }
    let twice = repeated(list.iter());
    for (i, version) in list.iter().enumerate() {
        if twice[i] {
            errors.invalid(&path.index(i), *version, "duplicate version");
            continue;
        }
        errors.invalid_each(&path.index(i), version, names::dns1035_label(version, false));
    }
    if !list.iter().any(|v| ["v1", "v1beta1"].contains(v)) {
        let text = "must include at least one of v1, v1beta1";
        errors.invalid(path, hook.at("admissionReviewVersions").clone(), text);
    }
}
