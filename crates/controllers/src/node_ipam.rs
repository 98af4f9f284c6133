//! Gives each Node its part of the pod network.

use crate::context::{Context, synced};
use api::k8s::core::v1::Node;
use informer::{Controller, Error, Informer, Key, Reconcile, Requeue, WorkQueue};
use kube::api::{Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

struct NodeIpam {
    ctx: Context,
    nodes: Informer<Node>,
    range: Range,
    /// Given out, perhaps not yet seen in the informer.
    given: Mutex<HashMap<String, String>>,
}

/// The cluster's CIDR and how it is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Range {
    base: u128,
    v4: bool,
    /// Bits of an address that one node has.
    node_bits: u32,
    count: u128,
}

impl Range {
    fn parse(cidr: &str, node_prefix: u8) -> Option<Self> {
        let (address, prefix) = cidr.split_once('/')?;
        let (address, prefix): (IpAddr, u32) = (address.parse().ok()?, prefix.parse().ok()?);
        let (value, bits) = match address {
            IpAddr::V4(a) => (u128::from(u32::from(a)), 32),
            IpAddr::V6(a) => (u128::from(a), 128),
        };
        let node_prefix = u32::from(node_prefix);
        // A range larger than this is not used up by any cluster.
        if prefix == 0 || node_prefix < prefix || node_prefix > bits || node_prefix - prefix > 24 {
            return None;
        }
        let base = value >> (bits - prefix) << (bits - prefix);
        Some(Self { base, v4: bits == 32, node_bits: bits - node_prefix, count: 1 << (node_prefix - prefix) })
    }

    fn cidr(&self, index: u128) -> String {
        let value = self.base + (index << self.node_bits);
        if self.v4 {
            format!("{}/{}", std::net::Ipv4Addr::from(value as u32), 32 - self.node_bits)
        } else {
            format!("{}/{}", std::net::Ipv6Addr::from(value), 128 - self.node_bits)
        }
    }

    fn free(&self, used: &HashSet<String>) -> Option<String> {
        (0..self.count).map(|index| self.cidr(index)).find(|cidr| !used.contains(cidr))
    }
}

pub(crate) async fn run(ctx: Context) {
    let config = ctx.config();
    if config.cluster_cidr.is_empty() {
        return;
    }
    let Some(range) = Range::parse(&config.cluster_cidr, config.node_cidr_mask_size) else {
        tracing::error!(
            cidr = config.cluster_cidr,
            mask = config.node_cidr_mask_size,
            "cluster CIDR cannot be cut for nodes"
        );
        return;
    };
    let queue = WorkQueue::new();
    let nodes = ctx.informer::<Node>();
    let enqueue = queue.clone();
    nodes.on_event(move |event| enqueue.add(Key::of(event.object().as_ref())));
    synced!(nodes);
    let reconciler = NodeIpam { ctx: ctx.clone(), nodes, range, given: Mutex::default() };
    // One worker: allocation looks at what all nodes have.
    Controller::new("nodeipam", queue, reconciler).workers(1).run(ctx.shutdown()).await;
}

fn cidrs(node: &Node) -> impl Iterator<Item = &String> {
    let spec = node.spec.iter();
    spec.flat_map(|s| s.pod_cidrs.iter().flatten().chain(&s.pod_cidr))
}

impl Reconcile for NodeIpam {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let Some(node) = self.nodes.get_key(key) else {
            self.given.lock().remove(&key.name);
            return Ok(Requeue::Done);
        };
        if cidrs(&node).next().is_some() {
            self.given.lock().remove(&key.name);
            return Ok(Requeue::Done);
        }
        let Some(cidr) = self.allocate(&key.name) else {
            self.ctx.normal(
                node.as_ref(),
                "CIDRNotAvailable",
                format!("Node {} status is now: CIDRNotAvailable", key.name),
            );
            return Ok(Requeue::Again);
        };
        let patch = Patch::Strategic(json!({"spec": {"podCIDR": cidr, "podCIDRs": [cidr]}}));
        self.ctx.cluster_api::<Node>().patch(&key.name, &PatchParams::default(), &patch).await?;
        Ok(Requeue::Done)
    }
}

impl NodeIpam {
    /// The part of this node; the same one again after a failed write.
    fn allocate(&self, name: &str) -> Option<String> {
        let mut given = self.given.lock();
        if let Some(cidr) = given.get(name) {
            return Some(cidr.clone());
        }
        let nodes = self.nodes.list();
        let used = nodes.iter().flat_map(|n| cidrs(n).cloned()).chain(given.values().cloned()).collect();
        let cidr = self.range.free(&used)?;
        given.insert(name.to_owned(), cidr.clone());
        Some(cidr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_in_order() {
        let range = Range::parse("10.244.0.0/16", 24).expect("range");
        let mut used = HashSet::new();
        for want in ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"] {
            let cidr = range.free(&used).expect("free");
            assert_eq!(cidr, want);
            used.insert(cidr);
        }
        assert_eq!(Range::parse("10.0.0.0/30", 31).map(|r| (r.cidr(1), r.count)), Some(("10.0.0.2/31".into(), 2)));
        assert_eq!(Range::parse("fd00::/48", 64).map(|r| r.cidr(2)), Some("fd00:0:0:2::/64".into()));
        for (cidr, mask) in [("10.0.0.0/24", 16), ("x", 24), ("10.0.0.0/8", 33), ("fd00::/8", 64)] {
            assert_eq!(Range::parse(cidr, mask), None, "{cidr}");
        }
    }
}
