//! The rules of the table: what is always there, and what chains of services look like.

use crate::endpoints::Endpoint;
use net::Cidr;
use net::nft::expr::{self, CT_DNAT, CT_NEW, Cmp, Ct, Expr, Reg, Verdict};
use net::nft::{Batch, Chain, Hook, Set, concat, set};
use std::net::Ipv4Addr;
use std::time::Duration;

/// `address . protocol . port` → chain of a service.
pub(crate) const SERVICE_IPS: &str = "service-ips";
/// `protocol . port` → chain of a service.
pub(crate) const NODE_PORTS: &str = "service-nodeports";
/// As [`SERVICE_IPS`], for services without endpoints.
pub(crate) const NO_ENDPOINTS: &str = "no-endpoint-services";
/// As [`NODE_PORTS`], for services without endpoints.
pub(crate) const NO_ENDPOINT_NODE_PORTS: &str = "no-endpoint-nodeports";
/// Load balancer addresses with allowed sources.
pub(crate) const FIREWALL_IPS: &str = "firewall-ips";
/// Every cluster IP: what no service port takes is rejected.
pub(crate) const CLUSTER_IPS: &str = "cluster-ips";
/// `endpoint . endpoint` of this node: who reached itself is masqueraded.
pub(crate) const HAIRPIN: &str = "hairpin";
/// Chain that answers with an error.
pub(crate) const REJECT: &str = "reject-chain";
/// Chain that answers nothing.
pub(crate) const DROP: &str = "drop-chain";

const SERVICES: &str = "services";
const CHECK: &str = "endpoints-check";
const CLUSTER_IPS_CHECK: &str = "cluster-ips-check";
/// The mark of packets to be masqueraded, upstream's default.
const MASQUERADE: u32 = 0x4000;

const R0: Reg = Reg(0);
const R1: Reg = Reg(1);
const R2: Reg = Reg(2);

fn goto(chain: &str) -> Expr {
    Expr::Verdict(Verdict::Goto(chain.to_owned()))
}

fn jump(chain: &str) -> Expr {
    Expr::Verdict(Verdict::Jump(chain.to_owned()))
}

fn all(parts: impl IntoIterator<Item = Vec<Expr>>) -> Vec<Expr> {
    parts.into_iter().flatten().collect()
}

/// Key of maps by address, then the map.
fn by_address(map: &str) -> Vec<Expr> {
    let lookup = Expr::VerdictMap { map: map.into(), key: R0 };
    vec![expr::destination(R0), expr::protocol(R1), expr::destination_port(R2), lookup]
}

/// Key of maps by node port, for packets to an address of this machine.
fn by_node_port(map: &str) -> Vec<Expr> {
    let lookup = Expr::VerdictMap { map: map.into(), key: R0 };
    all([expr::local(false), vec![expr::protocol(R0), expr::destination_port(R1), lookup]])
}

/// Makes the table with everything that no service decides.
pub(crate) fn base(batch: &mut Batch) {
    batch.delete_table();
    batch.add_table();
    let (address, protocol, port) = ((4, set::IPV4_ADDR), (1, set::INET_PROTO), (2, set::INET_SERVICE));
    for map in [SERVICE_IPS, NO_ENDPOINTS, FIREWALL_IPS] {
        batch.add_set(&Set::new(map, &[address, protocol, port]).to_verdicts());
    }
    for map in [NODE_PORTS, NO_ENDPOINT_NODE_PORTS] {
        batch.add_set(&Set::new(map, &[protocol, port]).to_verdicts());
    }
    batch.add_set(&Set::new(CLUSTER_IPS, &[address]));
    batch.add_set(&Set::new(HAIRPIN, &[address, address]));
    for chain in [REJECT, DROP, SERVICES, CHECK, CLUSTER_IPS_CHECK] {
        batch.add_chain(&Chain::regular(chain));
    }
    for chain in [
        Chain::base("nat-prerouting", "nat", Hook::Prerouting, -100),
        Chain::base("nat-output", "nat", Hook::Output, -100),
        Chain::base("nat-postrouting", "nat", Hook::Postrouting, 100),
        // Before the translation: it looks at the address the client used.
        Chain::base("firewall-prerouting", "filter", Hook::Prerouting, -110),
        Chain::base("firewall-output", "filter", Hook::Output, -110),
        // After it: what was translated is not without endpoints.
        Chain::base("filter-input", "filter", Hook::Input, 0),
        Chain::base("filter-forward", "filter", Hook::Forward, 0),
        Chain::base("filter-output", "filter", Hook::Output, 0),
    ] {
        batch.add_chain(&chain);
    }
    nat(batch);
    filter(batch);
}

fn nat(batch: &mut Batch) {
    batch.add_rule(SERVICES, &by_address(SERVICE_IPS));
    batch.add_rule(SERVICES, &by_node_port(NODE_PORTS));
    batch.add_rule("nat-prerouting", &[jump(SERVICES)]);
    batch.add_rule("nat-output", &[jump(SERVICES)]);
    let masquerade = all([expr::marked(MASQUERADE), expr::unmark(MASQUERADE), vec![Expr::Masquerade]]);
    batch.add_rule("nat-postrouting", &masquerade);
    let itself = vec![
        expr::source(R0),
        expr::destination(R1),
        Expr::InSet { set: HAIRPIN.into(), key: R0, inverted: false },
        Expr::Masquerade,
    ];
    batch.add_rule("nat-postrouting", &all([expr::connection(Ct::Status, CT_DNAT), itself]));
}

fn filter(batch: &mut Batch) {
    let new = || expr::connection(Ct::State, CT_NEW);
    for chain in ["firewall-prerouting", "firewall-output"] {
        batch.add_rule(chain, &all([new(), by_address(FIREWALL_IPS)]));
    }
    for chain in ["filter-input", "filter-forward", "filter-output"] {
        batch.add_rule(chain, &all([new(), vec![jump(CHECK)]]));
    }
    for chain in ["filter-forward", "filter-output"] {
        batch.add_rule(chain, &all([new(), vec![jump(CLUSTER_IPS_CHECK)]]));
    }
    batch.add_rule(CHECK, &by_address(NO_ENDPOINTS));
    batch.add_rule(CHECK, &by_node_port(NO_ENDPOINT_NODE_PORTS));
    let known = Expr::InSet { set: CLUSTER_IPS.into(), key: R0, inverted: false };
    batch.add_rule(CLUSTER_IPS_CHECK, &[expr::destination(R0), known, goto(REJECT)]);
    batch.add_rule(REJECT, &[Expr::Reject]);
    batch.add_rule(DROP, &[Expr::Verdict(Verdict::Drop)]);
}

/// The chain of traffic from outside: masqueraded with policy Cluster, left alone with policy Local.
pub(crate) fn external(local: bool, cluster: Option<&str>, to: Option<&str>, pods: &Cidr) -> Vec<Vec<Expr>> {
    let mut rules = Vec::new();
    if !local {
        rules.push(expr::mark(MASQUERADE));
    } else if let Some(cluster) = cluster {
        // Pods and this node are inside: they reach every endpoint.
        rules.push(all([vec![expr::source(R0)], expr::in_network(R0, pods, true), vec![goto(cluster)]]));
        rules.push(all([expr::local(true), expr::mark(MASQUERADE)]));
        rules.push(all([expr::local(true), vec![goto(cluster)]]));
    }
    rules.push(vec![to.map_or(Expr::Verdict(Verdict::Drop), goto)]);
    rules
}

/// Lets only some sources through.
pub(crate) fn firewall(ranges: &[Cidr]) -> Vec<Vec<Expr>> {
    let pass = |range: &Cidr| {
        all([vec![expr::source(R0)], expr::in_network(R0, range, true), vec![Expr::Verdict(Verdict::Return)]])
    };
    let mut rules: Vec<_> = ranges.iter().filter(|range| range.ip.is_ipv4()).map(pass).collect();
    rules.push(vec![Expr::Verdict(Verdict::Drop)]);
    rules
}

/// The chain that chooses among endpoints.
pub(crate) fn balance(
    id: &str,
    cluster_ip: Ipv4Addr,
    pods: &Cidr,
    endpoints: &[Endpoint],
    affinity: Option<Duration>,
) -> Vec<Vec<Expr>> {
    let to_cluster_ip = vec![expr::destination(R0), Expr::Cmp(R0, Cmp::Eq, cluster_ip.octets().to_vec())];
    let outside =
        all([to_cluster_ip, vec![expr::source(R0)], expr::in_network(R0, pods, false), expr::mark(MASQUERADE)]);
    let mut rules = vec![outside];
    if let Some(timeout) = affinity {
        for endpoint in endpoints {
            let set = affinity_name(id, endpoint, timeout);
            let again = Expr::InSet { set, key: R0, inverted: false };
            rules.push(all([vec![expr::source(R0), again], choose(id, endpoint, affinity)]));
        }
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        let left = (endpoints.len() - index) as u32;
        let mut rule = Vec::new();
        if left > 1 {
            rule.extend([Expr::Random { modulus: left, to: R0 }, Expr::Cmp(R0, Cmp::Eq, vec![0; 4])]);
        }
        rule.extend(choose(id, endpoint, affinity));
        rules.push(rule);
    }
    rules
}

fn choose(id: &str, endpoint: &Endpoint, affinity: Option<Duration>) -> Vec<Expr> {
    let mut rule = Vec::new();
    if let Some(timeout) = affinity {
        rule.extend([expr::source(R0), Expr::Update { set: affinity_name(id, endpoint, timeout), key: R0 }]);
    }
    rule.extend([
        Expr::Load(R0, endpoint.ip.octets().to_vec()),
        Expr::Load(R1, concat(&[&endpoint.port.to_be_bytes()])),
        Expr::Dnat { family: 2, address: R0, port: Some(R1) },
    ]);
    rule
}

/// The set of clients that stay with an endpoint.
pub(crate) fn affinity_set(id: &str, endpoint: &Endpoint, timeout: Duration) -> Set {
    Set::new(affinity_name(id, endpoint, timeout), &[(4, set::IPV4_ADDR)]).expiring(timeout)
}

/// The timeout is part of the name: it cannot be changed in a set that is there.
fn affinity_name(id: &str, endpoint: &Endpoint, timeout: Duration) -> String {
    format!("affinity-{id}/{}/{}/{}", timeout.as_secs(), endpoint.ip, endpoint.port)
}
