//! What one service needs in the table: a pure function of the service and its slices.

use crate::endpoints::{self, Endpoint, Endpoints};
use crate::rules;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use net::nft::{Element, Expr, Set, Verdict, concat};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// Objects of the table that belong to one service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Chains with their rules.
    pub(crate) chains: Vec<(String, Vec<Vec<Expr>>)>,
    /// Sets for session affinity.
    pub(crate) sets: Vec<Set>,
    /// Elements of the maps and sets of [`rules`].
    pub(crate) elements: Vec<(&'static str, Element)>,
    /// Where UDP goes, to forget flows that go elsewhere.
    pub(crate) udp: Vec<Udp>,
    /// Port of the health check and number of local endpoints.
    pub(crate) health: Option<(u16, usize)>,
}

/// The endpoints a UDP address and port leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Udp {
    /// Address; `None` for a node port.
    pub ip: Option<Ipv4Addr>,
    pub port: u16,
    pub endpoints: Vec<(Ipv4Addr, u16)>,
}

const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
const AFFINITY_DEFAULT: u64 = 10800;

/// Plans a service; headless, external-name and foreign ones need nothing.
pub fn plan(service: &Service, slices: &[Arc<EndpointSlice>], node: &str, cluster_cidr: &net::Cidr) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &service.spec else { return plan };
    let foreign = service.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(PROXY_NAME));
    let Some(cluster_ip) = cluster_ip(spec).filter(|_| !foreign) else { return plan };
    plan.elements.push((rules::CLUSTER_IPS, Element::key(cluster_ip.octets().to_vec())));
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    let owner = format!("{}/{}", name(&service.metadata.namespace), name(&service.metadata.name));
    for port in spec.ports.iter().flatten() {
        let Some(target) = Target::new(&owner, service, spec, port, cluster_ip) else { continue };
        let endpoints = endpoints::choose(slices, &name(&port.name), target.protocol_name, node);
        target.plan(&endpoints, cluster_cidr, &mut plan);
        if let Some(check) = spec.health_check_node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0)
            && target.external_local
        {
            plan.health = Some((check, plan.health.map_or(0, |(_, n)| n).max(endpoints.local.len())));
        }
    }
    plan
}

fn cluster_ip(spec: &ServiceSpec) -> Option<Ipv4Addr> {
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    all.filter_map(|ip| ip.parse().ok()).next()
}

/// One port of a service.
struct Target<'a> {
    /// `namespace/name/tcp/http`
    id: String,
    protocol: u8,
    protocol_name: &'static str,
    port: u16,
    node_port: u16,
    cluster_ip: Ipv4Addr,
    /// External and load balancer addresses.
    external: Vec<Ipv4Addr>,
    load_balancer: Vec<Ipv4Addr>,
    source_ranges: &'a [String],
    internal_local: bool,
    external_local: bool,
    affinity: Option<Duration>,
}

impl<'a> Target<'a> {
    fn new(
        owner: &str,
        service: &Service,
        spec: &'a ServiceSpec,
        port: &ServicePort,
        cluster_ip: Ipv4Addr,
    ) -> Option<Self> {
        let (protocol, protocol_name) = match port.protocol.as_deref().unwrap_or("TCP") {
            "TCP" => (6, "TCP"),
            "UDP" => (17, "UDP"),
            "SCTP" => (132, "SCTP"),
            _ => return None,
        };
        let number = u16::try_from(port.port).ok()?;
        let label = port.name.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| number.to_string());
        let exposed = matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"));
        let parse = |ips: Option<&Vec<String>>| {
            ips.into_iter().flatten().filter_map(|ip| ip.parse().ok()).collect::<Vec<Ipv4Addr>>()
        };
        let external = parse(spec.external_ips.as_ref());
        let load_balancer = load_balancer_ips(service);
        let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
            let seconds = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref()?.timeout_seconds);
            Duration::from_secs(
                seconds.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0).unwrap_or(AFFINITY_DEFAULT),
            )
        });
        let reachable = exposed || !external.is_empty();
        Some(Target {
            id: format!("{owner}/{}/{label}", protocol_name.to_lowercase()),
            protocol,
            protocol_name,
            port: number,
            node_port: port.node_port.filter(|_| exposed).and_then(|p| u16::try_from(p).ok()).unwrap_or(0),
            cluster_ip,
            external,
            load_balancer,
            source_ranges: spec.load_balancer_source_ranges.as_deref().unwrap_or_default(),
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local: reachable && spec.external_traffic_policy.as_deref() == Some("Local"),
            affinity,
        })
    }

    fn plan(&self, endpoints: &Endpoints, cluster_cidr: &net::Cidr, plan: &mut Plan) {
        let (service, local, external) =
            (format!("svc-{}", self.id), format!("local-{}", self.id), format!("ext-{}", self.id));
        let mut all: Vec<&Endpoint> = endpoints.cluster.iter().chain(&endpoints.local).collect();
        all.sort();
        all.dedup();
        let internal = if self.internal_local { (&local, &endpoints.local) } else { (&service, &endpoints.cluster) };
        self.lead(plan, Some(self.cluster_ip), internal.0, internal.1.is_empty(), &all);
        if self.has_external() {
            let usable = if self.external_local { &endpoints.local } else { &endpoints.cluster };
            // With policy Local, pods and the node itself still reach every endpoint.
            let empty = endpoints.cluster.is_empty() && usable.is_empty();
            for ip in self.external.iter().chain(&self.load_balancer) {
                self.lead(plan, Some(*ip), &external, empty, &all);
            }
            if self.node_port != 0 {
                self.lead(plan, None, &external, empty, &all);
            }
            if !empty {
                let reject_rest = self.external_local && endpoints.local.is_empty();
                let cluster = (!endpoints.cluster.is_empty()).then_some(service.as_str());
                let to = (!reject_rest).then_some(if self.external_local { &local } else { &service });
                let rules = rules::external(self.external_local, cluster, to.map(String::as_str), cluster_cidr);
                plan.chains.push((external, rules));
            }
            self.firewall(plan);
        }
        let wants_local = self.internal_local || (self.external_local && self.has_external());
        for (chain, endpoints) in [(service, &endpoints.cluster), (local, &endpoints.local)] {
            if !endpoints.is_empty() && (chain.starts_with("svc-") || wants_local) {
                let rules = rules::balance(&self.id, self.cluster_ip, cluster_cidr, endpoints, self.affinity);
                plan.chains.push((chain, rules));
            }
        }
        for endpoint in all {
            if endpoint.local {
                let ip = endpoint.ip.octets();
                plan.elements.push((rules::HAIRPIN, Element::key(concat(&[&ip, &ip]))));
            }
            if let Some(timeout) = self.affinity {
                plan.sets.push(rules::affinity_set(&self.id, endpoint, timeout));
            }
        }
    }

    fn has_external(&self) -> bool {
        self.node_port != 0 || !self.external.is_empty() || !self.load_balancer.is_empty()
    }

    /// Leads an address (or node port) to a chain, or says that nobody is there.
    fn lead(&self, plan: &mut Plan, ip: Option<Ipv4Addr>, chain: &str, empty: bool, all: &[&Endpoint]) {
        let (map, verdict) = match (ip, empty) {
            (Some(_), false) => (rules::SERVICE_IPS, chain),
            (None, false) => (rules::NODE_PORTS, chain),
            // Elsewhere there are endpoints: silence, so that a load balancer tries another node.
            (Some(_), true) => (rules::NO_ENDPOINTS, if all.is_empty() { rules::REJECT } else { rules::DROP }),
            (None, true) => (rules::NO_ENDPOINT_NODE_PORTS, if all.is_empty() { rules::REJECT } else { rules::DROP }),
        };
        let (protocol, port) = ([self.protocol], if ip.is_some() { self.port } else { self.node_port }.to_be_bytes());
        let key = match ip {
            Some(ip) => concat(&[&ip.octets(), &protocol, &port]),
            None => concat(&[&protocol, &port]),
        };
        plan.elements.push((map, Element::verdict(key, Verdict::Goto(verdict.to_owned()))));
        if self.protocol == 17 {
            plan.udp.push(Udp {
                ip,
                port: u16::from_be_bytes(port),
                endpoints: all.iter().map(|e| (e.ip, e.port)).collect(),
            });
        }
    }

    fn firewall(&self, plan: &mut Plan) {
        let ranges: Vec<net::Cidr> = self.source_ranges.iter().filter_map(|range| range.trim().parse().ok()).collect();
        if self.source_ranges.is_empty() || self.load_balancer.is_empty() {
            return;
        }
        let chain = format!("fw-{}", self.id);
        for ip in &self.load_balancer {
            let key = concat(&[&ip.octets(), &[self.protocol], &self.port.to_be_bytes()]);
            plan.elements.push((rules::FIREWALL_IPS, Element::verdict(key, Verdict::Goto(chain.clone()))));
        }
        plan.chains.push((chain, rules::firewall(&ranges)));
    }
}

fn load_balancer_ips(service: &Service) -> Vec<Ipv4Addr> {
    if service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) != Some("LoadBalancer") {
        return Vec::new();
    }
    let ingress = service.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    let vip = ingress.into_iter().flatten().filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
    vip.filter_map(|ingress| ingress.ip.as_ref()?.parse().ok()).collect()
}
