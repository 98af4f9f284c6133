//! Parts of devices that classes, claims and slices share: names, attributes, taints, configuration.

use super::request_policy;
use crate::core::pod::affinity;
use crate::field::{Errors, Fields, Path, same};
use crate::names;
use crate::rules::Unique;
use serde_json::Value;
use std::borrow::Cow;

const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];
const VALUES: [&str; 8] = ["bool", "int", "string", "version", "bools", "ints", "strings", "versions"];
const VALUE_MAX: usize = 64;
const TAINTS_MAX: usize = 16;
/// The longest name of an attribute or capacity, with its domain.
const KEY_MAX: usize = 63 + 1 + 32;
/// Sets of counters of a slice, those that a device takes from, and the counters of each.
const SETS_MAX: usize = 8;
const CONSUMED_MAX: usize = 2;
const COUNTERS_MAX: usize = 32;
/// Conditions that a binding waits for, or is given up for.
const CONDITIONS_MAX: usize = 4;
const PER_DEVICE: &str = "perDeviceNodeSelection` is set to true in the ResourceSlice spec";

/// Errors of a device of a slice; `old`: the device of that name before, whose taints are let pass.
pub(super) fn device(errors: &mut Errors, device: &Value, old: Option<&Value>, per_device: bool, path: &Path<'_>) {
    let name = device.text("name");
    errors.invalid_each(&path.field("name"), name, names::dns1123_label(name, false));
    sizes(errors, device, path);
    let attributes = path.field("attributes");
    for (name, value) in device.entries("attributes") {
        qualified_name(errors, name, &attributes);
        attribute(errors, value, &attributes.key(&shortened(name, KEY_MAX)));
    }
    let (shared, capacity) = (device.flag("allowMultipleAllocations"), path.field("capacity"));
    for (name, value) in device.entries("capacity") {
        qualified_name(errors, name, &capacity);
        request_policy::check(errors, value, shared, &capacity.key(&shortened(name, KEY_MAX)).field("requestPolicy"));
    }
    let (list, taints) = (device.list("taints"), path.field("taints"));
    let changed = old.is_none_or(|old| !same(old.at("taints"), device.at("taints")));
    if changed && errors.at_most(&taints, list, TAINTS_MAX) {
        list.iter().enumerate().for_each(|(i, taint)| self::taint(errors, taint, &taints.index(i)));
    }
    consumed(errors, device.list("consumesCounters"), &path.field("consumesCounters"));
    placement(errors, device, per_device, path);
    binding(errors, device, path);
}

/// Whether a device has taints, takes from counters, or has lists for attributes.
pub(super) fn is_advanced(device: &Value) -> bool {
    let lists = |of: &Value| VALUES[4..].iter().any(|list| of.has(list));
    !device.list("taints").is_empty()
        || !device.list("consumesCounters").is_empty()
        || device.entries("attributes").any(|(_, value)| lists(value))
}

/// Errors of how much a device says of itself.
fn sizes(errors: &mut Errors, device: &Value, path: &Path<'_>) {
    const NAMES_MAX: usize = 32;
    const VALUES_MAX: usize = 48;
    let names = device.entries("attributes").count() + device.entries("capacity").count();
    if names > NAMES_MAX {
        let text = format!("the total number of attributes and capacities must not exceed {NAMES_MAX}");
        errors.invalid(path, names, &text);
    }
    let items = |of: &Value| VALUES[4..].iter().map(|list| of.list(list).len()).sum::<usize>().max(1);
    let values: usize = device.entries("attributes").map(|(_, value)| items(value)).sum();
    if values > VALUES_MAX {
        errors.invalid(path, values, &format!("the total number of attribute values must not exceed {VALUES_MAX}"));
    }
}

/// A key of a map as paths show it: cut in the middle where it is too long.
fn shortened(key: &str, max: usize) -> Cow<'_, str> {
    if key.len() <= max {
        return key.into();
    }
    let left = max - 3;
    let (head, tail) = (key.as_bytes().get(..left.div_ceil(2)), key.as_bytes().get(key.len() - left / 2..));
    let text = |part: Option<&[u8]>| String::from_utf8_lossy(part.unwrap_or_default()).into_owned();
    format!("{}...{}", text(head), text(tail)).into()
}

/// Errors of the name of a driver.
pub(super) fn driver_name(errors: &mut Errors, name: &str, path: &Path<'_>) {
    const MAX: usize = 63;
    if name.is_empty() {
        return errors.required(path, "");
    }
    if name.len() > MAX {
        errors.too_long(path, MAX);
    }
    errors.invalid_each(path, name, names::dns1123_subdomain(&name.to_lowercase(), false));
}

/// `[domain/]identifier`
fn qualified_name(errors: &mut Errors, name: &str, path: &Path<'_>) {
    let identifier = match name.split_once('/') {
        None => return identifier(errors, name, path),
        Some((_, rest)) if rest.contains('/') => return,
        Some((domain, identifier)) => {
            match domain {
                "" => errors.invalid(path, "", "the domain must not be empty"),
                domain => driver_name(errors, domain, path),
            }
            identifier
        }
    };
    match identifier {
        "" => errors.invalid(path, "", "the name must not be empty"),
        name => self::identifier(errors, name, path),
    }
}

fn identifier(errors: &mut Errors, name: &str, path: &Path<'_>) {
    const MAX: usize = 32;
    if name.len() > MAX {
        errors.too_long(path, MAX);
    }
    errors.invalid_each(path, name, names::c_identifier(name));
}

/// Errors of the name of an attribute that must have a domain.
pub(super) fn full_name(errors: &mut Errors, name: &str, path: &Path<'_>) {
    qualified_name(errors, name, path);
    if !name.contains('/') {
        errors.invalid(path, name, "a fully qualified name must be a domain and a name separated by a slash");
    }
}

/// Errors of the name of a pool, which is a path of subdomains.
pub(super) fn pool_name(errors: &mut Errors, name: &str, path: &Path<'_>) {
    const MAX: usize = 253;
    if name.is_empty() {
        return errors.required(path, "");
    }
    if name.len() > MAX {
        errors.too_long(path, MAX);
    }
    name.split('/').for_each(|part| errors.invalid_each(path, part, names::dns1123_subdomain(part, false)));
}

/// Errors of the counters that the devices of a pool share.
pub(super) fn shared_counters(errors: &mut Errors, sets: &[Value], path: &Path<'_>) {
    counter_sets(errors, sets, "name", SETS_MAX, path);
}

/// Errors of the counters that a device takes from.
fn consumed(errors: &mut Errors, sets: &[Value], path: &Path<'_>) {
    counter_sets(errors, sets, "counterSet", CONSUMED_MAX, path);
}

/// Errors of sets of counters, each named by a field.
fn counter_sets(errors: &mut Errors, sets: &[Value], field: &str, max: usize, path: &Path<'_>) {
    if !errors.at_most(path, sets, max) {
        return;
    }
    for (i, set) in sets.iter().enumerate() {
        let (item, name) = (path.index(i), set.text(field));
        match name {
            "" => errors.required(&item.field(field), ""),
            name => errors.invalid_each(&item.field(field), name, names::dns1123_label(name, false)),
        }
        counters(errors, set, &item.field("counters"));
    }
    let mut names_so_far = Unique::default();
    sets.iter().enumerate().for_each(|(i, set)| names_so_far.add(errors, set.text(field), &path.index(i)));
}

fn counters(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    match of.entries("counters").count() {
        0 => errors.required(path, ""),
        count if count > COUNTERS_MAX => errors.too_many(path, count, COUNTERS_MAX),
        _ => {
            for (name, _) in of.entries("counters") {
                errors.invalid_each(path, name, names::dns1123_label(name, false));
            }
        }
    }
}

fn attribute(errors: &mut Errors, attribute: &Value, path: &Path<'_>) {
    for (field, versions) in [("string", false), ("strings", false), ("version", true), ("versions", true)] {
        let (field_path, of) = (path.field(field), attribute.at(field));
        if of.as_array().is_some_and(Vec::is_empty) {
            errors.invalid(&field_path, of.clone(), "must not be empty if specified");
        }
        let texts = of.as_str().into_iter().chain(attribute.texts(field));
        for (i, text) in texts.enumerate() {
            let item = if of.is_array() { field_path.index(i) } else { path.field(field) };
            if versions && !is_version(text) {
                errors.invalid(&item, text, "must be a string compatible with semver.org spec 2.0.0");
            }
            if text.len() > VALUE_MAX {
                errors.too_long(&item, VALUE_MAX);
            }
        }
    }
    let text = "exactly one value must be specified";
    match VALUES.iter().filter(|field| attribute.has(field)).count() {
        0 => errors.invalid(path, "", text),
        1 => {}
        _ => errors.invalid_struct(path, "io.k8s.api.resource.v1.DeviceAttribute", attribute, text),
    }
}

/// `1.2.3[-pre.release][+build]`
fn is_version(text: &str) -> bool {
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
    let number = |part: &str| {
        !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit()) && (part == "0" || !part.starts_with('0'))
    };
    let word = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
    let release = |part: &str| word(part) && (number(part) || !part.bytes().all(|c| c.is_ascii_digit()));
    core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(|pre| pre.split('.').all(release))
        && build.is_none_or(|build| build.split('.').all(word))
}

fn taint(errors: &mut Errors, taint: &Value, path: &Path<'_>) {
    let (key, value) = (taint.text("key"), taint.text("value"));
    errors.invalid_each(&path.field("key"), key, names::label_key(key));
    if !value.is_empty() {
        errors.invalid_each(&path.field("value"), value, names::label_value(value));
    }
    match taint.text("effect") {
        "" => errors.required(&path.field("effect"), ""),
        effect => errors.one_of(&path.field("effect"), effect, &EFFECTS),
    }
}

/// Errors of a toleration of a request.
pub(super) fn toleration(errors: &mut Errors, toleration: &Value, path: &Path<'_>) {
    let (key, value) = (toleration.text("key"), toleration.text("value"));
    if !key.is_empty() {
        errors.invalid_each(&path.field("key"), key, names::label_key(key));
    }
    match toleration.text("operator") {
        "Exists" if !value.is_empty() => {
            errors.invalid(&path.field("value"), value, "must be empty for operator `Exists`");
        }
        "Exists" => {}
        "Equal" => errors.invalid_each(&path.field("value"), value, names::label_value(value)),
        "" => errors.required(&path.field("operator"), ""),
        other => errors.not_supported(&path.field("operator"), other, &["Equal", "Exists"]),
    }
    if !toleration.text("effect").is_empty() {
        errors.one_of(&path.field("effect"), toleration.text("effect"), &EFFECTS);
    }
}

/// A device says where it is only where its slice says that devices do.
fn placement(errors: &mut Errors, device: &Value, per_device: bool, path: &Path<'_>) {
    let fields = ["nodeName", "nodeSelector", "allNodes"];
    if !per_device {
        if fields.iter().any(|field| device.has(field)) {
            let text = format!("`nodeName`, `nodeSelector` and `allNodes` can only be set if `{PER_DEVICE}");
            errors.invalid(path, Value::Null, &text);
        }
        return;
    }
    let node = device.text("nodeName");
    match (device.has("nodeName"), node) {
        (true, "") => errors.invalid(&path.field("nodeName"), "", "must not be empty"),
        (true, node) => errors.invalid_each(&path.field("nodeName"), node, names::dns1123_subdomain(node, false)),
        _ => {}
    }
    if device.has("nodeSelector") {
        affinity::node_selector(errors, device.at("nodeSelector"), &path.field("nodeSelector"));
    }
    if device.at("allNodes") == &Value::Bool(false) {
        errors.invalid(&path.field("allNodes"), false, "must be either unset or set to true");
    }
    let set = |field: &&str| match *field {
        "nodeName" => !node.is_empty(),
        "allNodes" => device.flag("allNodes"),
        field => device.has(field),
    };
    let set: Vec<String> = fields.iter().filter(|f| set(f)).map(|f| format!("`{f}`")).collect();
    let text = format!("exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `{PER_DEVICE}");
    match set.len() {
        0 => errors.required(path, &text),
        1 => {}
        _ => errors.invalid(path, format!("{{{}}}", set.join(", ")), &text),
    }
}

/// Errors of conditions that a binding waits for: they come with those that end the wait.
pub(super) fn binding(errors: &mut Errors, device: &Value, path: &Path<'_>) {
    let lists = ["bindingConditions", "bindingFailureConditions"];
    for list in lists {
        let list_path = path.field(list);
        if !errors.at_most(&list_path, device.list(list), CONDITIONS_MAX) {
            continue;
        }
        for (i, name) in device.texts(list).into_iter().enumerate() {
            errors.invalid_each(&list_path.index(i), name, names::label_key(name));
        }
    }
    let awaited = Unique::with(device.texts(lists[0]));
    for list in lists {
        let (list_path, mut names) = (path.field(list), Unique::default());
        for (i, name) in device.texts(list).into_iter().enumerate() {
            names.add(errors, name, &list_path.index(i));
            if list == lists[1] && awaited.has(name) {
                let text = "bindingFailureConditions must not overlap with bindingConditions";
                errors.invalid(&list_path.index(i), name, text);
            }
        }
    }
    for (missing, given) in [(lists[0], lists[1]), (lists[1], lists[0])] {
        if device.list(missing).is_empty() && !device.list(given).is_empty() {
            errors.invalid(
                &path.field(missing),
                device.at(missing).clone(),
                &format!("{missing} are required to use {given}"),
            );
        }
    }
}

/// Which limits hold: there were none when some of what is stored was written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Limits {
    /// All of them.
    New,
    /// Those that there always were: nothing was changed.
    Stored,
}

/// Errors of a driver's own configuration.
pub(super) fn configuration(errors: &mut Errors, config: &Value, limits: Limits, path: &Path<'_>) {
    let (opaque, path) = (config.at("opaque"), path.field("opaque"));
    if opaque.is_null() {
        return errors.required(&path, "");
    }
    driver_name(errors, opaque.text("driver"), &path.field("driver"));
    let max = if limits == Limits::New { PARAMETERS_MAX } else { usize::MAX };
    parameters(errors, opaque.at("parameters"), max, &path.field("parameters"));
}

/// How long the parameters of a configuration may be.
const PARAMETERS_MAX: usize = 10 * 1024;

/// Errors of an object that only a driver knows.
pub(super) fn parameters(errors: &mut Errors, value: &Value, max: usize, path: &Path<'_>) {
    match value {
        Value::Null => errors.required(path, ""),
        value if max < usize::MAX && value.to_string().len() > max => errors.too_long(path, max),
        Value::Object(_) => {}
        _ => errors.invalid(path, "<value omitted>", "must be a valid JSON object"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(value: Value, want: &[&str]) {
        let mut errors = Errors::default();
        device(&mut errors, &value, None, false, &Path::root("d"));
        let got: Vec<String> = errors.0.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn devices_are_checked() {
        check(
            json!({"name": "a", "attributes": {"x.test/model": {"string": "m"}, "v": {"version": "1.2.3-rc.1"}}}),
            &[],
        );
        check(
            json!({"name": "a", "attributes": {"v": {"version": "1.02.3"}, "w": {}}}),
            &[
                "d.attributes[v].version: Invalid value: \"1.02.3\": must be a string compatible with semver.org spec 2.0.0",
                "d.attributes[w]: Invalid value: \"\": exactly one value must be specified",
            ],
        );
        let long = "x".repeat(90) + ".test/b23456";
        check(
            json!({"name": "a", "capacity": {"c": {"value": "1", "requestPolicy": {}}}, "attributes": {"X.Test/m": {"int": 1}},
                "consumesCounters": [{}, {}, {}], "taints": [{"key": "k"}]}),
            &[
                "d.capacity[c].requestPolicy: Forbidden: allowMultipleAllocations must be true",
                "d.taints[0].effect: Required value",
                "d.consumesCounters: Too many: 3: must have at most 2 items",
            ],
        );
        assert_eq!(shortened(&long, KEY_MAX).len(), KEY_MAX);
        check(
            json!({"name": "a", "bindingConditions": ["c"]}),
            &[
                "d.bindingFailureConditions: Invalid value: null: bindingFailureConditions are required to use bindingConditions",
            ],
        );
    }
}
