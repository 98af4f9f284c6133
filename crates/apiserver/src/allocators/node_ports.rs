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

/// The node ports of a service's ports; what another type left behind was never taken.
fn held(spec: &Value) -> HashSet<i64> {
    let ports = if is_typed(spec) { spec.list("ports") } else { &[] };
    ports.iter().map(number).filter(|n| *n != 0).collect()
}

/// The first node port that is named for each port.
fn named_by_port(ports: &[Value]) -> HashMap<i64, i64> {
    let mut named = HashMap::new();
    for port in ports.iter().filter(|port| number(port) != 0) {
        named.entry(port.int("port").unwrap_or(0)).or_insert(number(port));
    }
    named
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
    allocators: &'a Allocators,
    allocation: &'a mut Allocation,
    dry_run: Option<DryRun>,
}

/// What a dry run would have taken.
#[derive(Default)]
struct DryRun {
    named: HashSet<i64>,
    /// The greatest of these.
    last: Option<i64>,
    /// How many of these were drawn.
    drawn: usize,
}

impl DryRun {
    /// Whether the number is the first of its kind.
    fn name(&mut self, number: i64) -> bool {
        self.last = self.last.max(Some(number));
        self.named.insert(number)
    }

    /// A number, of at most `most`.
    fn draw(&mut self, most: usize) -> Result<i64, Refused> {
        if self.drawn >= most {
            return Err(Refused::Full);
        }
        self.drawn += 1;
        let next = self.last.map_or(DRY, |last| last.max(0)).saturating_add(1);
        self.name(next);
        Ok(next)
    }
}

impl<'a> Operation<'a> {
    /// Takes nothing yet.
    pub fn new(allocators: &'a Allocators, allocation: &'a mut Allocation, dry_run: bool) -> Self {
        Self { allocators, allocation, dry_run: dry_run.then(DryRun::default) }
    }

    /// Takes what a new service asks for. Ports with the same number share their node port.
    pub fn create(&mut self, service: &mut Object) -> Result<(), Status> {
        let spec = service.at("spec");
        let (any, mut given) = (draws(spec), HashMap::<i64, i64>::new());
        let mut ports = if is_typed(spec) { spec.list("ports").to_vec() } else { Vec::new() };
        let named = named_by_port(&ports);
        for i in 0..ports.len() {
            let (port, wanted) = (ports[i].int("port").unwrap_or(0), number(&ports[i]));
            if wanted == 0 && !any {
                continue;
            }
            let node_port = match given.get(&port).copied().filter(|n| *n != 0) {
                Some(shared) if wanted == 0 || wanted == shared => shared,
                Some(_) => self.take(service, i, wanted)?,
                None => match named.get(&port).copied() {
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
        let had = held(old.at("spec"));
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
        let result = match (&mut self.dry_run, number) {
            (Some(dry_run), number) => {
                let is_free = dry_run.name(wanted) && !number.is_some_and(|number| pool.has(number));
                if is_free { Ok(()) } else { Err(Refused::Taken) }
            }
            (None, Some(number)) => pool.take(number).inspect(|()| self.allocation.taken.push(Item::Port(number))),
            (None, None) => Err(Refused::OutOfRange),
        };
        result.map_err(|refused| self.why(refused))
    }

    fn draw(&mut self) -> Result<i64, String> {
        if let Some(dry_run) = &mut self.dry_run {
            return dry_run.draw(self.allocators.node_ports.len()).map_err(|refused| self.why(refused));
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
    fn only_types_that_have_ports_had_them() {
        let check = |kind: &str, want: &[i64]| {
            let spec = json!({"type": kind, "ports": [{"nodePort": 30001}, {}]});
            assert_eq!(held(&spec), want.iter().copied().collect(), "{kind}");
        };
        check("NodePort", &[30001]);
        check("LoadBalancer", &[30001]);
        check("ExternalName", &[]);
    }

    #[test]
    fn the_first_named_for_a_port_is_found() {
        let ports = [json!({"port": 1}), json!({"port": 1, "nodePort": 5}), json!({"port": 1, "nodePort": 6})];
        assert_eq!(named_by_port(&ports), HashMap::from([(1, 5)]));
    }

    #[test]
    fn a_dry_run_draws_what_follows() {
        let mut dry_run = DryRun::default();
        assert_eq!((dry_run.draw(3), dry_run.draw(3)), (Ok(DRY + 1), Ok(DRY + 2)));
        assert_eq!((dry_run.name(DRY + 1), dry_run.name(40_000), dry_run.name(7)), (false, true, true));
        assert_eq!((dry_run.draw(3), dry_run.draw(3)), (Ok(40_001), Err(Refused::Full)));
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
