//! Validation of a service's spec.

use super::{SPEC, balancer, is_external, is_headless, needs_health_check};
use crate::core::endpoints::endpoint_ip;
use crate::core::pod::{PROTOCOL, port_number_or_name};
use crate::field::{Errors, Fields, Path, go_struct, repeated};
use crate::rules::{self, Check, Rule};
use crate::{metadata, names};
use api::Object;
use serde_json::Value;
use std::collections::HashSet;

const MODE: &str = "service.kubernetes.io/topology-mode";
pub(super) const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
/// In the order of the errors; a field that means something else for each type is looked at several times.
const SERVICE: &[Rule] = &[
    ("ports", Check::In(some_port)),
    ("clusterIPs", Check::In(exposed)),
    ("externalName", Check::In(external_name)),
    ("ports", Check::In(ports)),
    ("selector", Check::By(metadata::labels)),
    ("sessionAffinity", Check::OneOf(&["ClientIP", "None"])),
    ("sessionAffinityConfig", Check::In(affinity_config)),
];
/// What comes after the addresses.
const TYPE: &[Rule] = &[
    ("type", Check::OneOf(&["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"])),
    ("ports", Check::In(node_ports)),
    ("ports", Check::In(distinct_ports)),
];
const POLICIES: &[Rule] = &[
    ("externalTrafficPolicy", Check::In(external_policy)),
    ("healthCheckNodePort", Check::In(health_check)),
    ("internalTrafficPolicy", Check::In(internal_policy)),
    ("trafficDistribution", Check::Optional(&["PreferClose", "PreferSameZone", "PreferSameNode"])),
];
const PORT: &[Rule] = &[
    ("port", Check::Port),
    ("protocol", PROTOCOL),
    ("targetPort", Check::By(port_number_or_name)),
    ("appProtocol", Check::NamedIfThere(names::qualified_name)),
];
const NOT_EXTERNAL: &str = "may not be set for ExternalName services";
const OF_CLUSTER: &[Rule] = &[
    ("clusterIPs", Check::Unset(NOT_EXTERNAL)),
    ("ipFamilies", Check::Unset(NOT_EXTERNAL)),
    ("ipFamilyPolicy", Check::Absent(NOT_EXTERNAL)),
];
const ADDRESSES: &[Rule] = &[
    ("clusterIPs", Check::In(primary)),
    ("ipFamilies", Check::In(families)),
    ("ipFamilyPolicy", Check::Optional(&["PreferDualStack", "RequireDualStack", "SingleStack"])),
];

/// Errors of a whole service; `old`: as it was before a change.
pub fn service(errors: &mut Errors, obj: &Object, old: Option<&Object>) {
    let spec = obj.at("spec");
    topology(errors, obj);
    rules::check(errors, spec, &SPEC, SERVICE);
    let was = old.map_or(&Value::Null, |old| old.at("spec"));
    addresses(errors, spec, was);
    let known = was.texts("externalIPs");
    rules::each_text(spec, "externalIPs", &SPEC, |ip, path| external_ip(errors, ip, &known, path));
    rules::check(errors, spec, &SPEC, TYPE);
    balancer::source_ranges(errors, obj, old);
    rules::check(errors, spec, &SPEC, balancer::RULES);
    rules::check(errors, spec, &SPEC, POLICIES);
}

/// Two annotations that mean the same say the same.
fn topology(errors: &mut Errors, obj: &Object) {
    let [mode, hints] = [MODE, HINTS].map(|key| api::meta::annotation(obj, key));
    if let (Some(mode), Some(hints)) = (mode, hints)
        && mode != hints
    {
        let why = format!("must match annotations[{HINTS}] when both are specified");
        errors.invalid(&Path::root("metadata.annotations").key(MODE), mode, &why);
    }
}

/// Errors of the addresses and families of a service, which are looked at before any are given out; `was`: as they were.
pub fn cluster_ip_errors(spec: &Value, was: &Value) -> Vec<api::Cause> {
    let mut errors = Errors::default();
    addresses(&mut errors, spec, was);
    errors.0
}

fn some_port(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    if spec.list("ports").is_empty() && !is_headless(spec) && spec.text("type") != "ExternalName" {
        errors.required(path, "");
    }
}

/// What is reached from outside has an address inside.
fn exposed(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let kind = spec.text("type");
    if ["LoadBalancer", "NodePort"].contains(&kind) && is_headless(spec) {
        errors.invalid(&path.index(0), "None", &format!("may not be set to 'None' for {kind} services"));
    }
}

fn external_name(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    if spec.text("type") != "ExternalName" {
        return;
    }
    rules::check(errors, spec, &SPEC, OF_CLUSTER);
    let name = spec.text("externalName");
    match name.strip_suffix('.').unwrap_or(name) {
        "" => errors.required(path, ""),
        name => errors.invalid_each(path, name, names::subdomain(name)),
    }
}

/// Only a port that stands alone needs no name.
fn ports(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let (ports, mut seen) = (spec.list("ports"), HashSet::new());
    for (i, port) in ports.iter().enumerate() {
        let (path, name) = (path.index(i), port.text("name"));
        let rule = if ports.len() > 1 { Check::Named(names::label) } else { Check::MaybeNamed(names::label) };
        rules::check(errors, port, &path, &[("name", rule)]);
        if !name.is_empty() && !seen.insert(name) {
            errors.duplicate(&path.field("name"), name);
        }
        rules::check(errors, port, &path, PORT);
    }
}

fn node_port(port: &Value) -> i64 {
    port.int("nodePort").unwrap_or(0)
}

fn node_ports(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let ports = spec.list("ports");
    let twice = repeated(ports.iter().map(|p| (p.text("protocol"), node_port(p))));
    let given = || ports.iter().map(node_port).enumerate().filter(|(_, number)| *number != 0);
    if spec.text("type") == "ClusterIP" {
        let text = "may not be used when `type` is 'ClusterIP'";
        given().for_each(|(i, _)| errors.forbidden(&path.index(i).field("nodePort"), text));
    }
    for (i, number) in given().filter(|(i, _)| twice[*i]) {
        errors.duplicate(&path.index(i).field("nodePort"), number);
    }
}

fn distinct_ports(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let ports = spec.list("ports");
    let twice = repeated(ports.iter().map(|p| (p.text("protocol"), p.int("port"))));
    for (i, port) in ports.iter().enumerate().filter(|(i, _)| twice[*i]) {
        let fields = [
            ("Name", "".into()),
            ("Protocol", port.at("protocol").clone()),
            ("AppProtocol", Value::Null),
            ("Port", port.at("port").clone()),
            ("TargetPort", 0.into()),
            ("NodePort", 0.into()),
        ];
        errors.duplicate_printed(&path.index(i), || go_struct(&fields));
    }
}

fn affinity_config(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let config = spec.at("sessionAffinityConfig");
    match spec.text("sessionAffinity") {
        "None" if !config.is_null() => errors.forbidden(path, "must not be set when session affinity is None"),
        "ClientIP" => {
            let path = path.field("clientIP.timeoutSeconds");
            match config.at("clientIP").int("timeoutSeconds") {
                None => errors.required(&path, "must be set when session affinity is ClientIP"),
                Some(1..=86_400) => {}
                Some(seconds) => errors.invalid(&path, seconds, "must be greater than 0 and less than 86400"),
            }
        }
        _ => {}
    }
}

fn addresses(errors: &mut Errors, spec: &Value, was: &Value) {
    if spec.text("type") != "ExternalName" {
        rules::check(errors, spec, &SPEC, ADDRESSES);
        cluster_ips(errors, spec, &was.texts("clusterIPs"), &SPEC.field("clusterIPs"));
    }
}

/// The one address is the first of the several.
fn primary(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let (one, many) = (spec.text("clusterIP"), spec.texts("clusterIPs"));
    let text = match (one, many.first()) {
        ("", Some(_)) => "must be empty when `clusterIP` is not specified",
        ("", None) => return,
        (_, None) => return errors.required(path, ""),
        (one, Some(first)) if one == *first => return,
        _ => "first value must match `clusterIP`",
    };
    errors.invalid(path, spec.at("clusterIPs").clone(), text);
}

fn families(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let families = spec.texts("ipFamilies");
    let again = repeated(families.iter());
    for (i, family) in families.iter().enumerate() {
        errors.one_of(&path.index(i), family, &FAMILIES);
        if again[i] {
            errors.duplicate(&path.index(i), *family);
        }
    }
}

fn cluster_ips(errors: &mut Errors, spec: &Value, known: &[&str], path: &Path<'_>) {
    let (many, mut bad) = (spec.texts("clusterIPs"), false);
    let printed = || spec.at("clusterIPs").clone();
    for (i, ip) in many.iter().enumerate() {
        if i == 0 && *ip == "None" {
            if many.len() > 1 {
                bad = true;
                errors.invalid(path, printed(), "'None' must be the first and only value");
            }
        } else if let Some(text) = names::ip(ip).filter(|_| !known.contains(ip)) {
            bad = true;
            errors.invalid(&path.index(i), *ip, text);
        }
    }
    if many.len() > 2 {
        errors.invalid(path, printed(), "may only hold up to 2 values");
    }
    if !bad {
        of_families(errors, spec, &many, path);
    }
}

/// Addresses are of different families, in the order of the families.
fn of_families(errors: &mut Errors, spec: &Value, many: &[&str], path: &Path<'_>) {
    let v4: Vec<bool> = many.iter().filter_map(|ip| names::parse_ip(ip)).map(|ip| ip.is_ipv4()).collect();
    if v4.windows(2).any(|pair| pair[0] == pair[1]) {
        let text = "may specify no more than one IP for each IP family";
        errors.invalid(path, spec.at("clusterIPs").clone(), text);
    }
    if is_headless(spec) {
        return;
    }
    let families = spec.texts("ipFamilies");
    for (i, (family, is_v4)) in families.iter().zip(&v4).enumerate().filter(|(_, (f, _))| FAMILIES.contains(f)) {
        if (*family == "IPv4") != *is_v4 {
            let text = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            errors.invalid(&path.index(i), many[i], &text);
        }
    }
}

fn external_ip(errors: &mut Errors, ip: &str, known: &[&str], path: &Path<'_>) {
    match names::ip(ip).filter(|_| !known.contains(&ip)) {
        Some(text) => errors.invalid(path, ip, text),
        None => endpoint_ip(errors, ip, path),
    }
}

fn external_policy(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    match (is_external(spec), spec.text("externalTrafficPolicy")) {
        (false, "") => {}
        (false, policy) => errors.invalid(path, policy, "may only be set for externally-accessible services"),
        (true, "") => errors.required(path, ""),
        (true, policy) => errors.one_of(path, policy, &["Cluster", "Local"]),
    }
}

fn health_check(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    match (needs_health_check(spec), spec.int("healthCheckNodePort").unwrap_or(0)) {
        (false, 0) => {}
        (false, port) => {
            let text = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.invalid(path, port, text);
        }
        (true, 0) => errors.required(path, ""),
        (true, port) => errors.port_number(path, port),
    }
}

fn internal_policy(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    if spec.has("internalTrafficPolicy") {
        errors.one_of(path, spec.text("internalTrafficPolicy"), &["Cluster", "Local"]);
    } else if ["NodePort", "LoadBalancer", "ClusterIP"].contains(&spec.text("type")) {
        errors.required(path, "");
    }
}
