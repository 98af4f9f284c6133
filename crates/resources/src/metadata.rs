//! Validation of an object's metadata, and of the whole object before a write.
//!
//! [`validate_create`] and [`validate_update`] are what the generic handlers call; custom resources use
//! [`validate_object_meta`] and [`validate_object_meta_update`] with `kube` false.

use crate::field::{Errors, Fields, Path, same};
use crate::names::{self, NameRule};
use crate::{Ctx, MetadataChecks, Strategy};
use api::{Cause, Object};
use serde_json::Value;

pub(crate) const ANNOTATIONS_MAX: usize = 256 * 1024;
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

/// Every error of a new object of a built-in kind: its metadata's, then its strategy's.
pub fn validate_create(strategy: &dyn Strategy, ctx: &Ctx<'_>, obj: &Object, namespaced: bool) -> Vec<Cause> {
    let rule = |name: &str, prefix: bool| strategy.validate_name_of(obj, name, prefix);
    let mut out = match strategy.metadata_on_create() {
        true => validate_object_meta(obj, namespaced, &rule, strategy.is_built_in()),
        false => Vec::new(),
    };
    out.extend(strategy.validate(ctx, obj));
    if out.is_empty() {
        // the generic code's own check, for kinds whose names are free
        out = validate_object_meta(obj, namespaced, &names::path_segment, false);
    }
    out
}

/// Every error of a changed object of a built-in kind. Errors of the metadata come as often as upstream reports
/// them: by the generic code, and again by the strategy.
pub fn validate_update(strategy: &dyn Strategy, ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
    let mut out = update_metadata(strategy, strategy.metadata_on_update(), new, old);
    out.extend(strategy.validate_update(ctx, new, old));
    out
}

/// Every error of a changed status of a built-in kind.
pub fn validate_status_update(strategy: &dyn Strategy, ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
    let mut out = update_metadata(strategy, strategy.metadata_on_status_update(), new, old);
    out.extend(strategy.validate_status_update(ctx, new, old));
    out
}

fn update_metadata(strategy: &dyn Strategy, checks: MetadataChecks, new: &Object, old: &Object) -> Vec<Cause> {
    let namespaced = !api::meta::namespace(old).is_empty();
    let mut out = validate_object_meta(new, namespaced, &names::path_segment, false);
    out.extend(validate_object_meta_update(new, old, false));
    if matches!(checks, MetadataChecks::Update | MetadataChecks::Both) {
        out.extend(validate_object_meta_update(new, old, strategy.is_built_in()));
    }
    let as_new = match checks {
        MetadataChecks::None | MetadataChecks::Update => 0,
        MetadataChecks::Create | MetadataChecks::Both => 1,
        MetadataChecks::CreateTwice => 2,
    };
    let rule = |name: &str, prefix: bool| strategy.validate_name(name, prefix);
    for _ in 0..as_new {
        out.extend(validate_object_meta(new, namespaced, &rule, strategy.is_built_in()));
    }
    out
}

/// Errors of a new object's metadata. `kube`: finalizers must also be standard or fully qualified (built-in kinds).
pub fn validate_object_meta(
    obj: &Object,
    namespaced: bool,
    name_rule: &dyn Fn(&str, bool) -> Vec<String>,
    kube: bool,
) -> Vec<Cause> {
    let (mut errors, path, meta) = (Errors::default(), Path::root("metadata"), obj.at("metadata"));
    let generate = meta.text("generateName");
    if !generate.is_empty() {
        errors.invalid_each(&path.field("generateName"), generate, name_rule(generate, true));
    }
    match meta.text("name") {
        "" => errors.required(&path.field("name"), "name or generateName is required"),
        name => errors.invalid_each(&path.field("name"), name, name_rule(name, false)),
    }
    match (namespaced, meta.text("namespace")) {
        (true, "") => errors.required(&path.field("namespace"), ""),
        (true, ns) => errors.invalid_each(&path.field("namespace"), ns, names::dns1123_label(ns, false)),
        (false, "") => {}
        (false, _) => errors.forbidden(&path.field("namespace"), "not allowed on this type"),
    }
    errors.non_negative(&path.field("generation"), meta.int("generation").unwrap_or(0));
    labels(&mut errors, meta.at("labels"), &path.field("labels"));
    annotations(&mut errors, meta.at("annotations"), &path.field("annotations"));
    owner_references(&mut errors, meta.list("ownerReferences"), &path.field("ownerReferences"));
    finalizers(&mut errors, meta, &path.field("finalizers"));
    managed_fields(&mut errors, meta.list("managedFields"), &path.field("managedFields"));
    if kube {
        kube_finalizers(&mut errors, meta, &path.field("finalizers"));
    }
    errors.0
}

/// Errors of a changed object's metadata.
pub fn validate_object_meta_update(new: &Object, old: &Object, kube: bool) -> Vec<Cause> {
    let (mut errors, path) = (Errors::default(), Path::root("metadata"));
    let (meta, was) = (new.at("metadata"), old.at("metadata"));
    if was.has("deletionTimestamp") {
        let had = was.texts("finalizers");
        let mut added: Vec<&str> = meta.texts("finalizers").into_iter().filter(|f| !had.contains(f)).collect();
        added.sort_unstable();
        added.dedup();
        if !added.is_empty() {
            let list = added.iter().map(|f| api::quoted(f).to_string()).collect::<Vec<_>>().join(", ");
            let text = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{list}}}"
            );
            errors.forbidden(&path.field("finalizers"), &text);
        }
    }
    if meta.text("resourceVersion").is_empty() {
        errors.invalid(&path.field("resourceVersion"), "", "must be specified for an update");
    }
    let generation = meta.int("generation").unwrap_or(0);
    if generation < was.int("generation").unwrap_or(0) {
        errors.invalid(&path.field("generation"), generation, "must not be decremented");
    }
    let grace = meta.at("deletionGracePeriodSeconds");
    if grace != was.at("deletionGracePeriodSeconds") {
        let text = "field is immutable; may only be changed via deletion";
        errors.invalid(&path.field("deletionGracePeriodSeconds"), grace.clone(), text);
    }
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp"] {
        errors.immutable(&path.field(field), meta.at(field), was.at(field));
    }
    labels(&mut errors, meta.at("labels"), &path.field("labels"));
    annotations(&mut errors, meta.at("annotations"), &path.field("annotations"));
    owner_references(&mut errors, meta.list("ownerReferences"), &path.field("ownerReferences"));
    managed_fields(&mut errors, meta.list("managedFields"), &path.field("managedFields"));
    if kube {
        kube_finalizers(&mut errors, meta, &path.field("finalizers"));
    }
    errors.0
}

/// Errors of a label map.
pub fn labels(errors: &mut Errors, labels: &Value, path: &Path<'_>) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        errors.invalid_each(path, key, names::label_key(key));
        let value = value.as_str().unwrap_or("");
        errors.invalid_each(path, value, names::label_value(value));
    }
}

/// Errors of an annotation map.
pub fn annotations(errors: &mut Errors, annotations: &Value, path: &Path<'_>) {
    let mut size = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        size += key.len() + value.as_str().unwrap_or("").len();
        errors.invalid_each(path, key, names::qualified_name(&key.to_lowercase()));
    }
    if size > ANNOTATIONS_MAX {
        errors.too_long(path, ANNOTATIONS_MAX);
    }
}

/// Errors of the metadata of a template of objects, which may only have labels and annotations.
pub fn of_template(errors: &mut Errors, meta: &Value, path: &Path<'_>) {
    annotations(errors, meta.at("annotations"), &path.field("annotations"));
    labels(errors, meta.at("labels"), &path.field("labels"));
    let given = meta.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    for (field, _) in given.filter(|(field, _)| !["annotations", "labels"].contains(&field.as_str())) {
        // Go's name of the field, its first letter made small
        let field = if field == "uid" { "uID" } else { field };
        errors.forbidden(&path.field(field), "cannot be set");
    }
}

fn owner_references(errors: &mut Errors, refs: &[Value], path: &Path<'_>) {
    let mut first = String::new();
    for owner in refs {
        if errors.is_full() {
            return;
        }
        owner_reference(errors, owner, path);
        if owner.flag("controller") {
            let this = format!("{}/{}", owner.text("kind"), owner.text("name"));
            if first.is_empty() {
                first = this;
            } else {
                let text = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                );
                let printed = || refs.iter().map(print_owner).collect::<Vec<_>>().join(",");
                errors.invalid_printed(path, || format!("[{}]", printed()), &text);
            }
        }
    }
}

fn owner_reference(errors: &mut Errors, owner: &Value, path: &Path<'_>) {
    let api_version = owner.text("apiVersion");
    // more than one slash is no version at all
    let version = api_version.split_once('/').map_or(api_version, |(_, version)| version);
    if version.is_empty() || version.contains('/') {
        errors.invalid(&path.field("apiVersion"), api_version, "version must not be empty");
    }
    for field in ["kind", "name", "uid"] {
        if owner.text(field).is_empty() {
            errors.invalid(&path.field(field), "", "must not be empty");
        }
    }
    if (api_version, owner.text("kind")) == ("v1", "Event") {
        errors.invalid_printed(path, || print_owner(owner), "/v1, Kind=Event is disallowed from being an owner");
    }
}

fn print_owner(owner: &Value) -> String {
    let order = ["apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion"];
    let optional = |name: &str| owner.has(name) || order[..4].contains(&name);
    let text = |name: &str| if order[..4].contains(&name) { owner.text(name).into() } else { owner.at(name).clone() };
    let fields: Vec<(&str, Value)> = order.into_iter().filter(|n| optional(n)).map(|n| (n, text(n))).collect();
    crate::field::go_struct(&fields)
}

fn finalizers(errors: &mut Errors, meta: &Value, path: &Path<'_>) {
    let list = meta.texts("finalizers");
    for name in &list {
        errors.invalid_each(path, name, names::qualified_name(name));
    }
    if list.contains(&"orphan") && list.contains(&"foregroundDeletion") {
        let text = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.invalid(path, meta.at("finalizers").clone(), text);
    }
}

fn kube_finalizers(errors: &mut Errors, meta: &Value, path: &Path<'_>) {
    for (i, name) in meta.texts("finalizers").into_iter().enumerate() {
        domain_of_finalizer(errors, name, &path.index(i));
    }
}

fn domain_of_finalizer(errors: &mut Errors, name: &str, path: &Path<'_>) {
    if !name.contains('/') && !STANDARD_FINALIZERS.contains(&name) {
        errors.invalid(path, name, "name is neither a standard finalizer name nor is it fully qualified");
    }
}

/// Errors of a finalizer of a built-in kind.
pub fn kube_finalizer(errors: &mut Errors, name: &str, path: &Path<'_>) {
    errors.invalid_each(path, name, names::qualified_name(name));
    domain_of_finalizer(errors, name, path);
}

fn managed_fields(errors: &mut Errors, entries: &[Value], path: &Path<'_>) {
    for (i, entry) in entries.iter().enumerate() {
        let path = path.index(i);
        if !["Apply", "Update"].contains(&entry.text("operation")) {
            errors.invalid(&path.field("operation"), entry.text("operation"), "must be `Apply` or `Update`");
        }
        if !["", "FieldsV1"].contains(&entry.text("fieldsType")) {
            errors.invalid(&path.field("fieldsType"), entry.text("fieldsType"), "must be `FieldsV1`");
        }
        if entry.text("manager").len() > 128 {
            errors.too_long(&path.field("manager"), 128);
        }
    }
}

/// Errors of a `LabelSelector`.
pub fn label_selector(errors: &mut Errors, selector: &Value, path: &Path<'_>) {
    labels(errors, selector.at("matchLabels"), &path.field("matchLabels"));
    let list = path.field("matchExpressions");
    for (i, requirement) in selector.list("matchExpressions").iter().enumerate() {
        selector_requirement(errors, requirement, &list.index(i));
    }
}

fn selector_requirement(errors: &mut Errors, requirement: &Value, path: &Path<'_>) {
    let values = requirement.list("values");
    match requirement.text("operator") {
        "In" | "NotIn" if values.is_empty() => {
            errors.required(&path.field("values"), "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.forbidden(&path.field("values"), text);
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errors.invalid(&path.field("operator"), other, "not a valid selector operator"),
    }
    let key = requirement.text("key");
    errors.invalid_each(&path.field("key"), key, names::label_key(key));
    let list = path.field("values");
    for (i, value) in requirement.texts("values").into_iter().enumerate() {
        errors.invalid_each(&list.index(i), value, names::label_value(value));
    }
}

/// Whether a selector in its API form matches a map of labels; `None` when it is malformed.
pub fn selector_matches(selector: &Value, labels: &Value) -> Option<bool> {
    if selector.is_null() {
        return Some(false);
    }
    let of = |key: &str| labels.at(key).as_str();
    let mut all = selector.entries("matchLabels").all(|(k, v)| of(k) == v.as_str());
    for requirement in selector.list("matchExpressions") {
        let (value, values) = (of(requirement.text("key")), requirement.texts("values"));
        all &= match requirement.text("operator") {
            "In" if values.is_empty() => return None,
            "NotIn" if values.is_empty() => return None,
            "In" => value.is_some_and(|v| values.contains(&v)),
            "NotIn" => !value.is_some_and(|v| values.contains(&v)),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => return None,
        };
    }
    Some(all)
}

/// Whether a selector selects by nothing.
pub fn selector_is_empty(selector: &Value) -> bool {
    same(selector.at("matchLabels"), &Value::Null) && selector.list("matchExpressions").is_empty()
}

/// A selector in its API form as text, `a=b,c in (d)`; `<none>` when it selects by nothing.
pub fn format_selector(selector: &Value) -> String {
    let mut parts: Vec<String> =
        selector.entries("matchLabels").map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or(""))).collect();
    for requirement in selector.list("matchExpressions") {
        let (key, mut values) = (requirement.text("key"), requirement.texts("values"));
        values.sort_unstable();
        let values = values.join(",");
        parts.push(match requirement.text("operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    // requirements are ordered by key, as upstream's selectors are
    parts.sort_by(|a, b| selector_key(a).cmp(selector_key(b)));
    if parts.is_empty() { "<none>".into() } else { parts.join(",") }
}

fn selector_key(text: &str) -> &str {
    let text = text.trim_start_matches('!');
    text.split(['=', ' ']).next().unwrap_or(text)
}

/// Labels as text, `a=b,c=d`; `<none>` when there are none.
pub fn format_labels(labels: &Value) -> String {
    let parts: Vec<String> =
        labels.as_object().into_iter().flatten().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or(""))).collect();
    if parts.is_empty() { "<none>".into() } else { parts.join(",") }
}

/// The rule for names that may be any path segment.
pub const PATH_SEGMENT: NameRule = names::path_segment;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(meta: Value, want: &[&str]) {
        let got = validate_object_meta(&json!({"metadata": meta}), true, &names::dns1123_subdomain, true);
        let got: Vec<String> = got.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn new_metadata() {
        check(json!({"name": "a", "namespace": "n"}), &[]);
        check(json!({"namespace": "n"}), &["metadata.name: Required value: name or generateName is required"]);
        check(
            json!({"name": "a", "namespace": "n", "finalizers": ["x"]}),
            &[
                "metadata.finalizers[0]: Invalid value: \"x\": name is neither a standard finalizer name nor is it fully qualified",
            ],
        );
        check(
            json!({"name": "a", "namespace": "n", "ownerReferences": [{"apiVersion": "v1", "kind": "Event", "name": "x", "uid": "u"}]}),
            &[
                "metadata.ownerReferences: Invalid value: {\"apiVersion\":\"v1\",\"kind\":\"Event\",\"name\":\"x\",\"uid\":\"u\"}: /v1, Kind=Event is disallowed from being an owner",
            ],
        );
    }

    #[test]
    fn selectors_match_and_print() {
        let selector = json!({"matchLabels": {"b": "1"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["y", "x"]}]});
        assert_eq!(format_selector(&selector), "a in (x,y),b=1");
        assert_eq!(selector_matches(&selector, &json!({"a": "x", "b": "1"})), Some(true));
        assert_eq!(selector_matches(&selector, &json!({"b": "1"})), Some(false));
        assert_eq!(selector_matches(&Value::Null, &json!({})), Some(false));
    }
}
