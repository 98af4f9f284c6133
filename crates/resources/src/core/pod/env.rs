//! Environment variables and the downward API.

use crate::core::quantities::quantity;
use crate::field::{Errors, Fields, Path};
use crate::names;
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

/// Errors of `env`.
pub fn env(errors: &mut Errors, c: &Value, path: &Path<'_>) {
    for (i, var) in c.list("env").iter().enumerate() {
        let path = path.index(i);
        match var.text("name") {
            "" => errors.required(&path.field("name"), ""),
            name => errors.invalid_each(&path.field("name"), name, names::env_var_name(name)),
        }
        if var.has("valueFrom") {
            value_from(errors, var, &path.field("valueFrom"));
        }
    }
}

fn value_from(errors: &mut Errors, var: &Value, path: &Path<'_>) {
    let source = var.at("valueFrom");
    let sources = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
    for kind in sources.into_iter().filter(|k| source.has(k)) {
        let (of, path) = (source.at(kind), path.field(kind));
        match kind {
            "fieldRef" => field_ref(errors, of, &ENV_FIELDS, &path),
            "resourceFieldRef" => resource_field(errors, of, false, &path),
            "fileKeyRef" => file_key(errors, of, &path),
            _ => key_selector(errors, of, &path),
        }
    }
    match sources.iter().filter(|k| source.has(k)).count() {
        0 => {
            let text = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
            errors.invalid(path, "", text);
        }
        _ if !var.text("value").is_empty() => {
            errors.invalid(path, "", "may not be specified when `value` is not empty")
        }
        1 => {}
        _ => errors.invalid(path, "", "may not have more than one field specified at a time"),
    }
}

fn key_selector(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    let name = of.text("name");
    errors.invalid_each(&path.field("name"), name, names::dns1123_subdomain(name, false));
    match of.text("key") {
        "" => errors.required(&path.field("key"), ""),
        key => errors.invalid_each(&path.field("key"), key, names::config_map_key(key)),
    }
}

fn file_key(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    match of.text("key") {
        "" => errors.required(&path.field("key"), ""),
        key => errors.invalid_each(&path.field("key"), key, names::env_var_name(key)),
    }
    match of.text("volumeName") {
        "" => errors.required(&path.field("volumeName"), ""),
        name => errors.invalid_each(&path.field("volumeName"), name, names::dns1123_label(name, false)),
    }
    match of.text("path") {
        "" => errors.required(&path.field("path"), ""),
        file => super::volume::no_backsteps(errors, file, &path.field("path")),
    }
}

/// Errors of `envFrom`.
pub fn env_from(errors: &mut Errors, c: &Value, path: &Path<'_>) {
    for (i, source) in c.list("envFrom").iter().enumerate() {
        let item = path.index(i);
        let prefix = source.text("prefix");
        if !prefix.is_empty() {
            errors.invalid_each(&item.field("prefix"), prefix, names::env_var_name(prefix));
        }
        let kinds = ["configMapRef", "secretRef"].into_iter().filter(|k| source.has(k));
        for kind in kinds.clone() {
            let path = item.field(kind);
            match source.at(kind).text("name") {
                "" => errors.required(&path.field("name"), ""),
                name => errors.invalid_each(&path.field("name"), name, names::dns1123_subdomain(name, true)),
            }
        }
        match kinds.count() {
            0 => errors.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => errors.invalid(path, "", "may not have more than one field specified at a time"),
        }
    }
}

/// Errors of an item of a downward API volume.
pub fn downward_file(errors: &mut Errors, file: &Value, path: &Path<'_>) {
    if file.text("path").is_empty() {
        errors.required(&path.field("path"), "");
    }
    super::volume::local_path(errors, file.text("path"), &path.field("path"));
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
    super::volume::file_mode(errors, file.int("mode"), &path.field("mode"));
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
