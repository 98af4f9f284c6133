//! The host side of a cluster's network: a bridge with the host's address, a veth to the node, routes to
//! pods and services, and masquerading where the host itself reaches further networks.

use crate::{Doing, Error, Result, Spec};
use net::link::{End, Links};
use net::netlink::{self, Socket};
use net::nft::expr::{self, Meta};
use net::nft::{Batch, Chain, Cmp, Expr, Family, Hook, Reg, commit};
use net::route::Route;
use net::{Cidr, sysctl};
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;

/// Name of the node's link in its own namespace.
const NODE_LINK: &str = "eth0";
const MTU: u32 = 1500;

/// Wires the node whose network namespace is `netns`; what is there already stays.
pub fn connect(spec: &Spec, netns: &Path) -> Result<()> {
    let mut links = Links::open().map_err(network)?;
    bridge(spec, &mut links).map_err(network)?;
    let namespace = File::open(netns).doing(|| format!("open {}", netns.display()))?;
    veth(spec, &mut links, &namespace).map_err(network)?;
    inside(spec, netns)?;
    routes(spec, &mut links).map_err(network)?;
    if links.uplink().map_err(network)?.is_some() {
        sysctl::set("ipv4/ip_forward", "1").map_err(network)?;
        masquerade(spec)?;
    }
    Ok(())
}

fn network(error: net::Error) -> Error {
    Error::Network(error.to_string())
}

fn cidr((address, prefix): (Ipv4Addr, u8)) -> Cidr {
    Cidr { ip: address.into(), prefix }
}

fn bridge(spec: &Spec, links: &mut Links) -> net::Result<()> {
    let name = spec.bridge();
    links.add_bridge(&name, MTU)?;
    links.add_address(&name, cidr((spec.host_ip(), spec.node_cidr().1)))?;
    links.set_up(&name)
}

fn veth(spec: &Spec, links: &mut Links, namespace: &File) -> net::Result<()> {
    let name = spec.veth();
    if links.find(&name)?.is_none() {
        let here = End { name: &name, ..End::default() };
        let there = End { name: NODE_LINK, netns: Some(namespace.as_fd()), ..End::default() };
        links.add_veth(&here, &there, MTU)?;
    }
    links.set_master(&name, &spec.bridge())?;
    links.set_up(&name)
}

/// The node's own addresses and default route.
fn inside(spec: &Spec, netns: &Path) -> Result<()> {
    let address = cidr((spec.node_ip(), spec.node_cidr().1));
    let gateway = spec.host_ip().into();
    let work = net::netns::run(Some(netns), move || {
        let mut links = Links::open()?;
        links.set_up("lo")?;
        links.add_address(NODE_LINK, address)?;
        links.set_up(NODE_LINK)?;
        links.replace_route(&Route::via(Cidr::any(), gateway))
    });
    block_on(work)?.map_err(network)
}

fn routes(spec: &Spec, links: &mut Links) -> net::Result<()> {
    for range in [spec.cluster_cidr(), spec.service_cidr()] {
        links.replace_route(&Route::via(cidr(range), spec.node_ip().into()))?;
    }
    Ok(())
}

/// Takes everything of [`connect`] back; nothing where there is nothing.
pub fn disconnect(spec: &Spec) -> Result<()> {
    let mut links = Links::open().map_err(network)?;
    links.delete(&spec.veth()).map_err(network)?;
    // Addresses and routes go with the bridge.
    links.delete(&spec.bridge()).map_err(network)?;
    unmasquerade(spec)
}

/// What the node sends to elsewhere than its bridge leaves with the host's address.
fn masquerade(spec: &Spec) -> Result<()> {
    let mut batch = Batch::new(Family::Ip, spec.bridge());
    batch.delete_table();
    batch.add_table();
    batch.add_chain(&Chain::base("postrouting", "nat", Hook::Postrouting, 100));
    let mut bridge = spec.bridge().into_bytes();
    bridge.resize(16, 0);
    let mut rule = vec![Expr::Meta(Meta::OifName, Reg(0)), Expr::Cmp(Reg(0), Cmp::Neq, bridge), expr::source(Reg(0))];
    rule.extend(expr::in_network(Reg(0), &cidr(spec.node_cidr()), true));
    rule.push(Expr::Masquerade);
    batch.add_rule("postrouting", &rule);
    send(&batch)
}

fn unmasquerade(spec: &Spec) -> Result<()> {
    let mut batch = Batch::new(Family::Ip, spec.bridge());
    batch.delete_table();
    send(&batch)
}

fn send(batch: &Batch) -> Result<()> {
    let mut socket = Socket::open(netlink::Family::Netfilter).map_err(network)?;
    commit(&mut socket, batch).map_err(network)
}

fn block_on<T>(future: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().doing(|| "start an event loop".into())?;
    Ok(runtime.block_on(future))
}
