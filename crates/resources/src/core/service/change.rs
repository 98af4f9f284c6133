//! What may change of a service.

use super::{FIXED, SPEC, is_external, is_headless, needs_health_check};
use crate::field::{Errors, Fields, items_mut};
use crate::names;
use api::Object;
use serde_json::Value;
use std::collections::HashSet;

/// Whether a service has a use for some fields, and these.
type Dependent = (fn(&Value) -> bool, &'static [&'static str]);
const DEPENDENT: [Dependent; 4] = [
    (has_cluster_ips, &["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"]),
    (needs_health_check, &["healthCheckNodePort"]),
    (is_balanced, &["allocateLoadBalancerNodePorts", "loadBalancerClass"]),
    (is_external, &["externalTrafficPolicy"]),
];

/// Drops fields that the service had a use for and has none any more, where the writer did not touch them.
pub fn drop_type_dependent(new: &mut Object, old: &Object) {
    let was = old.at("spec");
    let Some(spec) = new.get_mut("spec") else { return };
    for (useful, fields) in DEPENDENT {
        if useful(was) && !useful(spec) {
            fields.iter().for_each(|field| drop_unchanged(spec, was, field));
        }
    }
    if !has_cluster_ips(spec) {
        drop_unchanged(spec, was, "internalTrafficPolicy");
        if has_cluster_ips(was) && spec.at("clusterIP").is_null() {
            remove(spec, "clusterIPs");
        }
    }
    if has_node_ports(was) && !["NodePort", "LoadBalancer"].contains(&spec.text("type")) {
        let had: HashSet<Option<i64>> = was.list("ports").iter().map(|port| port.int("nodePort")).collect();
        let kept = |port: &&mut Value| had.contains(&port.int("nodePort"));
        items_mut(spec, "ports").filter(kept).for_each(|port| remove(port, "nodePort"));
    }
}

fn drop_unchanged(spec: &mut Value, was: &Value, field: &str) {
    if spec.at(field) == was.at(field) {
        remove(spec, field);
    }
}

fn remove(of: &mut Value, field: &str) {
    of.as_object_mut().map(|map| map.remove(field));
}

fn has_cluster_ips(spec: &Value) -> bool {
    spec.text("type") != "ExternalName"
}

fn is_balanced(spec: &Value) -> bool {
    spec.text("type") == "LoadBalancer"
}

fn has_node_ports(spec: &Value) -> bool {
    let allocates = spec.at("allocateLoadBalancerNodePorts").as_bool() != Some(false);
    spec.text("type") == "NodePort" || (is_balanced(spec) && allocates)
}

/// Addresses once given stay, but for services that had or get none.
pub fn cluster_ips_change(errors: &mut Errors, now: &Value, was: &Value) {
    let addressed = has_cluster_ips(now) && has_cluster_ips(was) && !(is_headless(now) && is_headless(was));
    // what is no address at all is told as that
    let good = |ip: &&str| *ip == "None" || names::parse_ip(ip).is_some();
    let (new, old) = (now.texts("clusterIPs"), was.texts("clusterIPs"));
    if !addressed || !new.iter().all(good) {
        return;
    }
    stays(errors, now, was, "clusterIPs", "clusterIP");
    if old.len() > new.len() && new.len() == 1 && now.text("ipFamilyPolicy") != "SingleStack" {
        let text = "must be set to 'SingleStack' when releasing the secondary clusterIP";
        errors.invalid(&SPEC.field("ipFamilyPolicy"), now.at("ipFamilyPolicy").clone(), text);
    }
}

/// Families once given stay.
pub fn families_change(errors: &mut Errors, now: &Value, was: &Value) {
    let addressed = has_cluster_ips(now) && has_cluster_ips(was) && is_headless(now) == is_headless(was);
    if addressed && now.texts("ipFamilies").iter().all(|family| ["IPv4", "IPv6"].contains(family)) {
        stays(errors, now, was, "ipFamilies", "ipFamily");
    }
}

/// Errors of a list whose first item stays once given, and of which nothing changes while it keeps its length.
fn stays(errors: &mut Errors, now: &Value, was: &Value, field: &str, noun: &str) {
    let (new, old, path) = (now.texts(field), was.texts(field), SPEC.field(field));
    let compared = match (new.len(), old.len()) {
        (0, 1..) => return errors.invalid(&path.index(0), Value::Null, &format!("primary {noun} can not be unset")),
        (now, was) if now == was => now,
        (now, was) => now.min(was).min(1),
    };
    for i in (0..compared).filter(|i| new[*i] != old[*i]) {
        errors.invalid(&path.index(i), now.at(field).clone(), FIXED);
    }
}
