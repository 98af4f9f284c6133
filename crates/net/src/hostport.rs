//! The table `ip sagong-pods`: masquerading of pods, host ports.

use crate::error::Result;
use crate::ipam::Cidr;
use crate::netlink::Socket;
use crate::nft::expr::{self, CT_DNAT, Cmp, Ct, Expr, Meta, Reg, Verdict};
use crate::nft::{Batch, Chain, Element, Family, Hook, Set, commit, concat, set};
use crate::pod::HostPort;
use std::net::{IpAddr, Ipv4Addr};

const TABLE: &str = "sagong-pods";
const PORTS: &str = "hostports";
const ADDRESS_PORTS: &str = "hostports-by-address";
const HAIRPIN: &str = "hairpin";

/// Makes the table anew, with the ports of the pods that are there, in one transaction.
pub(crate) fn install(socket: &mut Socket, pods: Cidr, cluster: Cidr, ports: &[(IpAddr, HostPort)]) -> Result<()> {
    let mut batch = Batch::new(Family::Ip, TABLE);
    batch.delete_table();
    batch.add_table();
    let (address, protocol, port) = ((4, set::IPV4_ADDR), (1, set::INET_PROTO), (2, set::INET_SERVICE));
    batch.add_set(&Set::new(PORTS, &[protocol, port]).to_values(8));
    batch.add_set(&Set::new(ADDRESS_PORTS, &[address, protocol, port]).to_values(8));
    batch.add_set(&Set::new(HAIRPIN, &[address, address]));
    for chain in [
        Chain::base("raw", "filter", Hook::Prerouting, -300),
        Chain::base("prerouting", "nat", Hook::Prerouting, -100),
        Chain::base("output", "nat", Hook::Output, -100),
        Chain::base("postrouting", "nat", Hook::Postrouting, 100),
        Chain::regular("hostports"),
    ] {
        batch.add_chain(&chain);
    }
    rules(&mut batch, pods, cluster);
    ports.iter().for_each(|(ip, port)| add(&mut batch, *ip, port));
    commit(socket, &batch)
}

fn rules(batch: &mut Batch, pods: Cidr, cluster: Cidr) {
    let localhost = Cidr { ip: Ipv4Addr::new(127, 0, 0, 0).into(), prefix: 8 };
    let (r0, r1, r2, r4, r5) = (Reg(0), Reg(1), Reg(2), Reg(4), Reg(5));
    // route_localnet lets neighbours send to 127.0.0.1: only loopback may.
    let mut loopback = b"lo".to_vec();
    loopback.resize(16, 0);
    let mut rule = vec![Expr::Meta(Meta::IifName, r0), Expr::Cmp(r0, Cmp::Neq, loopback), expr::destination(r0)];
    rule.extend(expr::in_network(r0, &localhost, true));
    rule.push(Expr::Verdict(Verdict::Drop));
    batch.add_rule("raw", &rule);

    let mut rule = expr::local(false);
    rule.push(Expr::Verdict(Verdict::Jump("hostports".into())));
    batch.add_rule("prerouting", &rule);
    batch.add_rule("output", &rule);

    let dnat = Expr::Dnat { family: 2, address: r4, port: Some(r5) };
    let map = |name: &str| Expr::Map { map: name.into(), key: r0, to: r4 };
    let keys =
        [expr::destination(r0), expr::protocol(r1), expr::destination_port(r2), map(ADDRESS_PORTS), dnat.clone()];
    batch.add_rule("hostports", &keys);
    batch.add_rule("hostports", &[expr::protocol(r0), expr::destination_port(r1), map(PORTS), dnat]);

    let translated = expr::connection(Ct::Status, CT_DNAT);
    let mut rule = translated.clone();
    rule.push(expr::source(r0));
    rule.extend(expr::in_network(r0, &localhost, true));
    rule.push(Expr::Masquerade);
    batch.add_rule("postrouting", &rule);
    let mut rule = translated;
    rule.extend([
        expr::source(r0),
        expr::destination(r1),
        Expr::InSet { set: HAIRPIN.into(), key: r0, inverted: false },
        Expr::Masquerade,
    ]);
    batch.add_rule("postrouting", &rule);
    let mut rule = vec![expr::source(r0)];
    rule.extend(expr::in_network(r0, &pods, true));
    rule.push(expr::destination(r0));
    rule.extend(expr::in_network(r0, &cluster, false));
    rule.push(Expr::Masquerade);
    batch.add_rule("postrouting", &rule);
}

/// Opens the host ports of a pod.
pub(crate) fn open(socket: &mut Socket, ip: IpAddr, ports: &[HostPort]) -> Result<()> {
    let mut batch = Batch::new(Family::Ip, TABLE);
    ports.iter().for_each(|port| add(&mut batch, ip, port));
    commit(socket, &batch)
}

/// Closes the host ports of a pod.
pub(crate) fn close(socket: &mut Socket, ip: IpAddr, ports: &[HostPort]) -> Result<()> {
    let mut batch = Batch::new(Family::Ip, TABLE);
    for port in ports {
        let (set, element) = element(ip, port);
        // Deleting needs the element to be there; adding what is there does nothing.
        batch.add_elements(set, std::slice::from_ref(&element));
        batch.delete_elements(set, &[Element { data: None, ..element }]);
    }
    if !ports.is_empty() {
        let hairpin = [hairpin(ip)];
        batch.add_elements(HAIRPIN, &hairpin);
        batch.delete_elements(HAIRPIN, &hairpin);
    }
    commit(socket, &batch)
}

fn add(batch: &mut Batch, ip: IpAddr, port: &HostPort) {
    let (set, element) = element(ip, port);
    batch.add_elements(set, &[element]);
    batch.add_elements(HAIRPIN, &[hairpin(ip)]);
}

fn hairpin(ip: IpAddr) -> Element {
    let ip = crate::route::octets(ip);
    Element::key(concat(&[&ip, &ip]))
}

fn element(ip: IpAddr, port: &HostPort) -> (&'static str, Element) {
    let pod = crate::route::octets(ip);
    let target = concat(&[&pod, &port.container_port.to_be_bytes()]);
    let (protocol, number) = ([port.protocol.number()], port.host_port.to_be_bytes());
    match port.host_ip {
        None => (PORTS, Element::value(concat(&[&protocol, &number]), target)),
        Some(host) => {
            let host = crate::route::octets(host);
            (ADDRESS_PORTS, Element::value(concat(&[&host, &protocol, &number]), target))
        }
    }
}
