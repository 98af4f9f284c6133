//! Environment variables and the downward API.

use crate::core::quantities::quantity;
use crate::field::{Errors, Fields, Path};
use crate::names;
use crate::rules::{self, Check, Rule};
use serde_json::Value;

const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const VOLUME_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const SIZES: [&str; 13] = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
/// Fields of a pod that the downward API can name at all.
const KNOWN_FIELDS: [&str; 8] = [
    "metadata.annotations",
    "metadata.labels",
    "spec.restartPolicy",
    "spec.schedulerName",
    "status.phase",
    "spec.hostUsers",
    "spec.host",
    "status.nominatedNodeName",
];

/// Errors of an item of `env`.
pub fn variable(errors: &mut Errors, variable: &Value, path: &Path<'_>) {
    rules::check(
        errors,
        variable,
        path,
        &[("name", Check::Named(names::env_var_name)), ("valueFrom", Check::In(value_from))],
    );
}

/// Where a value may come from, in the order of the errors.
const SOURCES: &[Rule] = &[
    ("fieldRef", Check::By(env_field)),
    ("resourceFieldRef", Check::By(env_resource)),
    ("configMapKeyRef", Check::By(key_selector)),
    ("secretKeyRef", Check::By(key_selector)),
    ("fileKeyRef", Check::By(file_key)),
];
const FILE_KEY: &[Rule] = &[
    ("key", Check::Named(names::env_var_name)),
    ("volumeName", Check::Named(names::label)),
    ("path", Check::In(file_path)),
];

fn value_from(errors: &mut Errors, variable: &Value, path: &Path<'_>) {
    let source = variable.at("valueFrom");
    if source.is_null() {
        return;
    }
    rules::check(errors, source, path, SOURCES);
    let text = match SOURCES.iter().filter(|(kind, _)| source.has(kind)).count() {
        0 => "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        _ if !variable.text("value").is_empty() => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    errors.invalid(path, "", text);
}

fn env_field(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    if !of.is_null() {
        field_ref(errors, of, &ENV_FIELDS, path);
    }
}

fn env_resource(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    if !of.is_null() {
        resource_field(errors, of, false, path);
    }
}

fn key_selector(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    if !of.is_null() {
        // a name that was left out is a bad name, not a missing one
        let name = of.text("name");
        errors.invalid_each(&path.field("name"), name, names::subdomain(name));
        rules::check(errors, of, path, &[("key", Check::Named(names::config_map_key))]);
    }
}

fn file_key(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    if !of.is_null() {
        rules::check(errors, of, path, FILE_KEY);
    }
}

fn file_path(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    match of.text("path") {
        "" => errors.required(path, ""),
        _ => super::volume::no_backsteps(errors, of.at("path"), path),
    }
}

/// Errors of `envFrom`; that a source is none, or several, is told of the list.
pub fn variables_from(errors: &mut Errors, c: &Value, path: &Path<'_>) {
    const NAME: &[Rule] = &[("name", Check::Named(names::subdomain_prefix))];
    for (i, source) in c.list("envFrom").iter().enumerate() {
        let item = path.index(i);
        rules::check(errors, source, &item, &[("prefix", Check::MaybeNamed(names::env_var_name))]);
        let kinds = ["configMapRef", "secretRef"].into_iter().filter(|k| source.has(k));
        kinds.clone().for_each(|kind| rules::check(errors, source.at(kind), &item.field(kind), NAME));
        match kinds.count() {
            0 => errors.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => errors.invalid(path, "", "may not have more than one field specified at a time"),
        }
    }
}

/// Errors of an item of a downward API volume.
pub fn downward_file(errors: &mut Errors, file: &Value, path: &Path<'_>) {
    rules::check(errors, file, path, &[("path", Check::Given("")), ("path", Check::By(super::volume::local_path))]);
    match (file.has("fieldRef"), file.has("resourceFieldRef")) {
        (true, both) => {
            field_ref(errors, file.at("fieldRef"), &VOLUME_FIELDS, &path.field("fieldRef"));
            if both {
                errors.invalid(path, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously");
            }
        }
        (false, true) => resource_field(errors, file.at("resourceFieldRef"), true, &path.field("resourceFieldRef")),
        (false, false) => errors.required(path, "one of fieldRef and resourceFieldRef is required"),
    }
    rules::check(errors, file, path, &[("mode", super::volume::FILE_MODE)]);
}

fn field_ref(errors: &mut Errors, of: &Value, supported: &[&str], path: &Path<'_>) {
    for field in ["apiVersion", "fieldPath"] {
        if of.text(field).is_empty() {
            return errors.required(&path.field(field), "");
        }
    }
    let text = of.text("fieldPath");
    if of.text("apiVersion") != "v1" {
        let detail = format!("error converting fieldPath: unsupported pod version: {}", of.text("apiVersion"));
        return errors.invalid(&path.field("fieldPath"), text, &detail);
    }
    let subscript = text.strip_suffix("']").and_then(|t| t.split_once("['"));
    match subscript {
        Some(("metadata.annotations", key)) => {
            errors.invalid_each(path, key, names::qualified_name(&key.to_lowercase()))
        }
        Some(("metadata.labels", key)) => errors.invalid_each(path, key, names::qualified_name(key)),
        Some((other, _)) if is_known(other) => errors.invalid(path, other, "does not support subscript"),
        None if is_known(text) => errors.one_of(&path.field("fieldPath"), text, supported),
        _ => {
            let detail = format!("error converting fieldPath: field label not supported: {text}");
            errors.invalid(&path.field("fieldPath"), text, &detail);
        }
    }
}

fn is_known(field: &str) -> bool {
    ENV_FIELDS.contains(&field) || KNOWN_FIELDS.contains(&field)
}

fn resource_field(errors: &mut Errors, of: &Value, volume: bool, path: &Path<'_>) {
    let resource = of.text("resource");
    let huge = ["limits.hugepages-", "requests.hugepages-"].iter().any(|p| resource.starts_with(p));
    if volume && of.text("containerName").is_empty() {
        errors.required(&path.field("containerName"), "");
    } else if resource.is_empty() {
        errors.required(&path.field("resource"), "");
    } else if !huge {
        errors.supported(&path.field("resource"), resource, &RESOURCES);
    }
    divisor(errors, of, huge, &path.field("divisor"));
}

fn divisor(errors: &mut Errors, of: &Value, huge: bool, path: &Path<'_>) {
    let (resource, divisor) = (of.text("resource"), quantity(of.at("divisor")));
    if divisor.sign() == 0 {
        return;
    }
    let text = divisor.to_string();
    let (fine, what) = match resource.split_once('.').map(|(_, name)| name) {
        Some("cpu") => (text == "1m" || text == "1", "cpu"),
        Some("memory") => (SIZES.contains(&text.as_str()), "memory"),
        Some("ephemeral-storage") => (SIZES.contains(&text.as_str()), "local ephemeral storage"),
        _ if huge => (SIZES.contains(&text.as_str()), "hugepages"),
        _ => (true, ""),
    };
    if !fine {
        let values = if what == "cpu" { "1m and 1".into() } else { SIZES.join(", ") };
        let detail = format!("only divisor's values {values} are supported with the {what} resource");
        errors.invalid(path, resource, &detail);
    }
}
