//! Cgroups of pods for a kubelet whose runtime is behind a socket.

use crate::{internal, spec, stats};
use async_trait::async_trait;
use cri::{LinuxContainerResources, PodCgroups, Result, Stats};
use oci::cgroup::Cgroups;

/// The node's cgroups below a root.
pub struct NodeCgroups(Cgroups);

impl NodeCgroups {
    /// Finds the hierarchies; `root` is relative to them, `/` as a rule.
    pub fn open(root: &str) -> Result<Self> {
        Cgroups::detect(root).map(Self).map_err(internal)
    }
}

#[async_trait]
impl PodCgroups for NodeCgroups {
    async fn update(&self, cgroup: &str, resources: LinuxContainerResources) -> Result<()> {
        let (cgroups, cgroup) = (self.0.clone(), cgroup.to_string());
        let make = move || cgroups.make(&cgroup, &spec::resources(&resources)).map(drop).map_err(internal);
        tokio::task::spawn_blocking(make).await.map_err(internal)?
    }

    async fn remove(&self, cgroup: &str) -> Result<()> {
        let cgroup = self.0.get(cgroup).map_err(internal)?;
        tokio::task::spawn_blocking(move || cgroup.remove().map_err(internal)).await.map_err(internal)?
    }

    async fn stats(&self, cgroup: &str) -> Result<Stats> {
        stats::read(self.0.get(cgroup).map_err(internal)?, None).await
    }
}
