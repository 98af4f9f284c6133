//! What services get: cluster IPs, IP families, node ports.

use super::pool::Refused;
use super::{Allocation, Allocators, Item};
use api::{Cause, Object, Status, meta};
use serde_json::{Value, json};
use std::net::IpAddr;

/// Everything a service uses.
pub fn used(allocators: &Allocators, service: &Object) -> Vec<Item> {
    let addresses = cluster_ips(service).into_iter().filter_map(|ip| offset(allocators, &ip)).map(Item::Address);
    addresses.chain(node_ports(service).into_iter().map(Item::Port)).collect()
}

/// Gives a new service what it asks for.
pub fn create(allocators: &Allocators, service: &mut Object) -> Result<Allocation, Status> {
    allocate(allocators, service, &Value::Null)
}

/// Gives a changed service what it asks for in addition.
pub fn update(allocators: &Allocators, new: &mut Object, old: &Object) -> Result<Allocation, Status> {
    let mut allocation = allocate(allocators, new, old)?;
    let kept = used(allocators, new);
    allocation.released = used(allocators, old).into_iter().filter(|item| !kept.contains(item)).collect();
    Ok(allocation)
}

fn allocate(allocators: &Allocators, service: &mut Object, old: &Object) -> Result<Allocation, Status> {
    let mut allocation = Allocation::of(&allocators.pools);
    let mut causes = Vec::new();
    set_families(allocators, service);
    address(allocators, service, old, &mut allocation, &mut causes);
    ports(allocators, service, old, &mut allocation, &mut causes);
    if causes.is_empty() {
        return Ok(allocation);
    }
    Err(Status::invalid("", "Service", meta::name(service), &causes))
}

fn text<'a>(service: &'a Object, field: &str) -> &'a str {
    service.get("spec").and_then(|s| s.get(field)).and_then(Value::as_str).unwrap_or("")
}

fn cluster_ips(service: &Object) -> Vec<String> {
    let list = service.pointer("/spec/clusterIPs").and_then(Value::as_array);
    let mut out: Vec<String> = list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    if out.is_empty() && !text(service, "clusterIP").is_empty() {
        out.push(text(service, "clusterIP").to_owned());
    }
    out
}

fn node_ports(service: &Object) -> Vec<u64> {
    let list = service.pointer("/spec/ports").and_then(Value::as_array);
    let ports = list.into_iter().flatten().map(|port| port.get("nodePort"));
    let health = service.pointer("/spec/healthCheckNodePort");
    ports.chain([health]).flatten().filter_map(Value::as_u64).filter(|p| *p > 0).collect()
}

fn offset(allocators: &Allocators, ip: &str) -> Option<u64> {
    allocators.cidr.offset(ip.parse::<IpAddr>().ok()?)
}

/// The families of a service that names none.
fn set_families(allocators: &Allocators, service: &mut Object) {
    let external = text(service, "type") == "ExternalName";
    let headless = text(service, "clusterIP") == "None";
    let selects = service.pointer("/spec/selector").and_then(Value::as_object).is_some_and(|s| !s.is_empty());
    let spec = meta::field_mut(service, "spec");
    if external {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            spec.remove(field);
        }
        return;
    }
    let family = allocators.cidr.family();
    let unset = |value: Option<&Value>| value.is_none_or(|v| v.is_null() || v.as_array().is_some_and(Vec::is_empty));
    let unselective = headless && !selects;
    if unset(spec.get("ipFamilyPolicy")) {
        let policy = if unselective && unset(spec.get("ipFamilies")) { "RequireDualStack" } else { "SingleStack" };
        spec.insert("ipFamilyPolicy".into(), policy.into());
    }
    if unset(spec.get("ipFamilies")) {
        let both = unselective && spec.get("ipFamilyPolicy").and_then(Value::as_str) == Some("RequireDualStack");
        let other = if family == "IPv4" { "IPv6" } else { "IPv4" };
        spec.insert("ipFamilies".into(), if both { json!([family, other]) } else { json!([family]) });
    }
}

fn address(
    allocators: &Allocators,
    service: &mut Object,
    old: &Object,
    allocation: &mut Allocation,
    causes: &mut Vec<Cause>,
) {
    if text(service, "type") == "ExternalName" {
        return;
    }
    let (wanted, had) = (cluster_ips(service), cluster_ips(old));
    let wanted = wanted.first().map_or("", String::as_str);
    if wanted == "None" {
        let spec = meta::field_mut(service, "spec");
        spec.insert("clusterIPs".into(), json!(["None"]));
        return;
    }
    if !wanted.is_empty() && had.iter().any(|ip| ip == wanted) {
        return;
    }
    let taken = {
        let mut pools = allocators.pools.lock();
        match wanted {
            "" => pools.addresses.take_any(),
            ip => match offset(allocators, ip) {
                Some(offset) => pools.addresses.take(offset).map(|()| offset),
                None => Err(Refused::OutOfRange),
            },
        }
    };
    match taken {
        Ok(offset) => {
            allocation.taken.push(Item::Address(offset));
            let ip = allocators.cidr.address(offset).to_string();
            let spec = meta::field_mut(service, "spec");
            spec.insert("clusterIP".into(), ip.clone().into());
            spec.insert("clusterIPs".into(), json!([ip]));
        }
        Err(refused) => causes.push(address_cause(allocators, wanted, refused)),
    }
}

fn address_cause(allocators: &Allocators, wanted: &str, refused: Refused) -> Cause {
    let cidr = &allocators.cidr;
    let why = match refused {
        Refused::Taken => format!("failed to allocate IP {wanted}: provided IP is already allocated"),
        Refused::OutOfRange => format!(
            "failed to allocate IP {wanted}: the provided network does not match the current range: \
             provided IP is not in the valid range. The range of valid IPs is {cidr}"
        ),
        Refused::Full => "failed to allocate a serviceIP: range is full".into(),
    };
    Cause::invalid("spec.clusterIPs", &json!([wanted]), &why)
}

fn needs_node_ports(service: &Object) -> bool {
    match text(service, "type") {
        "NodePort" => true,
        "LoadBalancer" => service.pointer("/spec/allocateLoadBalancerNodePorts") != Some(&Value::Bool(false)),
        _ => false,
    }
}

fn ports(
    allocators: &Allocators,
    service: &mut Object,
    old: &Object,
    allocation: &mut Allocation,
    causes: &mut Vec<Cause>,
) {
    let (any, had) = (needs_node_ports(service), node_ports(old));
    let typed = matches!(text(service, "type"), "NodePort" | "LoadBalancer");
    let health = text(service, "type") == "LoadBalancer" && text(service, "externalTrafficPolicy") == "Local";
    // One node port may serve several protocols of one service.
    let mut own: Vec<(u64, u64, String)> = Vec::new();
    let spec = meta::field_mut(service, "spec");
    let list = spec.get_mut("ports").and_then(Value::as_array_mut);
    for (at, port) in list.into_iter().flatten().enumerate() {
        if !typed {
            continue;
        }
        let number = port.get("port").and_then(Value::as_u64).unwrap_or(0);
        let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP").to_owned();
        let wanted = port.get("nodePort").and_then(Value::as_u64).unwrap_or(0);
        let shared = own.iter().find(|(p, _, other)| *p == number && *other != protocol).map(|(_, n, _)| *n);
        let node_port = match (wanted, shared) {
            (0, _) if !any => continue,
            (0, Some(shared)) => Ok(shared),
            (0, None) => take_any_port(allocators, allocation),
            (wanted, _) if had.contains(&wanted) || own.iter().any(|(_, n, _)| *n == wanted) => Ok(wanted),
            (wanted, _) => take_port(allocators, allocation, wanted),
        };
        match node_port {
            Ok(node_port) => {
                own.push((number, node_port, protocol));
                port["nodePort"] = node_port.into();
            }
            Err(refused) => causes.push(port_cause(allocators, &format!("spec.ports[{at}].nodePort"), wanted, refused)),
        }
    }
    if health {
        health_port(allocators, spec, &had, allocation, causes);
    }
}

fn health_port(
    allocators: &Allocators,
    spec: &mut serde_json::Map<String, Value>,
    had: &[u64],
    allocation: &mut Allocation,
    causes: &mut Vec<Cause>,
) {
    let wanted = spec.get("healthCheckNodePort").and_then(Value::as_u64).unwrap_or(0);
    let taken = match wanted {
        0 => take_any_port(allocators, allocation),
        wanted if had.contains(&wanted) => return,
        wanted => take_port(allocators, allocation, wanted),
    };
    match taken {
        Ok(port) => drop(spec.insert("healthCheckNodePort".into(), port.into())),
        Err(refused) => causes.push(port_cause(allocators, "spec.healthCheckNodePort", wanted, refused)),
    }
}

fn take_any_port(allocators: &Allocators, allocation: &mut Allocation) -> Result<u64, Refused> {
    let port = allocators.pools.lock().ports.take_any()?;
    allocation.taken.push(Item::Port(port));
    Ok(port)
}

fn take_port(allocators: &Allocators, allocation: &mut Allocation, port: u64) -> Result<u64, Refused> {
    allocators.pools.lock().ports.take(port)?;
    allocation.taken.push(Item::Port(port));
    Ok(port)
}

fn port_cause(allocators: &Allocators, path: &str, wanted: u64, refused: Refused) -> Cause {
    let (first, last) = (allocators.node_ports.start(), allocators.node_ports.end());
    let why = match refused {
        Refused::Taken => "provided port is already allocated".into(),
        Refused::OutOfRange => {
            format!("provided port is not in the valid range. The range of valid ports is {first}-{last}")
        }
        Refused::Full => "failed to allocate a nodePort: range is full".into(),
    };
    Cause::invalid(path, &json!(wanted), &why)
}
