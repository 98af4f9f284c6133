//! What services get: cluster IPs, IP families, node ports.

use super::pool::Refused;
use super::{Allocation, Allocators, Item};
use api::{Cause, Object, Status, meta};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

const FULL: &str = "range is full";
const PORT_TAKEN: &str = "provided port is already allocated";

/// Everything a service uses.
pub fn used(service: &Object) -> Vec<Item> {
    addresses(service).map(Item::Address).chain(node_ports(service).into_iter().map(Item::Port)).collect()
}

/// The cluster IPs of a service; none of one that is headless.
pub fn addresses(service: &Object) -> impl Iterator<Item = IpAddr> {
    cluster_ips(service).into_iter().filter_map(|ip| ip.parse().ok())
}

/// The error of a service whose address another has.
pub fn taken(service: &Object, address: IpAddr) -> Status {
    let cause = taken_cause(&address.to_string());
    Status::invalid("", "Service", meta::name(service), &[cause])
}

/// The error of a service that gets no address.
pub fn full(service: &Object) -> Status {
    Status::internal(format!("failed to allocate a serviceIP for Service {:?}: {FULL}", meta::name(service)))
}

fn taken_cause(address: &str) -> Cause {
    let why = format!("failed to allocate IP {address}: provided IP is already allocated");
    Cause::invalid("spec.clusterIPs", &json!([address]), &why)
}

/// Gives a new service what it asks for.
pub fn create(allocators: &Allocators, service: &mut Object, dry_run: bool) -> Result<Allocation, Status> {
    allocate(allocators, service, &Value::Null, dry_run)
}

/// Gives a changed service what it asks for in addition.
pub fn update(allocators: &Allocators, new: &mut Object, old: &Object, dry_run: bool) -> Result<Allocation, Status> {
    let mut allocation = allocate(allocators, new, old, dry_run)?;
    let kept: HashSet<Item> = used(new).into_iter().collect();
    allocation.released = used(old).into_iter().filter(|item| !kept.contains(item)).collect();
    Ok(allocation)
}

fn allocate(allocators: &Allocators, service: &mut Object, old: &Object, dry_run: bool) -> Result<Allocation, Status> {
    keep(service, old);
    let mut allocation = Allocation::of(&allocators.pools);
    let mut causes = families(allocators, service, old);
    if causes.is_empty() {
        address(allocators, service, old, dry_run, &mut allocation, &mut causes)?;
        ports(allocators, service, old, &mut allocation, &mut causes)?;
    }
    if dry_run {
        // A dry run takes nothing from anyone: an address in use is no error, nor is a port out of range.
        let kept = |c: &Cause| match c.field.as_str() {
            "spec.ipFamilyPolicy" => true,
            "spec.clusterIPs" => c.message.contains("not in the valid range"),
            _ => c.message.ends_with(PORT_TAKEN),
        };
        causes.retain(kept);
    }
    if causes.is_empty() {
        return Ok(allocation);
    }
    Err(Status::invalid("", "Service", meta::name(service), &causes))
}

/// Gives a changed service back what it had been given and does not name.
fn keep(service: &mut Object, old: &Object) {
    let addressed = |s: &Object| s.is_object() && text(s, "type") != "ExternalName";
    if addressed(service) && addressed(old) && text(service, "clusterIP").is_empty() && cluster_ips(service).is_empty()
    {
        let spec = meta::field_mut(service, "spec");
        for field in ["clusterIP", "clusterIPs"] {
            if let Some(value) = old.pointer("/spec").and_then(|s| s.get(field)) {
                spec.insert(field.into(), value.clone());
            }
        }
    }
    let ported = |s: &Object| matches!(text(s, "type"), "NodePort" | "LoadBalancer");
    if !ported(service) || !ported(old) {
        return;
    }
    let list = |s: &Object| s.pointer("/spec/ports").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut used: HashSet<u64> = node_ports(service).into_iter().collect();
    let which = |port: &Value| {
        (port.get("port").and_then(Value::as_u64), port.get("protocol").and_then(Value::as_str).map(str::to_owned))
    };
    let mut before: HashMap<_, u64> = HashMap::new();
    for port in list(old) {
        before.entry(which(&port)).or_insert_with(|| port.get("nodePort").and_then(Value::as_u64).unwrap_or(0));
    }
    let ports = meta::field_mut(service, "spec").get_mut("ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten().filter(|p| p.get("nodePort").and_then(Value::as_u64).unwrap_or(0) == 0) {
        let had = before.get(&which(port)).copied().unwrap_or(0);
        if had != 0 && used.insert(had) {
            port["nodePort"] = had.into();
        }
    }
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

/// Sets the families of a service that names none, and checks those that are named.
fn families(allocators: &Allocators, service: &mut Object, old: &Object) -> Vec<Cause> {
    let external = text(service, "type") == "ExternalName";
    let headless = text(service, "clusterIP") == "None";
    let selects = service.pointer("/spec/selector").and_then(Value::as_object).is_some_and(|s| !s.is_empty());
    let changed = text(old, "type") != "ExternalName" && old.is_object();
    let spec = meta::field_mut(service, "spec");
    if external {
        // A service that becomes external loses what it had; a new one must not ask for it.
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"].into_iter().filter(|_| changed) {
            spec.remove(field);
        }
        if let (Some(ip), None) = (spec.get("clusterIP").cloned().filter(|ip| *ip != ""), spec.get("clusterIPs")) {
            spec.insert("clusterIPs".into(), json!([ip]));
        }
        return Vec::new();
    }
    let family = allocators.cidr.family();
    let unset = |value: Option<&Value>| value.is_none_or(|v| v.is_null() || v.as_array().is_some_and(Vec::is_empty));
    let unselective = headless && !selects;
    let named = spec.get("ipFamilies").and_then(Value::as_array).map_or(0, Vec::len);
    let policy = spec.get("ipFamilyPolicy").and_then(Value::as_str).unwrap_or("").to_owned();
    if policy == "RequireDualStack" && !unselective {
        let why = "this cluster is not configured for dual-stack services";
        return vec![Cause::invalid("spec.ipFamilyPolicy", &json!(policy), why)];
    }
    if policy == "SingleStack" && named > 1 {
        let why = "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified";
        return vec![Cause::invalid("spec.ipFamilyPolicy", &json!(policy), why)];
    }
    if spec.get("ipFamilyPolicy").is_none_or(Value::is_null) {
        let policy = if unselective && named == 0 { "RequireDualStack" } else { "SingleStack" };
        spec.insert("ipFamilyPolicy".into(), policy.into());
    }
    if unset(spec.get("ipFamilies")) {
        let both = unselective && spec.get("ipFamilyPolicy").and_then(Value::as_str) == Some("RequireDualStack");
        let other = if family == "IPv4" { "IPv6" } else { "IPv4" };
        spec.insert("ipFamilies".into(), if both { json!([family, other]) } else { json!([family]) });
    }
    Vec::new()
}

fn address(
    allocators: &Allocators,
    service: &mut Object,
    old: &Object,
    dry_run: bool,
    allocation: &mut Allocation,
    causes: &mut Vec<Cause>,
) -> Result<(), Status> {
    if text(service, "type") == "ExternalName" {
        return Ok(());
    }
    sync_first(service, old);
    let (wanted, had) = (cluster_ips(service), cluster_ips(old));
    let single = text(service, "clusterIP");
    // What does not fit together is for validation to refuse.
    let malformed = |ip: &String| ip.parse::<IpAddr>().is_err();
    if wanted.iter().any(malformed) || (!single.is_empty() && wanted.first().is_none_or(|ip| ip != single)) {
        return Ok(());
    }
    let wanted = wanted.first().map_or("", String::as_str);
    // An address that a service has may not change: validation says so.
    if !wanted.is_empty() && had.first().is_some_and(|ip| ip == wanted || !ip.is_empty()) {
        return Ok(());
    }
    let taken = match wanted {
        "" => allocators.draw(),
        ip => match ip.parse() {
            Ok(address) => allocators.pools.lock().addresses.take(address).map(|()| address),
            Err(_) => Err(Refused::OutOfRange),
        },
    };
    match taken {
        Ok(address) => {
            allocation.taken.push(Item::Address(address));
            allocation.drawn = wanted.is_empty();
            set_address(service, address);
        }
        Err(Refused::Full) => return Err(full(service)),
        Err(refused) => {
            causes.push(address_cause(allocators, wanted, refused, dry_run));
            if dry_run && refused == Refused::Taken {
                let ip = json!(wanted);
                meta::field_mut(service, "spec").insert("clusterIPs".into(), json!([ip]));
            }
        }
    }
    Ok(())
}

/// Gives a service its address.
pub fn set_address(service: &mut Object, address: IpAddr) {
    let ip = address.to_string();
    let spec = meta::field_mut(service, "spec");
    spec.insert("clusterIP".into(), ip.clone().into());
    spec.insert("clusterIPs".into(), json!([ip]));
}

/// Older clients know `clusterIP` alone: the list follows it.
fn sync_first(service: &mut Object, old: &Object) {
    let single = text(service, "clusterIP").to_owned();
    let old_single = text(old, "clusterIP").to_owned();
    let spec = meta::field_mut(service, "spec");
    let list = spec.get("clusterIPs").and_then(Value::as_array).cloned().unwrap_or_default();
    let same_list = old.pointer("/spec/clusterIPs").and_then(Value::as_array).is_some_and(|l| *l == list);
    if list.is_empty() && !single.is_empty() || (same_list && single != old_single && !single.is_empty()) {
        spec.insert("clusterIPs".into(), json!([single]));
    } else if same_list && single.is_empty() && !old_single.is_empty() {
        // Left out by a client that sent the rest back: nothing is meant to change.
        spec.insert("clusterIP".into(), old_single.into());
    }
}

fn address_cause(allocators: &Allocators, wanted: &str, refused: Refused, dry_run: bool) -> Cause {
    let cidr = &allocators.cidr;
    let why = match refused {
        Refused::Taken => return taken_cause(wanted),
        Refused::OutOfRange if dry_run => format!(
            "failed to allocate IP {wanted}: the provided IP ({wanted}) is not in the valid range. \
             The range of valid IPs is {cidr}"
        ),
        Refused::OutOfRange => {
            format!("failed to allocate IP {wanted}: the provided network does not match the current range")
        }
        Refused::Full => FULL.into(),
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
) -> Result<(), Status> {
    let (any, had) = (needs_node_ports(service), node_ports(old).into_iter().collect::<HashSet<_>>());
    let typed = matches!(text(service, "type"), "NodePort" | "LoadBalancer");
    let is_new = !old.is_object();
    let health = text(service, "type") == "LoadBalancer" && text(service, "externalTrafficPolicy") == "Local";
    let mut own = Own::default();
    let spec = meta::field_mut(service, "spec");
    let list = spec.get_mut("ports").and_then(Value::as_array_mut);
    for (at, port) in list.into_iter().flatten().enumerate() {
        if !typed {
            continue;
        }
        let number = port.get("port").and_then(Value::as_u64).unwrap_or(0);
        let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP").to_owned();
        let wanted = port.get("nodePort").and_then(Value::as_u64).unwrap_or(0);
        let node_port = match (wanted, own.shared(number, &protocol)) {
            (0, _) if !any => continue,
            (0, Some(shared)) => Ok(shared),
            (0, None) => take_any_port(allocators, allocation),
            (wanted, _) if had.contains(&wanted) => Ok(wanted),
            // A new service may name it again for the same port alone; of a changed one, validation judges.
            (wanted, _) if own.names(wanted, is_new.then_some(number)) => Ok(wanted),
            (wanted, _) => take_port(allocators, allocation, wanted),
        };
        match node_port {
            Ok(node_port) => {
                own.add(number, node_port, protocol);
                port["nodePort"] = node_port.into();
            }
            Err(Refused::Full) => return Err(Status::internal(format!("failed to allocate a nodePort: {FULL}"))),
            Err(refused) => causes.push(port_cause(allocators, &format!("spec.ports[{at}].nodePort"), wanted, refused)),
        }
    }
    if health {
        health_port(allocators, spec, &had, allocation, causes)?;
    }
    Ok(())
}

/// The node ports that a service has been given so far.
#[derive(Default)]
struct Own {
    /// Of each port the first two with different protocols: one of them is another's than whoever asks.
    by_port: HashMap<u64, Vec<(String, u64)>>,
    given: HashSet<u64>,
    given_to: HashSet<(u64, u64)>,
}

impl Own {
    fn add(&mut self, port: u64, node_port: u64, protocol: String) {
        self.given.insert(node_port);
        self.given_to.insert((node_port, port));
        let first = self.by_port.entry(port).or_default();
        if first.len() < 2 && first.iter().all(|(other, _)| *other != protocol) {
            first.push((protocol, node_port));
        }
    }

    /// The node port of the same port for another protocol, which this one shares.
    fn shared(&self, port: u64, protocol: &str) -> Option<u64> {
        self.by_port.get(&port)?.iter().find(|(other, _)| other != protocol).map(|(_, node_port)| *node_port)
    }

    /// Whether a node port was given before, to a certain port or to any.
    fn names(&self, node_port: u64, port: Option<u64>) -> bool {
        port.map_or_else(|| self.given.contains(&node_port), |port| self.given_to.contains(&(node_port, port)))
    }
}

fn health_port(
    allocators: &Allocators,
    spec: &mut serde_json::Map<String, Value>,
    had: &HashSet<u64>,
    allocation: &mut Allocation,
    causes: &mut Vec<Cause>,
) -> Result<(), Status> {
    let wanted = spec.get("healthCheckNodePort").and_then(Value::as_u64).unwrap_or(0);
    let taken = match wanted {
        0 => take_any_port(allocators, allocation),
        wanted if had.contains(&wanted) => return Ok(()),
        wanted => take_port(allocators, allocation, wanted),
    };
    match taken {
        Ok(port) => drop(spec.insert("healthCheckNodePort".into(), port.into())),
        Err(Refused::Full) => {
            return Err(Status::internal(format!("failed to allocate a HealthCheck NodePort {wanted}: {FULL}")));
        }
        Err(refused) => causes.push(port_cause(allocators, "spec.healthCheckNodePort", wanted, refused)),
    }
    Ok(())
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
        Refused::Taken => PORT_TAKEN.into(),
        Refused::OutOfRange => {
            format!("provided port is not in the valid range. The range of valid ports is {first}-{last}")
        }
        Refused::Full => FULL.into(),
    };
    Cause::invalid(path, &json!(wanted), &why)
}
