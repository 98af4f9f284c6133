//! What may change of a service.

use super::{FIXED, SPEC, is_external, is_headless, needs_health_check};
use crate::field::{Errors, Fields, items_mut};
use crate::names;
use api::Object;
use serde_json::Value;

/// Fields that belonged to the old type and that the writer did not touch are dropped when the type changes.
pub fn drop_type_dependent(new: &mut Object, old: Option<&Object>) {
    let Some(was) = old.map(|o| o.at("spec").clone()) else { return };
    let Some(spec) = new.get_mut("spec") else { return };
    let kind = spec.text("type").to_owned();
    let uses_cluster_ips = |kind: &str| kind != "ExternalName";
    let node_ports = |spec: &Value| match spec.text("type") {
        "NodePort" => true,
        "LoadBalancer" => spec.at("allocateLoadBalancerNodePorts").as_bool() != Some(false),
        _ => false,
    };
    let remove = |spec: &mut Value, field: &str| drop(spec.as_object_mut().map(|map| map.remove(field)));
    if uses_cluster_ips(was.text("type")) && !uses_cluster_ips(&kind) {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if spec.at(field) == was.at(field) {
                remove(spec, field);
            }
        }
        if spec.at("clusterIP").is_null() {
            remove(spec, "clusterIPs");
        }
    }
    if kind == "ExternalName" && spec.at("internalTrafficPolicy") == was.at("internalTrafficPolicy") {
        remove(spec, "internalTrafficPolicy");
    }
    if node_ports(&was) && kind != "NodePort" && kind != "LoadBalancer" {
        let same_ports = |a: &Value, b: &Value| a.int("nodePort") == b.int("nodePort");
        let before = was.list("ports").to_vec();
        for port in items_mut(spec, "ports") {
            if before.iter().any(|b| same_ports(b, port)) {
                remove(port, "nodePort");
            }
        }
    }
    if needs_health_check(&was)
        && !needs_health_check(spec)
        && spec.at("healthCheckNodePort") == was.at("healthCheckNodePort")
    {
        remove(spec, "healthCheckNodePort");
    }
    if was.text("type") == "LoadBalancer" && kind != "LoadBalancer" {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if spec.at(field) == was.at(field) {
                remove(spec, field);
            }
        }
    }
    if is_external(&was) && !is_external(spec) && spec.at("externalTrafficPolicy") == was.at("externalTrafficPolicy") {
        remove(spec, "externalTrafficPolicy");
    }
}

/// Addresses once given stay, but for services that had or get none.
pub fn cluster_ips_change(errors: &mut Errors, now: &Value, was: &Value) {
    if [now, was].iter().any(|s| s.text("type") == "ExternalName") || (is_headless(now) && is_headless(was)) {
        return;
    }
    let (new, old, path) = (now.texts("clusterIPs"), was.texts("clusterIPs"), SPEC.field("clusterIPs"));
    let printed = || now.at("clusterIPs").clone();
    if new.iter().any(|ip| *ip != "None" && names::parse_ip(ip).is_none()) {
        // what is no address at all is told as that
        return;
    }
    if new.len() == old.len() {
        for (i, _) in new.iter().zip(&old).enumerate().filter(|(_, (a, b))| a != b) {
            errors.invalid(&path.index(i), printed(), FIXED);
        }
        return;
    }
    if new.is_empty() {
        errors.invalid(&path.index(0), Value::Null, "primary clusterIP can not be unset");
    } else if !old.is_empty() && new[0] != old[0] {
        errors.invalid(&path.index(0), printed(), FIXED);
    }
    if old.len() > new.len() && new.len() == 1 && now.text("ipFamilyPolicy") != "SingleStack" {
        let text = "must be set to 'SingleStack' when releasing the secondary clusterIP";
        errors.invalid(&SPEC.field("ipFamilyPolicy"), now.at("ipFamilyPolicy").clone(), text);
    }
}

/// Families once given stay.
pub fn families_change(errors: &mut Errors, now: &Value, was: &Value) {
    if [now, was].iter().any(|s| s.text("type") == "ExternalName") || is_headless(now) != is_headless(was) {
        return;
    }
    let (new, old, path) = (now.texts("ipFamilies"), was.texts("ipFamilies"), SPEC.field("ipFamilies"));
    let printed = || now.at("ipFamilies").clone();
    if new.iter().any(|family| !["IPv4", "IPv6"].contains(family)) {
        return;
    }
    if new.len() == old.len() {
        for (i, _) in new.iter().zip(&old).enumerate().filter(|(_, (a, b))| a != b) {
            errors.invalid(&path.index(i), printed(), FIXED);
        }
    } else if new.is_empty() {
        errors.invalid(&path.index(0), Value::Null, "primary ipFamily can not be unset");
    } else if !old.is_empty() && new[0] != old[0] {
        errors.invalid(&path.index(0), printed(), FIXED);
    }
}
