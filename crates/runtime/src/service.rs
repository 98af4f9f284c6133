//! [`RuntimeService`] on [`Runtime`]: one line per call.

use crate::{Runtime, internal, spec};
use async_trait::async_trait;
use cri::*;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc};

/// The service. A handle, because a sandbox's monitor keeps one too.
#[async_trait]
impl RuntimeService for Service {
    fn version(&self) -> (String, String) {
        ("sagong".into(), env!("CARGO_PKG_VERSION").into())
    }

    async fn status(&self) -> Result<Vec<RuntimeCondition>> {
        let network = self.0.config.network.ready();
        Ok(vec![
            RuntimeCondition { name: "RuntimeReady", status: true, ..RuntimeCondition::default() },
            RuntimeCondition {
                name: "NetworkReady",
                status: network.is_ok(),
                reason: if network.is_ok() { String::new() } else { "NetworkPluginNotReady".into() },
                message: network.err().unwrap_or_default(),
            },
        ])
    }

    async fn run_pod_sandbox(&self, config: PodSandboxConfig) -> Result<String> {
        // A task of its own: a caller that gives up midway must not leave half a sandbox.
        let runtime = self.0.clone();
        tokio::spawn(async move { runtime.make_sandbox(config).await }).await.map_err(internal)?
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        self.0.end_sandbox(id).await
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        self.0.delete_sandbox(id).await
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatus> {
        self.0.state.sandbox(id).map(|sandbox| sandbox.status())
    }

    async fn list_pod_sandboxes(&self) -> Result<Vec<PodSandboxStatus>> {
        Ok(self.0.state.sandboxes().iter().map(|sandbox| sandbox.status()).collect())
    }

    async fn create_container(&self, sandbox_id: &str, config: ContainerConfig) -> Result<String> {
        let (runtime, sandbox_id) = (self.0.clone(), sandbox_id.to_string());
        tokio::spawn(async move { runtime.make_container(&sandbox_id, config).await }).await.map_err(internal)?
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        self.0.run_container(id).await
    }

    async fn stop_container(&self, id: &str, timeout: Duration) -> Result<()> {
        self.0.end_container(id, timeout).await
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        self.0.delete_container(id).await
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus> {
        self.0.state.container(id).map(|container| container.status())
    }

    async fn list_containers(&self) -> Result<Vec<ContainerStatus>> {
        Ok(self.0.state.containers().iter().map(|container| container.status()).collect())
    }

    async fn list_pod(&self, uid: &str) -> Result<(Vec<PodSandboxStatus>, Vec<ContainerStatus>)> {
        let mut sandboxes = self.0.state.sandboxes();
        sandboxes.retain(|sandbox| sandbox.record.config.metadata.uid == uid);
        let mut containers = self.0.state.containers();
        containers.retain(|container| {
            let record = container.record.lock();
            sandboxes.iter().any(|sandbox| sandbox.id == record.sandbox_id)
        });
        let sandboxes = sandboxes.iter().map(|sandbox| sandbox.status()).collect();
        Ok((sandboxes, containers.iter().map(|container| container.status()).collect()))
    }

    async fn update_container_resources(&self, id: &str, resources: LinuxContainerResources) -> Result<()> {
        self.0.update_container(id, resources).await
    }

    async fn reopen_container_log(&self, id: &str) -> Result<()> {
        self.0.reopen_log(id).await
    }

    async fn update_pod_cgroup(&self, cgroup: &str, resources: LinuxContainerResources) -> Result<()> {
        let (cgroups, cgroup) = (self.0.cgroups.clone(), cgroup.to_string());
        let make = move || cgroups.make(&cgroup, &spec::resources(&resources)).map(drop).map_err(internal);
        tokio::task::spawn_blocking(make).await.map_err(internal)?
    }

    async fn remove_pod_cgroup(&self, cgroup: &str) -> Result<()> {
        let cgroup = self.0.cgroups.get(cgroup).map_err(internal)?;
        tokio::task::spawn_blocking(move || cgroup.remove().map_err(internal)).await.map_err(internal)?
    }

    async fn exec_sync(&self, container_id: &str, cmd: Vec<String>, timeout: Duration) -> Result<ExecSyncOutput> {
        self.0.run_exec(container_id, cmd, timeout).await
    }

    async fn exec(&self, request: ExecRequest) -> Result<Streams> {
        self.0.stream_exec(request).await
    }

    async fn attach(&self, request: ExecRequest) -> Result<Streams> {
        self.0.stream_attach(request).await
    }

    async fn port_forward(&self, sandbox_id: &str, port: u16) -> Result<Box<dyn Duplex>> {
        self.0.connect_port(sandbox_id, port).await
    }

    async fn container_stats(&self, id: &str) -> Result<Stats> {
        self.0.stats_of_container(id).await
    }

    async fn cgroup_stats(&self, cgroup: &str) -> Result<Stats> {
        self.0.stats_of_cgroup(cgroup).await
    }

    async fn pod_network_stats(&self, sandbox_id: &str) -> Result<Vec<InterfaceStats>> {
        self.0.stats_of_network(sandbox_id).await
    }

    async fn watch_memory(&self, cgroup: &str, usage: u64) -> Result<Option<mpsc::Receiver<()>>> {
        self.0.watch_cgroup(cgroup, usage).map(Some)
    }

    fn features(&self) -> RuntimeFeatures {
        RuntimeFeatures {
            user_namespaces: true,
            recursive_read_only_mounts: true,
            supplemental_groups_policy: true,
            containers_without_image: true,
            linked_logs: false,
            cgroup_version: self.0.cgroups.version(),
        }
    }

    async fn container_fs(&self) -> Result<Option<FilesystemUsage>> {
        let mountpoint = self.0.config.root_dir.display().to_string();
        Ok(Some(FilesystemUsage { mountpoint, used_bytes: 0, inodes_used: 0 }))
    }

    fn subscribe(&self) -> broadcast::Receiver<ContainerEvent> {
        self.0.events.subscribe()
    }
}

/// A runtime as the kubelet sees it.
pub struct Service(Arc<Runtime>);

impl Runtime {
    /// The runtime as a CRI service.
    pub fn service(self: &Arc<Self>) -> Arc<dyn RuntimeService> {
        Arc::new(Service(self.clone()))
    }
}
