//! Resource names and amounts (`ResourceList`), shared by pods, nodes, quotas and claims.

use crate::field::{Errors, Fields, NOT_NEGATIVE, Path};
use crate::names;
use api::quantity::Quantity;
use serde_json::Value;
use std::collections::HashSet;

const CONTAINER: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// Names that Kubernetes knows: whether their amounts are whole, and whether a quota for some pods or claims only
/// (`scopes`) must suit them.
const STANDARD: [(&str, bool, bool); 22] = [
    ("cpu", false, true),
    ("memory", false, true),
    ("ephemeral-storage", false, true),
    ("requests.cpu", false, true),
    ("requests.memory", false, true),
    ("requests.ephemeral-storage", false, true),
    ("limits.cpu", false, true),
    ("limits.memory", false, true),
    ("limits.ephemeral-storage", false, true),
    ("pods", true, true),
    ("resourcequotas", true, true),
    ("services", true, true),
    ("replicationcontrollers", true, true),
    ("secrets", true, true),
    ("configmaps", true, true),
    ("persistentvolumeclaims", true, true),
    ("storage", false, false),
    ("requests.storage", false, true),
    ("services.nodeports", true, true),
    ("services.loadbalancers", true, true),
    ("count/pods", false, false),
    ("count/services", false, false),
];

fn standard(name: &str) -> Option<&'static (&'static str, bool, bool)> {
    STANDARD.iter().find(|(known, ..)| *known == name)
}

/// The detail of an amount that must be whole.
pub const NOT_INTEGER: &str = "must be an integer";

/// A quantity field; zero when absent or malformed.
pub fn quantity(value: &Value) -> Quantity {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => "0".into(),
    };
    Quantity::parse(&text).unwrap_or_else(|_| Quantity::from_milli(0))
}

/// Whether a resource is a size of huge pages.
pub fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Whether a name belongs to Kubernetes itself.
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether a name may be used for an extended resource.
pub fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// Whether requests may be lower than limits.
pub fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

/// Whether amounts must be whole.
pub fn is_integer(name: &str) -> bool {
    standard(name).is_some_and(|(_, whole, _)| *whole) || is_extended(name)
}

/// Whether a quota's scopes must suit the name.
pub fn is_scoped(name: &str) -> bool {
    standard(name).is_some_and(|(.., scoped)| *scoped) || is_huge_page(name) || name.starts_with("requests.hugepages-")
}

/// Whether the name is one Kubernetes knows.
pub fn is_standard(name: &str) -> bool {
    standard(name).is_some() || is_huge_page(name) || name.starts_with("requests.hugepages-")
}

/// Whether the name is one Kubernetes knows for containers.
pub fn is_container(name: &str) -> bool {
    CONTAINER.contains(&name) || is_huge_page(name)
}

/// Errors of any resource name.
pub fn resource_name(errors: &mut Errors, name: &str, path: &Path<'_>) -> bool {
    let wrong = names::qualified_name(name);
    let before = errors.0.len();
    if !wrong.is_empty() {
        errors.invalid_each(path, name, wrong);
    } else if !name.contains('/') && !is_standard(name) {
        errors.invalid(path, name, "must be a standard resource type or fully qualified");
    }
    errors.0.len() == before
}

/// Errors of the name of a container's resource.
pub fn container_resource_name(errors: &mut Errors, name: &str, path: &Path<'_>) {
    resource_name(errors, name, path);
    if !name.contains('/') {
        if !is_container(name) {
            errors.invalid(path, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.invalid(path, name, "doesn't follow extended resource name standard");
    }
}

/// Errors of an amount: not negative, whole where the resource is.
pub fn amount(errors: &mut Errors, name: &str, value: &Value, path: &Path<'_>) {
    let parsed = quantity(value);
    if parsed.sign() < 0 {
        errors.invalid(path, parsed.to_string(), NOT_NEGATIVE);
    }
    if is_integer(name) && !parsed.is_whole() {
        errors.invalid(path, parsed.to_string(), NOT_INTEGER);
    }
}

/// An error of an amount of huge pages that is no whole number of them.
fn whole_pages(errors: &mut Errors, name: &str, value: &Value, path: &Path<'_>) {
    let Some(size) = name.strip_prefix("hugepages-").and_then(|size| Quantity::parse(size).ok()) else { return };
    let (parsed, size) = (quantity(value), size.value());
    if size > 0 && parsed.value() % size != 0 {
        errors.invalid(path, parsed.to_string(), &format!("{parsed} is not positive integer multiple of {name}"));
    }
}

/// Errors of limits and requests.
pub fn requirements(errors: &mut Errors, resources: &Value, claims: &[&str], path: &Path<'_>, name_rule: NameRule) {
    let (limits, requests) = (path.field("limits"), path.field("requests"));
    for (name, value) in resources.entries("limits") {
        let path = limits.key(name);
        name_rule(errors, name, &path);
        amount(errors, name, value, &path);
        whole_pages(errors, name, value, &path);
    }
    for (name, value) in resources.entries("requests") {
        let path = requests.key(name);
        name_rule(errors, name, &path);
        amount(errors, name, value, &path);
        let request = quantity(value);
        match resources.at("limits").get(name).map(quantity) {
            Some(limit) if request != limit && !may_overcommit(name) => {
                errors.invalid(&requests, request.to_string(), &format!("must be equal to {name} limit of {limit}"));
            }
            Some(limit) if request > limit => {
                let text = format!("must be less than or equal to {name} limit of {limit}");
                errors.invalid(&requests, request.to_string(), &text);
            }
            None if !may_overcommit(name) => {
                errors.required(&limits, "Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
        whole_pages(errors, name, value, &path);
    }
    let all = || resources.entries("limits").chain(resources.entries("requests")).map(|(n, _)| n.as_str());
    if all().any(is_huge_page) && !all().any(|n| n == "cpu" || n == "memory") {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
    claim_names(errors, resources, claims, &path.field("claims"));
}

/// A check of one resource name.
pub type NameRule = fn(&mut Errors, &str, &Path<'_>);

/// `known` is sorted.
fn claim_names(errors: &mut Errors, resources: &Value, known: &[&str], path: &Path<'_>) {
    // What was claimed: whole claims by name, parts of them by name and request, and the names of both.
    let (mut seen, mut names): (HashSet<String>, HashSet<&str>) = (HashSet::new(), HashSet::new());
    for (i, claim) in resources.list("claims").iter().enumerate() {
        let (path, name, request) = (path.index(i), claim.text("name"), claim.text("request"));
        if name.is_empty() {
            errors.required(&path, "");
            continue;
        }
        let key = if request.is_empty() { name.to_owned() } else { format!("{name}/{request}") };
        if seen.contains(name) {
            errors.duplicate(&path, name);
        } else {
            if !request.is_empty() {
                errors.invalid_each(&path.field("request"), request, names::dns1123_label(request, false));
            }
            if seen.contains(&key) || (request.is_empty() && names.contains(name)) {
                errors.duplicate(&path, key.as_str());
            }
            names.insert(name.split('/').next().unwrap_or(name));
            seen.insert(key);
        }
        if known.binary_search(&name).is_err() {
            errors.add(|| {
                let list = if known.is_empty() { " which is empty".into() } else { format!(": {}", known.join(", ")) };
                let mut cause = api::Cause::not_found(path.to_string(), &name.into());
                cause.message.push_str(&format!(": must be one of the names in pod.spec.resourceClaims{list}"));
                cause
            });
        }
    }
}

/// What is wrong with those of some amounts of bytes that are no whole numbers, by their names.
pub fn fractional<'a>(list: &Value, names: &'a [&'a str]) -> impl Iterator<Item = (&'a str, String)> {
    names.iter().filter_map(|name| {
        let amount = list.get(name).map(quantity).filter(|amount| !amount.is_whole())?;
        let shown = amount.to_string();
        Some((*name, format!("fractional byte value {shown:?} is invalid, must be an integer")))
    })
}

/// Rounds every amount of a `ResourceList` up to thousandths and prints it canonically.
pub fn round_up(list: &mut Value) {
    for value in list.as_object_mut().into_iter().flatten().map(|(_, v)| v) {
        let parsed = match value {
            Value::String(text) => Quantity::parse(text),
            Value::Number(number) => Quantity::parse(&number.to_string()),
            _ => continue,
        };
        let Ok(parsed) = parsed else { continue };
        let milli = Quantity::from_milli(parsed.milli_value());
        // a finer amount is the only one that changes
        *value = if milli == parsed { parsed.to_string().into() } else { milli.to_string().into() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(resources: Value, want: &[&str]) {
        let mut errors = Errors::default();
        requirements(&mut errors, &resources, &[], &Path::root("r"), container_resource_name);
        let got: Vec<String> = errors.0.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn limits_and_requests() {
        check(json!({"limits": {"cpu": "1"}, "requests": {"cpu": "500m", "memory": "1Gi"}}), &[]);
        check(
            json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
            &["r.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"],
        );
        check(
            json!({"requests": {"x.test/gpu": "1"}}),
            &["r.limits: Required value: Limit must be set for non overcommitable resources"],
        );
        check(json!({"limits": {"hugepages-2Mi": "2Mi"}}), &["r: Forbidden: HugePages require cpu or memory"]);
        check(
            json!({"limits": {"cpu": "-1"}}),
            &["r.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"],
        );
    }

    #[test]
    fn amounts_round_up() {
        let mut list = json!({"cpu": "100u", "memory": "1.5Gi"});
        round_up(&mut list);
        assert_eq!(list, json!({"cpu": "1m", "memory": "1536Mi"}));
    }
}
