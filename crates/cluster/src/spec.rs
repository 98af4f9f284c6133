//! What a cluster is: its slot and the addresses that follow from it.

use crate::{Doing, Error, Layout, Result};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;

/// The record of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// Name.
    pub name: String,
    /// Number that no other cluster of the machine has; addresses, bridge and cgroup follow from it.
    pub slot: u8,
    /// When it was made, RFC 3339.
    pub created: String,
}

impl Spec {
    /// Bridge on the host, also the name of the node's cgroup and nftables table.
    pub fn bridge(&self) -> String {
        format!("sagong{}", self.slot)
    }

    /// Host end of the node's veth.
    pub fn veth(&self) -> String {
        format!("sagong{}n1", self.slot)
    }

    /// The host's address on the bridge; the node's default gateway.
    pub fn host_ip(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 211, self.slot, 1)
    }

    /// The node's address.
    pub fn node_ip(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 211, self.slot, 2)
    }

    /// Network of the bridge.
    pub fn node_cidr(&self) -> (Ipv4Addr, u8) {
        (Ipv4Addr::new(10, 211, self.slot, 0), 24)
    }

    /// Addresses of pods.
    pub fn cluster_cidr(&self) -> (Ipv4Addr, u8) {
        (Ipv4Addr::new(10, 244 - self.slot, 0, 0), 16)
    }

    /// Addresses of services.
    pub fn service_cidr(&self) -> (Ipv4Addr, u8) {
        (Ipv4Addr::new(10, 96 + self.slot, 0, 0), 16)
    }

    /// The ranges a cluster occupies on its host.
    pub fn ranges(&self) -> [(Ipv4Addr, u8); 3] {
        [self.node_cidr(), self.cluster_cidr(), self.service_cidr()]
    }

    /// Reads the record of a cluster that exists.
    pub fn load(layout: &Layout) -> Result<Self> {
        let path = layout.spec();
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Error::NoSuchCluster(layout.name().into())),
            other => other.doing(|| format!("read {}", path.display()))?,
        };
        serde_json::from_slice(&text).map_err(|error| Error::Damaged {
            path: path.display().to_string(),
            reason: error.to_string(),
            fix: "delete the cluster with `sagong delete` and make it anew",
        })
    }

    /// Writes the record.
    pub fn save(&self, layout: &Layout) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).map_err(std::io::Error::other).doing(|| "write the record".into())?;
        write_atomic(&layout.spec(), &text, 0o600)
    }
}

/// `10.0.0.0/8`
pub fn cidr_text((address, prefix): (Ipv4Addr, u8)) -> String {
    format!("{address}/{prefix}")
}

/// Replaces a file as a whole, durably: readers and a crash see the old text or the new.
pub(crate) fn write_atomic(path: &Path, text: &[u8], mode: u32) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let write = || -> std::io::Result<()> {
        let temporary = path.with_added_extension(format!("{}.tmp", std::process::id()));
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        let written = file.write_all(text).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&temporary, path));
        if written.is_err() {
            // The error that matters is that of the write.
            let _ = std::fs::remove_file(&temporary);
        }
        written
    };
    write().doing(|| format!("write {}", path.display()))
}
