//! What services get: cluster IPs, IP families, node ports.
//!
//! All of it happens before the strategy sees the object, and what cannot be given is told alone, in upstream's order:
//! families, addresses, node ports, the port of health checks.

use super::node_ports;
use super::pool::Refused;
use super::{Allocation, Allocators, Item};
use api::{Cause, Object, Status, meta};
use resources::core::service::{cluster_ip_errors, needs_health_check};
use resources::field::Fields;
use resources::names;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::net::IpAddr;

/// The end of errors of a range that has no more.
pub const FULL: &str = "range is full";
const POLICY: &str = "spec.ipFamilyPolicy";

/// Everything a service uses.
pub fn used(service: &Object) -> Vec<Item> {
    addresses(service).map(Item::Address).chain(node_ports::used(service).into_iter().map(Item::Port)).collect()
}

/// The cluster IPs of a service; none of one that is headless or external.
pub fn addresses(service: &Object) -> impl Iterator<Item = IpAddr> {
    let ips = if is_external(service.at("spec")) { Vec::new() } else { cluster_ips(service.at("spec")) };
    ips.into_iter().filter_map(|ip| names::parse_ip(&ip))
}

/// The error of a service whose address another has.
pub fn taken(service: &Object, address: IpAddr) -> Status {
    let why = format!("failed to allocate IP {address}: provided IP is already allocated");
    refused(service, vec![Cause::invalid("spec.clusterIPs", &json!([address.to_string()]), &why)])
}

/// The error of a service that gets no address.
pub fn full(service: &Object) -> Status {
    Status::internal(format!("failed to allocate a serviceIP for Service {:?}: {FULL}", meta::name(service)))
}

/// The answer to a service that asks for what it cannot have.
pub fn refused(service: &Object, causes: Vec<Cause>) -> Status {
    Status::invalid("", "Service", meta::name(service), &causes)
}

/// Gives a new service what it asks for.
pub fn create(allocators: &Allocators, service: &mut Object, dry_run: bool) -> Result<Allocation, Status> {
    let mut allocation = Allocation::of(&allocators.pools);
    let spec = service.at("spec");
    if !spec.text("clusterIP").is_empty() && spec.list("clusterIPs").is_empty() {
        // older clients know the one field alone
        let ips = json!([spec.text("clusterIP")]);
        set(service, "clusterIPs", ips);
    }
    families(allocators.cidr.family(), service, &Value::Null)?;
    address(allocators, service, dry_run, &mut allocation)?;
    let mut ports = node_ports::Operation::new(allocators, &mut allocation, dry_run);
    ports.create(service)?;
    Ok(allocation)
}

/// Gives a changed service what it asks for in addition.
pub fn update(allocators: &Allocators, new: &mut Object, old: &Object, dry_run: bool) -> Result<Allocation, Status> {
    let mut allocation = Allocation::of(&allocators.pools);
    keep_addresses(new, old);
    node_ports::keep(new, old);
    follow_first(new, old);
    families(allocators.cidr.family(), new, old)?;
    if is_external(old.at("spec")) {
        address(allocators, new, dry_run, &mut allocation)?;
    }
    let mut ports = node_ports::Operation::new(allocators, &mut allocation, dry_run);
    ports.update(new, old)?;
    let kept: HashSet<Item> = used(new).into_iter().collect();
    allocation.released = used(old).into_iter().filter(|item| !kept.contains(item)).collect();
    Ok(allocation)
}

fn set(service: &mut Object, field: &str, value: Value) {
    meta::field_mut(service, "spec").insert(field.to_owned(), value);
}

fn is_external(spec: &Value) -> bool {
    spec.text("type") == "ExternalName"
}

fn is_headless(spec: &Value) -> bool {
    spec.texts("clusterIPs").first() == Some(&"None")
}

fn cluster_ips(spec: &Value) -> Vec<String> {
    let (many, one) = (spec.texts("clusterIPs"), spec.text("clusterIP"));
    let ips = if many.is_empty() && !one.is_empty() { vec![one] } else { many };
    ips.into_iter().map(str::to_owned).collect()
}

/// Gives a changed service back the addresses that it had and does not name.
fn keep_addresses(service: &mut Object, old: &Object) {
    let was = old.at("spec");
    if is_external(service.at("spec")) || is_external(was) {
        return;
    }
    if service.at("spec").text("clusterIP").is_empty() && was.has("clusterIP") {
        set(service, "clusterIP", was.at("clusterIP").clone());
    }
    if service.at("spec").list("clusterIPs").is_empty() && !was.list("clusterIPs").is_empty() {
        set(service, "clusterIPs", was.at("clusterIPs").clone());
    }
}

/// Older clients know `clusterIP` alone: of a changed service, the list follows it.
fn follow_first(service: &mut Object, old: &Object) {
    let (spec, was) = (service.at("spec"), old.at("spec"));
    let (one, before) = (spec.text("clusterIP"), was.text("clusterIP"));
    if one == before {
        if spec.list("clusterIPs").is_empty() && !was.list("clusterIPs").is_empty() {
            set(service, "clusterIPs", was.at("clusterIPs").clone());
        }
    } else if spec.texts("clusterIPs") == was.texts("clusterIPs") {
        let follows = if one.is_empty() { Value::Null } else { json!([one]) };
        set(service, "clusterIPs", follows);
    }
}

/// Whether a changed service prefers two families as it did before and has what it had: nothing is to be done, whatever
/// the cluster has by now.
fn is_settled(spec: &Value, was: &Value) -> bool {
    let prefers = |policy: &Value| policy == "PreferDualStack";
    was.is_object()
        && prefers(spec.at("ipFamilyPolicy"))
        && spec.text("type") == was.text("type")
        && ["ClusterIP", "NodePort", "LoadBalancer"].contains(&spec.text("type"))
        && (was.at("ipFamilyPolicy").is_null() || prefers(was.at("ipFamilyPolicy")))
        && spec.texts("clusterIPs") == was.texts("clusterIPs")
        && spec.texts("ipFamilies") == was.texts("ipFamilies")
}

/// Sets the families and their policy where a service names none, and checks those that are named; `own`: the
/// cluster's family.
fn families(own: &str, service: &mut Object, old: &Object) -> Result<(), Status> {
    let was = old.at("spec");
    if is_external(service.at("spec")) || is_settled(service.at("spec"), was) {
        return Ok(());
    }
    if !service.at("spec").has("ipFamilyPolicy") {
        let policy = default_policy(service.at("spec"), was);
        set(service, "ipFamilyPolicy", policy);
    }
    let causes = cluster_ip_errors(service.at("spec"), was);
    if !causes.is_empty() {
        return Err(refused(service, causes));
    }
    let mut causes = Vec::new();
    policy_change(service, was, &mut causes);
    infer_families(own, service, &mut causes);
    if !causes.is_empty() {
        return Err(refused(service, causes));
    }
    configured(own, service)
}

fn default_policy(spec: &Value, was: &Value) -> Value {
    match was.at("ipFamilyPolicy") {
        Value::Null if is_unselective(spec) => "RequireDualStack".into(),
        Value::Null => "SingleStack".into(),
        policy => policy.clone(),
    }
}

/// Whether a headless service has no pods of its own to say which families there are.
fn is_unselective(spec: &Value) -> bool {
    spec.text("clusterIP") == "None" && spec.entries("selector").next().is_none()
}

/// The policy fits how many families and addresses there are, and were.
fn policy_change(service: &mut Object, was: &Value, causes: &mut Vec<Cause>) {
    let policy = service.at("spec").at("ipFamilyPolicy").clone();
    let mut wrong = |why: &str| causes.push(Cause::invalid(POLICY, &policy, why));
    let single = policy == "SingleStack";
    for (field, released) in [("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")] {
        let (now, before) = (service.at("spec").texts(field), was.texts(field));
        if single && was.is_object() && now == before && now.len() > 1 {
            let first = json!([now[0]]);
            set(service, field, first);
        } else if !single && now.len() < before.len() && !now.is_empty() {
            wrong(&format!("must be 'SingleStack' to release the secondary {released}"));
        }
    }
    for (field, several) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
        if single && service.at("spec").list(field).len() == 2 {
            wrong(&format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {several} are specified"));
        }
    }
}

/// Families that are not named follow from the addresses.
fn infer_families(own: &str, service: &mut Object, causes: &mut Vec<Cause>) {
    let spec = service.at("spec");
    let (ips, mut families) = (spec.texts("clusterIPs"), spec.list("ipFamilies").to_vec());
    let printed = spec.at("clusterIPs").clone();
    for (i, ip) in ips.iter().take_while(|ip| **ip != "None").enumerate() {
        let family = if ip.contains(':') { "IPv6" } else { "IPv4" };
        match i < families.len() {
            true => {}
            false if family == own => families.push(family.into()),
            false => {
                let why = format!("{family} is not configured on this cluster");
                causes.push(Cause::invalid(format!("spec.clusterIPs[{i}]"), &printed, &why));
            }
        }
    }
    if !families.is_empty() {
        set(service, "ipFamilies", families.into());
    }
}

/// What is asked for is what the cluster has, and what is not asked for is set.
fn configured(own: &str, service: &mut Object) -> Result<(), Status> {
    let spec = service.at("spec");
    let mut families = spec.texts("ipFamilies").into_iter().map(str::to_owned).collect::<Vec<_>>();
    let policy = spec.text("ipFamilyPolicy");
    if is_unselective(spec) {
        if families.is_empty() {
            families.push(own.to_owned());
        }
        if families.len() < 2 && policy != "SingleStack" {
            families.push(if families[0] == "IPv4" { "IPv6" } else { "IPv4" }.to_owned());
        }
        set(service, "ipFamilies", families.into());
        return Ok(());
    }
    let mut causes = Vec::new();
    if policy == "RequireDualStack" {
        let why = "this cluster is not configured for dual-stack services";
        causes.push(Cause::invalid(POLICY, &policy.into(), why));
    }
    for (i, family) in families.iter().enumerate().filter(|(_, family)| *family != own) {
        let why = "not configured on this cluster";
        causes.push(Cause::invalid(format!("spec.ipFamilies[{i}]"), &family.as_str().into(), why));
    }
    if !causes.is_empty() {
        return Err(refused(service, causes));
    }
    if families.is_empty() {
        set(service, "ipFamilies", json!([own]));
    }
    Ok(())
}

/// Takes the address that a service asks for, or any.
fn address(
    allocators: &Allocators,
    service: &mut Object,
    dry_run: bool,
    allocation: &mut Allocation,
) -> Result<(), Status> {
    let spec = service.at("spec");
    if is_external(spec) || is_headless(spec) || spec.list("ipFamilies").is_empty() {
        return Ok(());
    }
    let wanted = spec.texts("clusterIPs").first().copied().unwrap_or("").to_owned();
    let named = names::parse_ip(&wanted);
    let taken = match named {
        // what a dry run gets is no address that anyone has
        _ if dry_run && wanted.is_empty() => Ok(allocators.cidr.address(0)),
        _ if wanted.is_empty() => allocators.draw(),
        Some(ip) if dry_run => allocators.pools.lock().addresses.has(ip).then_some(ip).ok_or(Refused::OutOfRange),
        Some(ip) => allocators.pools.lock().addresses.take(ip).map(|()| ip),
        None => Err(Refused::OutOfRange),
    };
    let address = taken.map_err(|why| match (why, named) {
        (Refused::Taken, Some(address)) => self::taken(service, address),
        (Refused::OutOfRange, _) => out_of_range(allocators, service, &wanted, dry_run),
        _ => full(service),
    })?;
    if !dry_run {
        allocation.taken.push(Item::Address(address));
        allocation.drawn = wanted.is_empty();
    }
    if wanted.is_empty() {
        set_address(service, address);
    }
    Ok(())
}

fn out_of_range(allocators: &Allocators, service: &Object, wanted: &str, dry_run: bool) -> Status {
    let why = match dry_run {
        true => {
            format!(
                "the provided IP ({wanted}) is not in the valid range. The range of valid IPs is {}",
                allocators.cidr
            )
        }
        false => "the provided network does not match the current range".into(),
    };
    let why = format!("failed to allocate IP {wanted}: {why}");
    refused(service, vec![Cause::invalid("spec.clusterIPs", service.at("spec").at("clusterIPs"), &why)])
}

/// Gives a service its address.
pub fn set_address(service: &mut Object, address: IpAddr) {
    let ip = address.to_string();
    let spec = meta::field_mut(service, "spec");
    spec.insert("clusterIP".into(), ip.clone().into());
    spec.insert("clusterIPs".into(), json!([ip]));
}

/// Whether a service has a port of its own for health checks.
pub fn is_health_checked(service: &Object) -> bool {
    needs_health_check(service.at("spec"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_follow_from_what_is_given() {
        let check = |spec: Value, was: Value, want: Result<(&str, &[&str]), &[&str]>| {
            let (mut service, old) = (json!({"spec": spec}), json!({"spec": was}));
            let old = if was.is_null() { Value::Null } else { old };
            let got = families("IPv4", &mut service, &old).map_err(|status| {
                let causes = status.details["causes"].as_array().cloned().unwrap_or_default();
                causes.iter().map(|cause| cause["field"].as_str().unwrap_or("").to_owned()).collect::<Vec<_>>()
            });
            match want {
                Ok((policy, families)) => {
                    assert_eq!(got, Ok(()), "{spec}");
                    assert_eq!(service.at("spec").text("ipFamilyPolicy"), policy, "{spec}");
                    assert_eq!(service.at("spec").texts("ipFamilies"), families, "{spec}");
                }
                Err(fields) => assert_eq!(got, Err(fields.iter().map(|f| (*f).to_owned()).collect()), "{spec}"),
            }
        };
        let none = Value::Null;
        check(json!({"type": "ClusterIP"}), none.clone(), Ok(("SingleStack", &["IPv4"])));
        check(json!({"type": "ExternalName"}), none.clone(), Ok(("", &[])));
        let headless = json!({"clusterIP": "None", "clusterIPs": ["None"]});
        check(headless, none.clone(), Ok(("RequireDualStack", &["IPv4", "IPv6"])));
        let selects = json!({"clusterIP": "None", "clusterIPs": ["None"], "selector": {"a": "b"}});
        check(selects, none.clone(), Ok(("SingleStack", &["IPv4"])));
        // what is malformed is told alone, before what the cluster has not
        check(
            json!({"clusterIPs": ["x"], "ipFamilyPolicy": "RequireDualStack"}),
            none.clone(),
            Err(&["spec.clusterIPs", "spec.clusterIPs[0]"]),
        );
        check(json!({"ipFamilies": ["IPv4", "IPv4"]}), none.clone(), Err(&["spec.ipFamilies[1]"]));
        check(json!({"ipFamilies": ["IPv6"]}), none.clone(), Err(&["spec.ipFamilies[0]"]));
        check(json!({"clusterIP": "::1", "clusterIPs": ["::1"]}), none.clone(), Err(&["spec.clusterIPs[0]"]));
        check(json!({"ipFamilyPolicy": "RequireDualStack"}), none, Err(&["spec.ipFamilyPolicy"]));
        let both = json!({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack"});
        let fewer = json!({"ipFamilies": ["IPv4"], "ipFamilyPolicy": "PreferDualStack"});
        check(fewer, both.clone(), Err(&["spec.ipFamilyPolicy"]));
        check(json!({"ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}), both, Ok(("SingleStack", &["IPv4"])));
    }

    #[test]
    fn addresses_are_kept_until_they_are_changed() {
        let check = |new: Value, want: Value| {
            let old = json!({"spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]}});
            let mut service = json!({"spec": new});
            keep_addresses(&mut service, &old);
            follow_first(&mut service, &old);
            assert_eq!(service["spec"], want);
        };
        let kept = |kind: &str| json!({"type": kind, "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]});
        check(json!({"type": "ClusterIP"}), kept("ClusterIP"));
        check(json!({"type": "ExternalName"}), json!({"type": "ExternalName"}));
        let changed = json!({"type": "ClusterIP", "clusterIP": "10.0.0.2", "clusterIPs": ["10.0.0.1"]});
        check(changed, json!({"type": "ClusterIP", "clusterIP": "10.0.0.2", "clusterIPs": ["10.0.0.2"]}));
    }
}
