//! What may change of a service.

use super::{FIXED, SPEC, is_external, is_headless, needs_health_check};
use crate::field::{Errors, Fields, items_mut};
use api::Object;
use serde_json::Value;
use std::collections::HashSet;

/// Whether a service has a use for some fields, and these: they go where all of them are as they were.
type Dependent = (fn(&Value) -> bool, &'static [&'static str]);
const DEPENDENT: [Dependent; 7] = [
    (has_cluster_ips, &["clusterIP", "clusterIPs"]),
    (has_cluster_ips, &["ipFamilies"]),
    (has_cluster_ips, &["ipFamilyPolicy"]),
    (needs_health_check, &["healthCheckNodePort"]),
    (is_balanced, &["allocateLoadBalancerNodePorts"]),
    (is_balanced, &["loadBalancerClass"]),
    (is_external, &["externalTrafficPolicy"]),
];

/// Drops fields that the service had a use for and has none any more, where the writer did not touch them.
pub fn drop_type_dependent(new: &mut Object, old: &Object) {
    let was = old.at("spec");
    let Some(spec) = new.get_mut("spec") else { return };
    for (useful, fields) in DEPENDENT {
        if useful(was) && !useful(spec) && fields.iter().all(|field| spec.at(field) == was.at(field)) {
            fields.iter().for_each(|field| remove(spec, field));
        }
    }
    if has_node_ports(was) && !has_node_ports(spec) {
        let given = |spec: &Value| -> HashSet<i64> {
            spec.list("ports").iter().filter_map(|port| port.int("nodePort")).filter(|port| *port != 0).collect()
        };
        if given(was).is_superset(&given(spec)) {
            items_mut(spec, "ports").for_each(|port| remove(port, "nodePort"));
        }
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
    ["NodePort", "LoadBalancer"].contains(&spec.text("type"))
}

/// Addresses once given stay, but for services that had or get none.
pub fn cluster_ips_change(errors: &mut Errors, now: &Value, was: &Value) {
    let headless = is_headless(now) && is_headless(was);
    if !has_cluster_ips(now) || !has_cluster_ips(was) || headless {
        return;
    }
    let (new, old, path) = (now.texts("clusterIPs"), was.texts("clusterIPs"), SPEC.field("clusterIPs"));
    let printed = now.at("clusterIPs");
    if new.is_empty() && !old.is_empty() {
        errors.invalid(&path.index(0), printed.clone(), "primary clusterIP can not be unset");
    }
    let compared = if new.len() == old.len() { new.len() } else { new.len().min(old.len()).min(1) };
    for i in (0..compared).filter(|i| new[*i] != old[*i]) {
        errors.invalid(&path.index(i), printed.clone(), FIXED);
    }
    single_stack(errors, now, (new.len(), old.len()), "clusterIP");
}

/// Families once given stay.
pub fn families_change(errors: &mut Errors, now: &Value, was: &Value) {
    if !has_cluster_ips(now) || !has_cluster_ips(was) || is_headless(now) || is_headless(was) {
        return;
    }
    let (new, old, path) = (now.texts("ipFamilies"), was.texts("ipFamilies"), SPEC.field("ipFamilies"));
    let mut wrong = |of: &str, why: &str| errors.invalid(&path.index(0), now.at(of).clone(), why);
    if new.len() == old.len() {
        new.iter().zip(&old).filter(|(new, old)| new != old).for_each(|_| wrong("ipFamilies", FIXED));
        return;
    }
    if new.len() < old.len() && now.list("clusterIPs").is_empty() {
        wrong("ipFamilies", "primary ipFamily can not be unset");
    }
    if let (Some(new), Some(old)) = (new.first(), old.first())
        && new != old
    {
        // upstream prints the addresses here
        wrong("clusterIPs", FIXED);
    }
    single_stack(errors, now, (new.len(), old.len()), "ipFamily");
}

/// Who gives a second one back says that one is enough.
fn single_stack(errors: &mut Errors, now: &Value, (new, old): (usize, usize), noun: &str) {
    if new == 1 && old > new && now.text("ipFamilyPolicy") != "SingleStack" {
        let why = format!("must be set to 'SingleStack' when releasing the secondary {noun}");
        errors.invalid(&SPEC.field("ipFamilyPolicy"), now.at("ipFamilyPolicy").clone(), &why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_no_type_needs_goes_unless_it_was_touched() {
        let check = |new: Value, want: Value| {
            let old = json!({"spec": {"type": "NodePort", "clusterIP": "1", "clusterIPs": ["1"], "ipFamilies": ["IPv4"],
                "ports": [{"nodePort": 3}], "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Cluster"}});
            let mut new = json!({"spec": new});
            drop_type_dependent(&mut new, &old);
            assert_eq!(new["spec"], want);
        };
        check(
            json!({"type": "ExternalName", "clusterIP": "1", "clusterIPs": ["1"], "ipFamilies": ["IPv4"], "ports": [{"nodePort": 3}],
                "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Cluster"}),
            json!({"type": "ExternalName", "ports": [{}], "internalTrafficPolicy": "Cluster"}),
        );
        let touched =
            json!({"type": "ExternalName", "clusterIP": "2", "clusterIPs": ["1"], "ports": [{"nodePort": 4}]});
        check(touched.clone(), touched);
    }

    #[test]
    fn given_addresses_and_families_stay() {
        let check = |now: Value, was: Value, want: &[&str]| {
            let mut errors = Errors::default();
            cluster_ips_change(&mut errors, &now, &was);
            families_change(&mut errors, &now, &was);
            assert_eq!(errors.0.iter().map(|cause| cause.field.as_str()).collect::<Vec<_>>(), want, "{now}");
        };
        let of = |ips: &[&str], families: &[&str]| json!({"clusterIPs": ips, "ipFamilies": families});
        check(of(&["1"], &["IPv4"]), of(&["1"], &["IPv4"]), &[]);
        check(of(&["2"], &["IPv6"]), of(&["1"], &["IPv4"]), &["spec.clusterIPs[0]", "spec.ipFamilies[0]"]);
        check(of(&[], &[]), of(&["1"], &["IPv4"]), &["spec.clusterIPs[0]", "spec.ipFamilies[0]"]);
        check(
            of(&["1"], &["IPv4"]),
            of(&["1", "::1"], &["IPv4", "IPv6"]),
            &["spec.ipFamilyPolicy", "spec.ipFamilyPolicy"],
        );
        check(of(&["None"], &["IPv4"]), of(&["None"], &["IPv6"]), &[]);
    }
}
