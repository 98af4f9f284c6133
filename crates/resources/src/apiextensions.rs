//! `apiextensions.k8s.io`: custom resource definitions. The schemas inside are checked by `structural`.
//!
//! What all versions have in common is named without the version in errors, as upstream's internal form has it.

use crate::field::{Errors, Fields, Path, field_mut, go_struct, items_mut, map_mut, set_default};
use crate::structural::definition as structural;
use crate::{Ctx, Strategy, copy_field, names};
use api::{Cause, Object};
use serde_json::{Value, json};

/// Custom resource definitions.
pub struct CustomResourceDefinition;

const SPEC: Path<'_> = Path::root("spec");

impl Strategy for CustomResourceDefinition {
    fn default(&self, obj: &mut Object) {
        let Some(spec) = map_mut(obj, "spec") else { return };
        if let Some(names) = map_mut(spec, "names") {
            let kind = names.text("kind").to_owned();
            if !kind.is_empty() {
                set_default(names, "singular", kind.to_lowercase());
                set_default(names, "listKind", format!("{kind}List"));
            }
        }
        if let Some(conversion) = map_mut(spec, "conversion") {
            set_default(conversion, "strategy", "None");
            let service = field_mut(conversion, "webhook").and_then(|w| field_mut(w, "clientConfig"));
            if let Some(service) = service.and_then(|c| field_mut(c, "service")) {
                set_default(service, "port", 443);
            }
        }
        for version in items_mut(spec, "versions") {
            for flag in ["served", "storage"] {
                if !version.has(flag) {
                    version[flag] = false.into();
                }
            }
        }
    }

    fn prepare_for_create(&self, _ctx: &Ctx<'_>, obj: &mut Object) {
        let stored: Vec<Value> = obj
            .at("spec")
            .list("versions")
            .iter()
            .filter(|v| v.flag("storage"))
            .take(1)
            .map(|v| v.at("name").clone())
            .collect();
        let stored = if stored.is_empty() { Value::Null } else { stored.into() };
        obj["status"] =
            json!({"conditions": null, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored});
    }

    fn prepare_for_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        copy_field(new, old, "status");
        // a version that begins to be stored stays among the stored ones
        let stored = new.at("spec").list("versions").iter().find(|v| v.flag("storage")).map(|v| v.at("name").clone());
        let Some(stored) = stored else { return };
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

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        let (spec, name) = (obj.at("spec"), api::meta::name(obj));
        let want = format!("{}.{}", spec.at("names").text("plural"), spec.text("group"));
        if !name.is_empty() && name != want {
            errors.invalid(&Path::root("metadata.name"), name, "must be spec.names.plural+\".\"+spec.group");
        }
        definition(&mut errors, obj);
        let stored = obj.at("status").at("storedVersions");
        let path = Path::root("status.storedVersions");
        if stored.as_array().is_none_or(Vec::is_empty) {
            errors.invalid(&path, Value::Null, "must have at least one stored version");
        }
        for version in obj.at("spec").list("versions").iter().filter(|v| v.flag("storage")) {
            let name = version.text("name");
            if stored.as_array().is_some_and(|s| !s.is_empty() && !s.contains(&name.into())) {
                errors.invalid(&path, stored.clone(), &format!("must have the storage version {name}"));
            }
        }
        approval(&mut errors, obj);
        errors.0
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        definition(&mut errors, new);
        let (now, was) = (new.at("spec"), old.at("spec"));
        let established = old.at("status").list("conditions").iter();
        if established.clone().any(|c| c.text("type") == "Established" && c.text("status") == "True") {
            errors.immutable(&SPEC.field("scope"), now.at("scope"), was.at("scope"));
            errors.immutable(&SPEC.field("names.kind"), now.at("names").at("kind"), was.at("names").at("kind"));
        }
        errors.immutable(&SPEC.field("group"), now.at("group"), was.at("group"));
        errors.immutable(&SPEC.field("names.plural"), now.at("names").at("plural"), was.at("names").at("plural"));
        for name in new.at("status").texts("storedVersions") {
            if !now.list("versions").iter().any(|v| v.text("name") == name) {
                let path = Path::root("status.storedVersions");
                let index = new.at("status").texts("storedVersions").iter().position(|v| *v == name).unwrap_or(0);
                errors.invalid(&path.index(index), name, "must appear in spec.versions");
            }
        }
        errors.0
    }

    fn prepare_for_status_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        copy_field(new, old, "spec");
    }
}

fn definition(errors: &mut Errors, obj: &Object) {
    let spec = obj.at("spec");
    let (group, parts) = (spec.text("group"), spec.at("names"));
    let path = SPEC.field("group");
    if group.is_empty() {
        errors.required(&path, "");
    } else {
        let wrong = names::dns1123_subdomain(group, false);
        if !wrong.is_empty() {
            errors.invalid(&path, group, &wrong.join(","));
        } else if !group.contains('.') {
            errors.invalid(&path, group, "should be a domain with at least one dot");
        }
    }
    let path = SPEC.field("scope");
    match spec.text("scope") {
        "" => errors.required(&path, ""),
        scope => errors.one_of(&path, scope, &["Cluster", "Namespaced"]),
    }
    versions(errors, spec);
    top_level(errors, spec);
    kind_names(errors, parts, &SPEC.field("names"));
    conversion(errors, spec, &SPEC.field("conversion"));
}

fn versions(errors: &mut Errors, spec: &Value) {
    let (list, path) = (spec.list("versions"), SPEC.field("versions"));
    let mut unique = true;
    for (i, version) in list.iter().enumerate() {
        let (item, name) = (path.index(i), version.text("name"));
        let wrong = names::dns1035_label(name, false);
        if !wrong.is_empty() {
            errors.invalid(&item.field("name"), name, &wrong.join(","));
        }
        unique &= list[..i].iter().all(|v| v.text("name") != name);
        if version.has("deprecationWarning") && !version.flag("deprecated") {
            let text = version.text("deprecationWarning");
            errors.invalid(&item.field("deprecationWarning"), text, "can only be set for deprecated versions");
        }
        if !version.at("schema").has("openAPIV3Schema") {
            errors.required(&item.field("schema.openAPIV3Schema"), "");
        }
        if !common(list, "schema") {
            parts(errors, version, &item.field("schema.openAPIV3Schema"), "schema");
        }
        for part in ["subresources", "additionalPrinterColumns", "selectableFields"] {
            if !common(list, part) {
                parts(errors, version, &item.field(part), part);
            }
        }
    }
    let storage = list.iter().filter(|v| v.flag("storage")).count();
    if !unique {
        errors.invalid_printed(&path, &printed(list), "must contain unique version names");
    }
    if storage != 1 {
        errors.invalid_printed(&path, &printed(list), "must have exactly one version marked as storage version");
    }
    if let Some(name) = list.first().map(|v| v.text("name")) {
        // Upstream's internal form has the first version's name at the top, too.
        let wrong = names::dns1035_label(name, false);
        if !wrong.is_empty() {
            errors.invalid(&SPEC.field("version"), name, &wrong.join(","));
        }
    }
}

/// Whether every version says the same.
fn common(versions: &[Value], part: &str) -> bool {
    versions.windows(2).all(|pair| pair[0].at(part) == pair[1].at(part))
}

/// What all versions have in common.
fn top_level(errors: &mut Errors, spec: &Value) {
    let list = spec.list("versions");
    let Some(version) = list.first() else { return };
    for (part, name) in [
        ("schema", "validation.openAPIV3Schema"),
        ("subresources", "subresources"),
        ("additionalPrinterColumns", "additionalPrinterColumns"),
        ("selectableFields", "selectableFields"),
    ] {
        if common(list, part) {
            parts(errors, version, &SPEC.field(name), part);
        }
    }
}

fn parts(errors: &mut Errors, version: &Value, path: &Path<'_>, part: &str) {
    match part {
        "schema" if version.at("schema").has("openAPIV3Schema") => {
            structural::schema(errors, version.at("schema").at("openAPIV3Schema"), path);
        }
        "subresources" => scale(errors, version.at("subresources").at("scale"), &path.field("scale")),
        "additionalPrinterColumns" => columns(errors, version, path),
        "selectableFields" => structural::selectable(errors, version, path),
        _ => {}
    }
}

/// Versions as Go prints them, without what they have in common.
fn printed(versions: &[Value]) -> String {
    let one = |version: &Value| {
        go_struct(&[
            ("Name", version.text("name").into()),
            ("Served", version.flag("served").into()),
            ("Storage", version.flag("storage").into()),
            ("Deprecated", version.flag("deprecated").into()),
            ("DeprecationWarning", version.at("deprecationWarning").clone()),
            ("Schema", Value::Null),
            ("Subresources", Value::Null),
            ("AdditionalPrinterColumns", Value::Null),
            ("SelectableFields", Value::Null),
        ])
    };
    format!("[{}]", versions.iter().map(one).collect::<Vec<_>>().join(","))
}

/// Groups of the community need its approval.
fn approval(errors: &mut Errors, obj: &Object) {
    const NAME: &str = "api-approved.kubernetes.io";
    let group = obj.at("spec").text("group");
    let protected = ["k8s.io", "kubernetes.io"];
    if !protected.iter().any(|p| group == *p || group.strip_suffix(p).is_some_and(|rest| rest.ends_with('.'))) {
        return;
    }
    let annotations = Path::root("metadata.annotations");
    let (path, value) = (annotations.key(NAME), api::meta::annotation(obj, NAME).unwrap_or(""));
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    let url = value.split_once("://").is_some_and(|(scheme, host)| !scheme.is_empty() && !host.is_empty());
    match value {
        "" => {
            let why = format!("protected groups must have approval annotation {NAME:?}, {see}");
            errors.required(&path, &why);
        }
        value if url || value.starts_with("unapproved") => {}
        value => {
            let why = format!(
                "protected groups must have approval annotation {NAME:?} with either a URL or a reason starting with \"unapproved\", {see}"
            );
            errors.invalid(&path, value, &why);
        }
    }
}

fn columns(errors: &mut Errors, version: &Value, path: &Path<'_>) {
    for (i, column) in version.list("additionalPrinterColumns").iter().enumerate() {
        let item = path.index(i);
        if column.text("name").is_empty() {
            errors.required(&item.field("name"), "");
        }
        let types = ["boolean", "date", "integer", "number", "string"];
        match column.text("type") {
            "" => errors.required(&item.field("type"), &format!("must be one of {}", types.join(","))),
            kind if !types.contains(&kind) => {
                errors.invalid(&item.field("type"), kind, &format!("must be one of {}", types.join(",")));
            }
            _ => {}
        }
        let formats = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
        let format = column.text("format");
        if !format.is_empty() && !formats.contains(&format) {
            errors.invalid(&item.field("format"), format, &format!("must be one of {}", formats.join(",")));
        }
        match column.text("jsonPath") {
            "" => errors.required(&item.field("JSONPath"), ""),
            text if !text.starts_with('.') => {
                errors.invalid(&item.field("JSONPath"), text, "must be a simple json path starting with .");
            }
            _ => {}
        }
    }
}

fn scale(errors: &mut Errors, scale: &Value, path: &Path<'_>) {
    if scale.is_null() {
        return;
    }
    for (field, root) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status."), ("labelSelectorPath", "")]
    {
        let text = scale.text(field);
        match text {
            "" if field == "labelSelectorPath" => {}
            "" => errors.required(&path.field(field), ""),
            text if field == "labelSelectorPath" && !text.starts_with(".spec.") && !text.starts_with(".status.") => {
                errors.invalid(&path.field(field), text, "should be a json path under either .spec or .status");
            }
            text if !text.starts_with(root) => {
                let parent = root.trim_end_matches('.');
                errors.invalid(&path.field(field), text, &format!("should be a json path under {parent}"));
            }
            _ => {}
        }
    }
}

fn kind_names(errors: &mut Errors, parts: &Value, path: &Path<'_>) {
    for field in ["plural", "singular", "kind", "listKind"] {
        if parts.text(field).is_empty() {
            errors.required(&path.field(field), "");
        }
    }
    for field in ["plural", "singular"] {
        let text = parts.text(field);
        let wrong = if text.is_empty() { Vec::new() } else { names::dns1035_label(text, false) };
        if !wrong.is_empty() {
            errors.invalid(&path.field(field), text, &wrong.join(","));
        }
    }
    for field in ["kind", "listKind"] {
        let text = parts.text(field);
        let wrong = if text.is_empty() { Vec::new() } else { names::dns1035_label(&text.to_lowercase(), false) };
        if !wrong.is_empty() {
            let detail = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
            errors.invalid(&path.field(field), text, &detail);
        }
    }
    for field in ["shortNames", "categories"] {
        let list = path.field(field);
        for (i, text) in parts.texts(field).into_iter().enumerate() {
            let wrong = names::dns1035_label(text, false);
            if !wrong.is_empty() {
                errors.invalid(&list.index(i), text, &wrong.join(","));
            }
        }
    }
    let (kind, list_kind) = (parts.text("kind"), parts.text("listKind"));
    if !kind.is_empty() && kind == list_kind {
        errors.invalid(&path.field("listKind"), list_kind, "kind and listKind may not be the same");
    }
}

fn conversion(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let (of, strategy) = (spec.at("conversion"), spec.at("conversion").text("strategy"));
    errors.supported(&path.field("strategy"), strategy, &["None", "Webhook"]);
    match strategy {
        "Webhook" if !of.has("webhook") => {
            errors.required(&path.field("webhookClientConfig"), "required when strategy is set to Webhook");
        }
        "Webhook" if spec.list("versions").len() > 1 => {
            // With one version nothing is ever converted; with several, this server cannot do what is asked for.
            errors.forbidden(&path.field("strategy"), "conversion by webhook is not supported by this server");
        }
        "None" => {
            let why = "should not be set when strategy is not set to Webhook";
            if of.at("webhook").has("clientConfig") {
                errors.forbidden(&path.field("webhookClientConfig"), why);
            }
            if of.at("webhook").has("conversionReviewVersions") {
                errors.forbidden(&path.field("conversionReviewVersions"), why);
            }
        }
        _ => {}
    }
}
