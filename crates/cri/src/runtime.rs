//! `RuntimeService`: sandboxes, containers and their streams.

use crate::stats::*;
use crate::types::*;
use crate::Result;
use async_trait::async_trait;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{broadcast, mpsc};

/// A readable end.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// A writable end.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A duplex byte stream (port-forward).
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Size of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// What exec is asked to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// Container.
    pub container_id: String,
    /// Program and arguments.
    pub cmd: Vec<String>,
    /// Gives it a terminal.
    pub tty: bool,
    /// Wants stdin.
    pub stdin: bool,
    /// Wants stdout.
    pub stdout: bool,
    /// Wants stderr (never with a terminal).
    pub stderr: bool,
}

/// A session that a runtime is asked to serve itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamRequest {
    /// A command.
    Exec(ExecRequest),
    /// The first process of a container.
    Attach(ExecRequest),
    /// Ports of a sandbox.
    PortForward {
        /// The sandbox.
        sandbox_id: String,
        /// Ports, where the client names them beforehand.
        ports: Vec<u16>,
    },
}

/// The ends of a running exec or attach session. A stream that was not asked for is `None`.
pub struct Streams {
    /// The process's stdin; dropping it closes the stream.
    pub stdin: Option<Writer>,
    /// Its stdout (and stderr with a terminal); ends when all writers are gone.
    pub stdout: Option<Reader>,
    /// Its stderr.
    pub stderr: Option<Reader>,
    /// New terminal sizes, where there is a terminal.
    pub resize: Option<mpsc::Sender<TerminalSize>>,
    /// Resolves with the exit code when the process ends (exec), or the container (attach).
    pub exit: tokio::sync::oneshot::Receiver<Result<i32>>,
}

/// Output of a command run to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecSyncOutput {
    /// At most 16 MiB, as upstream.
    pub stdout: Vec<u8>,
    /// At most 16 MiB.
    pub stderr: Vec<u8>,
    /// Exit code; 128 + n when signal n ended it.
    pub exit_code: i32,
}

/// Sandboxes and containers.
#[async_trait]
pub trait RuntimeService: Send + Sync {
    /// Name and version, `("sagong", "0.1.0")`.
    fn version(&self) -> (String, String);
    /// Conditions `RuntimeReady` and `NetworkReady`.
    async fn status(&self) -> Result<Vec<RuntimeCondition>>;

    /// Makes and starts a sandbox; on error nothing is left behind.
    async fn run_pod_sandbox(&self, config: PodSandboxConfig) -> Result<String>;
    /// Kills what runs in the sandbox and gives its network back; idempotent.
    async fn stop_pod_sandbox(&self, id: &str) -> Result<()>;
    /// Removes a stopped sandbox, its containers and files; idempotent.
    async fn remove_pod_sandbox(&self, id: &str) -> Result<()>;
    /// One sandbox.
    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatus>;
    /// All sandboxes.
    async fn list_pod_sandboxes(&self) -> Result<Vec<PodSandboxStatus>>;

    /// Makes a container: root file system mounted, process prepared, not started.
    async fn create_container(&self, sandbox_id: &str, config: ContainerConfig) -> Result<String>;
    /// Starts its process; an error of exec itself (no such file, permission) fails the call.
    async fn start_container(&self, id: &str) -> Result<()>;
    /// Sends the stop signal, then SIGKILL after `timeout`; returns when it has ended; idempotent.
    async fn stop_container(&self, id: &str, timeout: Duration) -> Result<()>;
    /// Removes a container that does not run, and its log if `remove_logs`; idempotent.
    async fn remove_container(&self, id: &str) -> Result<()>;
    /// One container.
    async fn container_status(&self, id: &str) -> Result<ContainerStatus>;
    /// All containers.
    async fn list_containers(&self) -> Result<Vec<ContainerStatus>>;
    /// The sandboxes of the pod of a uid, and their containers.
    async fn list_pod(&self, uid: &str) -> Result<(Vec<PodSandboxStatus>, Vec<ContainerStatus>)> {
        let mut sandboxes = self.list_pod_sandboxes().await?;
        sandboxes.retain(|sandbox| sandbox.metadata.uid == uid);
        let mut containers = self.list_containers().await?;
        containers.retain(|container| sandboxes.iter().any(|sandbox| sandbox.id == container.sandbox_id));
        Ok((sandboxes, containers))
    }
    /// Changes limits of a running container.
    async fn update_container_resources(&self, id: &str, resources: LinuxContainerResources) -> Result<()>;
    /// Makes the shim open the log path anew, after it was renamed.
    async fn reopen_container_log(&self, id: &str) -> Result<()>;

    /// Makes (or changes) a cgroup on the path from the node's root to a pod: `/kubepods`, a QoS class or a pod.
    async fn update_pod_cgroup(&self, cgroup: &str, resources: LinuxContainerResources) -> Result<()>;
    /// Removes a cgroup of a pod that is gone, killing what is left in it; idempotent.
    async fn remove_pod_cgroup(&self, cgroup: &str) -> Result<()>;

    /// Runs a command to its end.
    async fn exec_sync(&self, container_id: &str, cmd: Vec<String>, timeout: Duration) -> Result<ExecSyncOutput>;
    /// Starts a command with streams.
    async fn exec(&self, request: ExecRequest) -> Result<Streams>;
    /// Connects to the first process's streams; output begins now, not at the start.
    async fn attach(&self, request: ExecRequest) -> Result<Streams>;
    /// Connects to a TCP port on the pod's loopback.
    async fn port_forward(&self, sandbox_id: &str, port: u16) -> Result<Box<dyn Duplex>>;

    /// Where a session is to be had, of a runtime that serves its streams itself (CRI's Exec, Attach and PortForward
    /// answer with such URLs); `None`: from the three calls above.
    async fn stream_url(&self, _request: StreamRequest) -> Result<Option<String>> {
        Ok(None)
    }

    /// Tells the runtime the node's pod CIDRs, where its network wants to know them.
    async fn update_pod_cidrs(&self, _cidrs: Vec<String>) -> Result<()> {
        Ok(())
    }

    /// Counters of a container.
    async fn container_stats(&self, id: &str) -> Result<Stats>;
    /// Counters of a cgroup relative to the node's root, `/` for the node.
    async fn cgroup_stats(&self, cgroup: &str) -> Result<Stats>;

    /// Counters of a sandbox's network interfaces; empty where the runtime does not tell.
    async fn pod_network_stats(&self, _sandbox_id: &str) -> Result<Vec<InterfaceStats>> {
        Ok(Vec::new())
    }
    /// Tells when a cgroup's memory passes `usage` bytes (v1) or is under pressure (v2); `None`: no such event.
    async fn watch_memory(&self, _cgroup: &str, _usage: u64) -> Result<Option<mpsc::Receiver<()>>> {
        Ok(None)
    }
    /// What the runtime can do.
    fn features(&self) -> RuntimeFeatures {
        RuntimeFeatures::default()
    }
    /// File system of the writable layers; `None` where the runtime does not tell.
    async fn container_fs(&self) -> Result<Option<FilesystemUsage>> {
        Ok(None)
    }

    /// Events from now on. A receiver that lags must list again.
    fn subscribe(&self) -> broadcast::Receiver<ContainerEvent>;
}

/// Cgroups of pods, which the kubelet itself keeps where the runtime is another's.
#[async_trait]
pub trait PodCgroups: Send + Sync {
    /// As [`RuntimeService::update_pod_cgroup`].
    async fn update(&self, cgroup: &str, resources: LinuxContainerResources) -> Result<()>;
    /// As [`RuntimeService::remove_pod_cgroup`].
    async fn remove(&self, cgroup: &str) -> Result<()>;
    /// As [`RuntimeService::cgroup_stats`].
    async fn stats(&self, cgroup: &str) -> Result<Stats>;
}
