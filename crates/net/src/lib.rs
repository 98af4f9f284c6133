//! The node's network, spoken to the kernel over netlink: links, addresses, routes, namespaces, pod
//! networks, IPAM, nftables and conntrack.
//!
//! [`netlink`] is the one encoder and socket; [`link`], [`route`] and [`nft`] speak its dialects. Work in another
//! network namespace runs on a thread of its own ([`netns::run`]), never on a tokio worker, because
//! a namespace belongs to a thread. [`PodNetwork`] is what the runtime uses; [`RoutedNetwork`] its implementation:
//! one point-to-point veth and one host route per pod, no bridge.
//!
//! Invariants: everything that makes or removes an object may be called again; nothing in here
//! starts a program; an error names the object that failed and the kernel's reason.
//!
//! Absent: IPv6 pod addresses, CNI plugins, tunnels between hosts.

pub mod conntrack;
mod error;
mod hostport;
mod ipam;
pub mod link;
pub mod netlink;
pub mod netns;
pub mod nft;
mod pod;
pub mod route;
pub mod sysctl;

pub use error::{Error, Result};
pub use ipam::{Cidr, Ipam};
pub use pod::{HostPort, PodNetwork, Protocol, RoutedConfig, RoutedNetwork};
