//! Rules, match resources and match conditions, shared by webhooks and policies.

use super::expressions::{Compiler, Gives};
use crate::field::{Errors, Fields, Path, items_mut, map_mut, set_default};
use crate::rules::Unique;
use crate::{metadata, names};
use serde_json::Value;
use std::collections::HashSet;

const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];

/// Defaults of a list of rules.
pub fn rule_defaults(of: &mut Value, list: &str) {
    items_mut(of, list).for_each(|rule| set_default(rule, "scope", "*"));
}

/// Defaults of `matchConstraints` or `matchResources`.
pub fn resources_defaults(of: &mut Value) {
    set_default(of, "matchPolicy", "Equivalent");
    map_mut(of, "namespaceSelector");
    map_mut(of, "objectSelector");
    rule_defaults(of, "resourceRules");
    rule_defaults(of, "excludeResourceRules");
}

/// Errors of a rule with its operations.
pub fn rule(errors: &mut Errors, rule: &Value, path: &Path<'_>) {
    let (operations, at) = (rule.texts("operations"), path.field("operations"));
    if operations.is_empty() {
        errors.required(&at, "");
    }
    if operations.len() > 1 && operations.contains(&"*") {
        let text = "if '*' is present, must not specify other operations";
        errors.invalid(&at, rule.at("operations").clone(), text);
    }
    for (i, operation) in operations.into_iter().enumerate() {
        errors.supported(&at.index(i), operation, &OPERATIONS);
    }
    for (field, words) in [("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        let (list, at) = (rule.texts(field), path.field(field));
        if list.is_empty() {
            errors.required(&at, "");
        }
        if list.len() > 1 && list.contains(&"*") {
            let text = format!("if '*' is present, must not specify other {words}");
            errors.invalid(&at, rule.at(field).clone(), &text);
        }
        if field == "apiVersions" {
            for (i, _) in list.iter().enumerate().filter(|(_, v)| v.is_empty()) {
                errors.required(&at.index(i), "");
            }
        }
    }
    resources(errors, rule, &path.field("resources"));
    if rule.has("scope") {
        errors.supported(&path.field("scope"), rule.text("scope"), &SCOPES);
    }
}

fn resources(errors: &mut Errors, rule: &Value, path: &Path<'_>) {
    let list = rule.texts("resources");
    if list.is_empty() {
        errors.required(path, "");
    }
    let (mut all_subresources, mut all_of) = (HashSet::new(), HashSet::new());
    for (i, resource) in list.iter().enumerate() {
        if resource.is_empty() {
            errors.required(&path.index(i), "");
        }
        if *resource == "*/*" && list.len() > 1 {
            let text = "if '*/*' is present, must not specify other resources";
            errors.invalid(path, rule.at("resources").clone(), text);
        }
        let Some((name, sub)) = resource.split_once('/') else { continue };
        if all_of.contains(name) {
            errors.invalid(
                &path.index(i),
                *resource,
                &format!("if '{name}/*' is present, must not specify {resource}"),
            );
        }
        if all_subresources.contains(sub) {
            errors.invalid(&path.index(i), *resource, &format!("if '*/{sub}' is present, must not specify {resource}"));
        }
        if sub == "*" {
            all_of.insert(name);
        }
        if name == "*" {
            all_subresources.insert(sub);
        }
    }
}

/// Errors of match resources.
pub fn match_resources(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    errors.supported(&path.field("matchPolicy"), of.text("matchPolicy"), &["Equivalent", "Exact"]);
    for selector in ["namespaceSelector", "objectSelector"] {
        metadata::label_selector(errors, of.at(selector), &path.field(selector));
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        let list_path = path.field(list);
        for (i, item) in of.list(list).iter().enumerate() {
            let at = list_path.index(i);
            let resource_names = item.texts("resourceNames");
            let names_path = at.field("resourceNames");
            for (j, name) in resource_names.iter().enumerate() {
                errors.invalid_each(&names_path.index(j), name, names::path_segment(name, false));
                if resource_names[..j].contains(name) {
                    errors.duplicate(&names_path.index(j), *name);
                }
            }
            rule(errors, item, &at);
        }
    }
}

/// The error of an expression that does not compile.
pub fn compiled<T>(errors: &mut Errors, text: &str, compiled: Result<T, String>, path: &Path<'_>) {
    if let Err(why) = compiled {
        errors.invalid(path, text, &why);
    }
}

/// Errors of operations that policies cannot change anything in.
pub fn mutable_operations(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    let (rules, supported) = (path.field("resourceRules"), ["*", "CONNECT", "CREATE", "UPDATE"]);
    for operation in of.list("resourceRules").iter().flat_map(|rule| rule.texts("operations")) {
        errors.supported(&rules.field("operations"), operation, &supported);
    }
}

/// A warning about names that the API is not to have.
pub fn warnings(object: &Value) -> Vec<String> {
    const SUFFIX: &str = ".static.k8s.io";
    let reserved = api::meta::name(object).ends_with(SUFFIX);
    let text = format!(
        "metadata.name: names ending with {SUFFIX:?} are reserved for static manifest-based configurations and cannot be managed via the API"
    );
    if reserved { vec![text] } else { Vec::new() }
}

/// Errors of match conditions, which may see `params` or not.
pub fn conditions(errors: &mut Errors, list: &[Value], params: bool, path: &Path<'_>) {
    let compiler = Compiler::new(params);
    if list.len() > 64 {
        errors.too_many(path, list.len(), 64);
    }
    let mut names_so_far = Unique::default();
    for (i, condition) in list.iter().enumerate() {
        let (item, name) = (path.index(i), condition.text("name"));
        match condition.text("expression").trim() {
            "" => errors.required(&item.field("expression"), ""),
            text => compiled(errors, text, compiler.compile(text, true, Gives::Bool), &item.field("expression")),
        }
        match name {
            "" => errors.required(&item.field("name"), ""),
            name => errors.invalid_each(&item.field("name"), name, names::qualified_name(name)),
        }
        if !name.is_empty() {
            names_so_far.add(errors, name, &item.field("name"));
        }
    }
}
