//! What services of type `LoadBalancer` have, and where balancers of services and ingresses are reached.

use super::SPEC;
use crate::field::{Errors, Fields, Path};
use crate::names;
use crate::rules::{Check, Rule};
use api::Object;
use serde_json::Value;

const ONLY_BALANCED: &str = "may only be used when `type` is 'LoadBalancer'";
const RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
/// What only such services have.
pub const RULES: &[Rule] =
    &[("allocateLoadBalancerNodePorts", Check::In(only_balanced)), ("loadBalancerClass", Check::In(class))];

fn is_balanced(spec: &Value) -> bool {
    spec.text("type") == "LoadBalancer"
}

/// Errors of the addresses that may use the balancer. The field hides the annotation it came from.
pub fn source_ranges(errors: &mut Errors, obj: &Object, old: Option<&Object>) {
    let (spec, field) = (obj.at("spec"), "loadBalancerSourceRanges");
    let only = |errors: &mut Errors, path: &Path<'_>| {
        if !is_balanced(spec) {
            errors.forbidden(path, ONLY_BALANCED);
        }
    };
    if !spec.texts(field).is_empty() {
        // the path of these errors begins with a capital
        let path = SPEC.field("LoadBalancerSourceRanges");
        only(errors, &path);
        let known = old.map_or(Vec::new(), |old| old.at("spec").texts(field));
        let known: Vec<&str> = known.into_iter().map(str::trim).collect();
        spec.texts(field)
            .iter()
            .enumerate()
            .for_each(|(i, range)| errors.new_cidr(&path.index(i), range.trim(), &known));
    } else if let Some(text) = api::meta::annotation(obj, RANGES) {
        let annotations = Path::root("metadata.annotations");
        let path = annotations.key(RANGES);
        only(errors, &path);
        let is_new = old.and_then(|old| api::meta::annotation(old, RANGES)) != Some(text);
        if is_new && !text.trim().is_empty() {
            text.split(',').map(str::trim).for_each(|range| errors.cidr(&path, range));
        }
    }
}

fn only_balanced(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    if spec.has("allocateLoadBalancerNodePorts") && !is_balanced(spec) {
        errors.forbidden(path, ONLY_BALANCED);
    }
}

/// Errors of the class of a balancer.
pub fn class(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    match spec.at("loadBalancerClass").as_str() {
        None => {}
        Some(name) if is_balanced(spec) => errors.invalid_each(path, name, names::qualified_name(name)),
        Some(_) => errors.forbidden(path, ONLY_BALANCED),
    }
}

/// Warnings about where a balancer is reached.
pub fn ingress_warnings(obj: &Object) -> Vec<String> {
    let (list, path) = (obj.at("status").at("loadBalancer").list("ingress"), Path::root("status.loadBalancer.ingress"));
    let odd = |(i, ingress): (usize, &Value)| {
        names::ip_warning(ingress.text("ip")).map(|why| format!("{}: {why}", path.index(i)))
    };
    list.iter().enumerate().filter_map(odd).collect()
}

/// Errors of where a balancer is reached; `was`: where it was before, `modes`: whether addresses have modes.
pub fn ingress_status(errors: &mut Errors, list: &[Value], was: &[Value], path: &Path<'_>, modes: bool) {
    let known: Vec<&str> = was.iter().map(|ingress| ingress.text("ip")).collect();
    for (i, ingress) in list.iter().enumerate() {
        let (item, ip, host, mode) =
            (path.index(i), ingress.text("ip"), ingress.text("hostname"), ingress.text("ipMode"));
        if !ip.is_empty() {
            errors.new_ip(&item.field("ip"), ip, &known);
        }
        let mode_path = item.field("ipMode");
        match (ip.is_empty(), mode) {
            (false, "") if modes => errors.required(&mode_path, "must be specified when `ip` is set"),
            (_, "") => {}
            (true, _) => errors.forbidden(&mode_path, "may not be specified when `ip` is not set"),
            (false, mode) => errors.one_of(&mode_path, mode, &["Proxy", "VIP"]),
        }
        if !host.is_empty() {
            errors.invalid_each(&item.field("hostname"), host, names::subdomain(host));
            if names::parse_ip(host).is_some() {
                errors.invalid(&item.field("hostname"), host, "must be a DNS name, not an IP address");
            }
        }
    }
}
