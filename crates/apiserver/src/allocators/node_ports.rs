//! The node ports of services: of their ports, and of the health checks of load balancers.
//!
//! A dry run takes nothing: a port that another has is refused, one out of range is not, and what it draws begins at a
//! fixed number.

use super::pool::Refused;
use super::services::{FULL, is_health_checked, refused};
use super::{Allocation, Allocators, Item};
use api::{Cause, Object, Status};
use resources::field::{Fields, items_mut};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

/// The number before the first that a dry run draws.
const DRY: i64 = 32_768;

/// The node ports that a service holds.
pub fn used(service: &Object) -> Vec<u64> {
    let spec = service.at("spec");
    let ports = if is_typed(spec) { spec.list("ports") } else { &[] };
    let health = spec.int("healthCheckNodePort").filter(|_| is_health_checked(service));
    ports.iter().map(number).chain(health).filter(|p| *p > 0).filter_map(|p| u64::try_from(p).ok()).collect()
}

fn number(port: &Value) -> i64 {
    port.int("nodePort").unwrap_or(0)
}

/// Whether services of this type have node ports.
fn is_typed(spec: &Value) -> bool {
    ["NodePort", "LoadBalancer"].contains(&spec.text("type"))
}

/// Whether each port of a service gets one.
fn draws(spec: &Value) -> bool {
    spec.text("type") == "NodePort"
        || (spec.text("type") == "LoadBalancer" && spec.at("allocateLoadBalancerNodePorts") != &Value::Bool(false))
}

/// Gives a changed service back the node ports that it had and does not name: that of the port of the same name.
pub fn keep(service: &mut Object, old: &Object) {
    let was = old.at("spec");
    if draws(service.at("spec")) && draws(was) {
        let of = |spec: &Value| spec.list("ports").iter().map(number).filter(|n| *n != 0).collect::<HashSet<_>>();
        let (before, now) = (of(was), of(service.at("spec")));
        let by_name: HashMap<&str, i64> = was.list("ports").iter().map(|p| (p.text("name"), number(p))).collect();
        let ports = service.get_mut("spec").map(|spec| items_mut(spec, "ports")).into_iter().flatten();
        for port in ports.filter(|port| number(port) == 0) {
            let had = by_name.get(port.text("name")).copied().unwrap_or(0);
            if had != 0 && !(before.contains(&had) && now.contains(&had)) {
                port["nodePort"] = had.into();
            }
        }
    }
    let health = "healthCheckNodePort";
    if is_health_checked(service) && is_health_checked(old) && service.at("spec").int(health).unwrap_or(0) == 0 {
        service["spec"][health] = was.at(health).clone();
    }
}

/// The node ports that one write takes.
pub struct Operation<'a> {
    pub allocators: &'a Allocators,
    pub allocation: &'a mut Allocation,
    pub dry_run: bool,
    /// What a dry run would have taken.
    pub named: Vec<i64>,
}

impl Operation<'_> {
    /// Takes what a new service asks for. Ports with the same number share their node port.
    pub fn create(&mut self, service: &mut Object) -> Result<(), Status> {
        let spec = service.at("spec");
        let (any, mut given) = (draws(spec), HashMap::<i64, i64>::new());
        let mut ports = if is_typed(spec) { spec.list("ports").to_vec() } else { Vec::new() };
        for i in 0..ports.len() {
            let (port, wanted) = (ports[i].int("port").unwrap_or(0), number(&ports[i]));
            if wanted == 0 && !any {
                continue;
            }
            let same = |p: &&Value| p.int("port").unwrap_or(0) == port && number(p) != 0;
            let node_port = match given.get(&port).copied().filter(|n| *n != 0) {
                Some(shared) if wanted == 0 || wanted == shared => shared,
                Some(_) => self.take(service, i, wanted)?,
                None => match ports.iter().find(same).map(number) {
                    Some(named) => self.take(service, i, named)?,
                    None => self.draw_for_port()?,
                },
            };
            given.entry(port).or_insert(node_port);
            ports[i]["nodePort"] = node_port.into();
        }
        if !ports.is_empty() {
            service["spec"]["ports"] = ports.into();
        }
        if is_health_checked(service) { self.health(service) } else { Ok(()) }
    }

    /// Takes what a changed service asks for in addition.
    pub fn update(&mut self, service: &mut Object, old: &Object) -> Result<(), Status> {
        let spec = service.at("spec");
        let any = draws(spec);
        let had: HashSet<i64> = old.at("spec").list("ports").iter().map(number).filter(|n| *n != 0).collect();
        let (mut taken, mut seen) = (HashSet::new(), HashSet::new());
        let mut ports = if is_typed(spec) { spec.list("ports").to_vec() } else { Vec::new() };
        for (i, port) in ports.iter_mut().enumerate().filter(|(_, port)| any || number(port) != 0) {
            let protocol = port.text("protocol").to_owned();
            let node_port = match number(port) {
                0 => self.draw_for_port()?,
                wanted if had.contains(&wanted) || !taken.insert(wanted) => wanted,
                wanted => self.take(service, i, wanted)?,
            };
            port["nodePort"] = node_port.into();
            if !seen.insert((protocol.clone(), node_port)) {
                return Err(Status::new(500, "", format!("duplicate nodePort: {{{protocol} {node_port}}}")));
            }
        }
        if !ports.is_empty() {
            service["spec"]["ports"] = ports.into();
        }
        if is_health_checked(service) && !is_health_checked(old) { self.health(service) } else { Ok(()) }
    }

    fn health(&mut self, service: &mut Object) -> Result<(), Status> {
        let wanted = service.at("spec").int("healthCheckNodePort").unwrap_or(0);
        let asked = format!("failed to allocate requested HealthCheck NodePort {wanted}");
        let port = match wanted {
            0 => self.draw().map_err(|why| format!("failed to allocate a HealthCheck NodePort 0: {why}")),
            wanted => self.allocate(wanted).map(|()| wanted).map_err(|why| format!("{asked}: {why}")),
        };
        service["spec"]["healthCheckNodePort"] = json!(port.map_err(Status::internal)?);
        Ok(())
    }

    fn take(&mut self, service: &Object, i: usize, wanted: i64) -> Result<i64, Status> {
        let wrong = |why: String| {
            let path = format!("spec.ports[{i}].nodePort");
            refused(service, vec![Cause::invalid(path, &json!(wanted), &why)])
        };
        self.allocate(wanted).map(|()| wanted).map_err(wrong)
    }

    fn draw_for_port(&mut self) -> Result<i64, Status> {
        self.draw().map_err(|why| Status::internal(format!("failed to allocate a nodePort: {why}")))
    }

    fn allocate(&mut self, wanted: i64) -> Result<(), String> {
        let (pool, number) = (&mut self.allocators.pools.lock().ports, u64::try_from(wanted).ok());
        let result = match number {
            number if self.dry_run => {
                let is_taken = number.is_some_and(|number| pool.has(number)) || self.named.contains(&wanted);
                self.named.push(wanted);
                if is_taken { Err(Refused::Taken) } else { Ok(()) }
            }
            Some(number) => pool.take(number).inspect(|()| self.allocation.taken.push(Item::Port(number))),
            None => Err(Refused::OutOfRange),
        };
        result.map_err(|refused| self.why(refused))
    }

    fn draw(&mut self) -> Result<i64, String> {
        if self.dry_run {
            let last = self.named.iter().copied().max().map_or(DRY, |last| last.max(0));
            self.named.push(last + 1);
            return Ok(last + 1);
        }
        let drawn = self.allocators.pools.lock().ports.take_any();
        let port = drawn.map_err(|refused| self.why(refused))?;
        self.allocation.taken.push(Item::Port(port));
        Ok(i64::try_from(port).unwrap_or(i64::MAX))
    }

    fn why(&self, refused: Refused) -> String {
        let (first, last) = (self.allocators.node_ports.start(), self.allocators.node_ports.end());
        match refused {
            Refused::Taken => "provided port is already allocated".into(),
            Refused::OutOfRange => {
                format!("provided port is not in the valid range. The range of valid ports is {first}-{last}")
            }
            Refused::Full => FULL.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_held_by_types_that_have_them() {
        let check = |spec: Value, want: &[u64]| assert_eq!(used(&json!({"spec": spec})), want);
        let ports = json!([{"nodePort": 30001}, {"nodePort": 0}, {}]);
        check(json!({"type": "NodePort", "ports": ports}), &[30001]);
        check(json!({"type": "ClusterIP", "ports": ports}), &[]);
        let local = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30002});
        check(local, &[30002]);
    }

    #[test]
    fn a_port_keeps_what_its_name_had() {
        let check = |new: Value, want: Value| {
            let old = json!({"spec": {"type": "NodePort", "ports": [{"name": "a", "nodePort": 1}, {"name": "b", "nodePort": 2}]}});
            let mut service = json!({"spec": {"type": "NodePort", "ports": new}});
            keep(&mut service, &old);
            assert_eq!(service["spec"]["ports"], want);
        };
        check(json!([{"name": "b"}]), json!([{"name": "b", "nodePort": 2}]));
        check(json!([{"name": "c"}]), json!([{"name": "c"}]));
        let taken = json!([{"name": "b"}, {"name": "c", "nodePort": 2}]);
        check(taken.clone(), taken);
    }
}
