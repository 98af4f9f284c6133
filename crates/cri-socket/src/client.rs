//! A runtime behind a CRI socket as [`RuntimeService`].

use crate::convert::*;
use crate::events;
use async_trait::async_trait;
use cri::*;
use futures::StreamExt;
use parking_lot::Mutex;
use protos::cri as p;
use protos::cri::runtime_service_client::RuntimeServiceClient;
use protos::socket::{self, MAX_MESSAGE};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;
use tonic::transport::Channel;

/// How long a call may take that waits for nothing, as upstream's `runtimeRequestTimeout`.
const CALL: Duration = Duration::from_secs(120);
/// Status calls under way at the same time.
const PARALLEL: usize = 16;

pub(crate) type Client = RuntimeServiceClient<Channel>;

/// The runtime behind a socket.
pub struct RemoteRuntime {
    client: Client,
    version: (String, String),
    cgroups: Arc<dyn PodCgroups>,
    /// Configurations of sandboxes by id: CreateContainer repeats them.
    configs: Configs,
    events: broadcast::Sender<ContainerEvent>,
    features: RuntimeFeatures,
}

impl RemoteRuntime {
    /// Connects to a socket; the configurations of sandboxes are kept in `state_dir`.
    pub async fn connect(socket: &Path, state_dir: PathBuf, cgroups: Arc<dyn PodCgroups>) -> Result<Arc<Self>> {
        let internal = |e: std::io::Error| Error::Internal(format!("container runtime at {}: {e}", socket.display()));
        std::fs::create_dir_all(&state_dir).map_err(internal)?;
        // One connection that comes back by itself when the runtime was restarted.
        socket::connect(socket, Duration::from_secs(10)).await.map_err(internal)?;
        let channel = socket::connect_lazily(socket);
        let mut client = RuntimeServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let version = call(client.version(timed(p::VersionRequest { version: "0.1.0".into() }))).await?;
        let status = call(client.status(timed(p::StatusRequest::default()))).await?;
        let (events, _) = broadcast::channel(1024);
        tokio::spawn(events::follow(client.clone(), events.clone()));
        Ok(Arc::new(Self {
            client,
            version: (version.runtime_name, version.runtime_version),
            cgroups,
            configs: Configs { dir: state_dir, known: Mutex::default() },
            events,
            features: features(&status),
        }))
    }

    async fn container(&self, id: &str, sandbox_id: String) -> Result<ContainerStatus> {
        let request = p::ContainerStatusRequest { container_id: id.into(), verbose: false };
        let answer = call(self.client.clone().container_status(timed(request))).await?;
        let status = answer.status.ok_or_else(|| Error::Internal("the runtime gave no status".into()))?;
        Ok(from_container_status(status, sandbox_id))
    }

    async fn containers(&self, filter: Option<p::ContainerFilter>) -> Result<Vec<p::Container>> {
        Ok(call(self.client.clone().list_containers(timed(p::ListContainersRequest { filter }))).await?.containers)
    }
}

fn features(status: &p::StatusResponse) -> RuntimeFeatures {
    let default = status.runtime_handlers.iter().find(|h| h.name.is_empty()).and_then(|h| h.features);
    RuntimeFeatures {
        user_namespaces: default.is_some_and(|f| f.user_namespaces),
        recursive_read_only_mounts: default.is_some_and(|f| f.recursive_read_only_mounts),
        supplemental_groups_policy: status.features.is_some_and(|f| f.supplemental_groups_policy),
        ..RuntimeFeatures::default()
    }
}

/// A request with the usual deadline.
pub(crate) fn timed<T>(message: T) -> tonic::Request<T> {
    lasting(message, CALL)
}

/// A request that may take longer.
fn lasting<T>(message: T, within: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(within);
    request
}

/// The answer's message, or the error in our words.
pub(crate) async fn call<T>(
    answer: impl Future<Output = std::result::Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T> {
    answer.await.map(tonic::Response::into_inner).map_err(|status| from_status(&status))
}

/// Success also where the object is gone.
fn idempotent(result: Result<()>) -> Result<()> {
    match result {
        Err(Error::NotFound(_)) => Ok(()),
        other => other,
    }
}

#[async_trait]
impl RuntimeService for RemoteRuntime {
    fn version(&self) -> (String, String) {
        self.version.clone()
    }

    async fn status(&self) -> Result<Vec<RuntimeCondition>> {
        let status = call(self.client.clone().status(timed(p::StatusRequest::default()))).await?;
        let known = |kind: &str| ["RuntimeReady", "NetworkReady"].into_iter().find(|name| *name == kind);
        let conditions = status.status.unwrap_or_default().conditions.into_iter();
        let condition = |c: p::RuntimeCondition| {
            Some(RuntimeCondition { name: known(&c.r#type)?, status: c.status, reason: c.reason, message: c.message })
        };
        Ok(conditions.filter_map(condition).collect())
    }

    async fn run_pod_sandbox(&self, config: PodSandboxConfig) -> Result<String> {
        let request = p::RunPodSandboxRequest {
            config: Some(to_sandbox_config(&config)),
            runtime_handler: config.runtime_handler.clone(),
        };
        // A runtime may pull its pause image first.
        let id = call(self.client.clone().run_pod_sandbox(lasting(request, CALL * 2))).await?.pod_sandbox_id;
        self.configs.put(&id, config);
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        let request = p::StopPodSandboxRequest { pod_sandbox_id: id.into() };
        idempotent(call(self.client.clone().stop_pod_sandbox(timed(request))).await.map(drop))
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        let request = p::RemovePodSandboxRequest { pod_sandbox_id: id.into() };
        idempotent(call(self.client.clone().remove_pod_sandbox(timed(request))).await.map(drop))?;
        self.configs.remove(id);
        Ok(())
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatus> {
        let request = p::PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: false };
        let answer = call(self.client.clone().pod_sandbox_status(timed(request))).await?;
        answer.status.map(from_sandbox_status).ok_or_else(|| Error::Internal("the runtime gave no status".into()))
    }

    async fn list_pod_sandboxes(&self) -> Result<Vec<PodSandboxStatus>> {
        let list = call(self.client.clone().list_pod_sandbox(timed(p::ListPodSandboxRequest::default()))).await?;
        // Addresses stand in the status only.
        let each = list.items.into_iter().map(|sandbox| async move { self.pod_sandbox_status(&sandbox.id).await });
        present(futures::stream::iter(each).buffer_unordered(PARALLEL).collect().await)
    }

    async fn create_container(&self, sandbox_id: &str, config: ContainerConfig) -> Result<String> {
        let sandbox = self.configs.get(sandbox_id)?;
        let request = p::CreateContainerRequest {
            pod_sandbox_id: sandbox_id.into(),
            config: Some(to_container_config(&config)),
            sandbox_config: Some(to_sandbox_config(&sandbox)),
        };
        Ok(call(self.client.clone().create_container(timed(request))).await?.container_id)
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        let request = p::StartContainerRequest { container_id: id.into() };
        call(self.client.clone().start_container(timed(request))).await.map(drop)
    }

    async fn stop_container(&self, id: &str, timeout: Duration) -> Result<()> {
        let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
        let request = p::StopContainerRequest { container_id: id.into(), timeout: seconds };
        let within = timeout.saturating_add(CALL);
        idempotent(call(self.client.clone().stop_container(lasting(request, within))).await.map(drop))
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        let request = p::RemoveContainerRequest { container_id: id.into() };
        idempotent(call(self.client.clone().remove_container(timed(request))).await.map(drop))
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus> {
        let filter = p::ContainerFilter { id: id.into(), ..Default::default() };
        let listed = self.containers(Some(filter)).await?.into_iter().find(|c| c.id == id);
        let sandbox = listed.ok_or_else(|| Error::NotFound(format!("container {id}")))?.pod_sandbox_id;
        self.container(id, sandbox).await
    }

    async fn list_containers(&self) -> Result<Vec<ContainerStatus>> {
        let list = self.containers(None).await?;
        let each = list.into_iter().map(|c| async move { self.container(&c.id, c.pod_sandbox_id.clone()).await });
        present(futures::stream::iter(each).buffer_unordered(PARALLEL).collect().await)
    }

    async fn update_container_resources(&self, id: &str, resources: LinuxContainerResources) -> Result<()> {
        let request = p::UpdateContainerResourcesRequest {
            container_id: id.into(),
            linux: Some(to_resources(&resources)),
            annotations: Default::default(),
        };
        call(self.client.clone().update_container_resources(timed(request))).await.map(drop)
    }

    async fn reopen_container_log(&self, id: &str) -> Result<()> {
        let request = p::ReopenContainerLogRequest { container_id: id.into() };
        call(self.client.clone().reopen_container_log(timed(request))).await.map(drop)
    }

    async fn update_pod_cgroup(&self, cgroup: &str, resources: LinuxContainerResources) -> Result<()> {
        self.cgroups.update(cgroup, resources).await
    }

    async fn remove_pod_cgroup(&self, cgroup: &str) -> Result<()> {
        self.cgroups.remove(cgroup).await
    }

    async fn exec_sync(&self, container_id: &str, cmd: Vec<String>, timeout: Duration) -> Result<ExecSyncOutput> {
        let seconds = i64::try_from(timeout.as_secs().max(u64::from(!timeout.is_zero()))).unwrap_or(i64::MAX);
        let (text, within) = (cmd.join(" "), if timeout.is_zero() { CALL } else { timeout.saturating_add(CALL) });
        let request = p::ExecSyncRequest { container_id: container_id.into(), cmd, timeout: seconds };
        match call(self.client.clone().exec_sync(lasting(request, within))).await {
            Ok(out) => Ok(ExecSyncOutput { stdout: out.stdout, stderr: out.stderr, exit_code: out.exit_code }),
            Err(Error::DeadlineExceeded(_)) => Err(Error::DeadlineExceeded(text)),
            Err(error) => Err(error),
        }
    }

    async fn exec(&self, _: ExecRequest) -> Result<Streams> {
        Err(elsewhere())
    }

    async fn attach(&self, _: ExecRequest) -> Result<Streams> {
        Err(elsewhere())
    }

    async fn port_forward(&self, _: &str, _: u16) -> Result<Box<dyn Duplex>> {
        Err(elsewhere())
    }

    async fn stream_url(&self, request: StreamRequest) -> Result<Option<String>> {
        let mut client = self.client.clone();
        let url = match request {
            StreamRequest::Exec(ExecRequest { container_id, cmd, tty, stdin, stdout, stderr }) => {
                call(client.exec(timed(p::ExecRequest { container_id, cmd, tty, stdin, stdout, stderr }))).await?.url
            }
            StreamRequest::Attach(ExecRequest { container_id, tty, stdin, stdout, stderr, .. }) => {
                call(client.attach(timed(p::AttachRequest { container_id, stdin, tty, stdout, stderr }))).await?.url
            }
            StreamRequest::PortForward { sandbox_id, ports } => {
                let port = ports.into_iter().map(i32::from).collect();
                call(client.port_forward(timed(p::PortForwardRequest { pod_sandbox_id: sandbox_id, port }))).await?.url
            }
        };
        Ok(Some(url))
    }

    async fn update_pod_cidrs(&self, cidrs: Vec<String>) -> Result<()> {
        let network_config = Some(p::NetworkConfig { pod_cidr: cidrs.join(",") });
        let request = p::UpdateRuntimeConfigRequest { runtime_config: Some(p::RuntimeConfig { network_config }) };
        call(self.client.clone().update_runtime_config(timed(request))).await.map(drop)
    }

    async fn container_stats(&self, id: &str) -> Result<Stats> {
        let request = p::ContainerStatsRequest { container_id: id.into() };
        let stats = call(self.client.clone().container_stats(timed(request))).await?.stats;
        stats.map(from_stats).ok_or_else(|| Error::NotFound(format!("stats of container {id}")))
    }

    async fn cgroup_stats(&self, cgroup: &str) -> Result<Stats> {
        self.cgroups.stats(cgroup).await
    }

    fn features(&self) -> RuntimeFeatures {
        self.features
    }

    fn subscribe(&self) -> broadcast::Receiver<ContainerEvent> {
        self.events.subscribe()
    }
}

/// Leaves out what has gone between the list and the look at each.
fn present<T>(results: Vec<Result<T>>) -> Result<Vec<T>> {
    results.into_iter().filter(|r| !matches!(r, Err(Error::NotFound(_)))).collect()
}

fn elsewhere() -> Error {
    Error::FailedPrecondition("the runtime serves its streams itself".into())
}

/// Configurations of sandboxes, in memory and on disk.
struct Configs {
    dir: PathBuf,
    known: Mutex<BTreeMap<String, PodSandboxConfig>>,
}

impl Configs {
    fn path(&self, id: &str) -> Option<PathBuf> {
        // The id is the runtime's: it must not lead anywhere else.
        id.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            .then(|| self.dir.join(format!("{id}.json")))
    }

    fn put(&self, id: &str, config: PodSandboxConfig) {
        let written = self.path(id).ok_or(std::io::ErrorKind::InvalidInput.into()).and_then(|path| {
            let temporary = path.with_extension("tmp");
            std::fs::write(&temporary, serde_json::to_vec(&config)?)?;
            std::fs::rename(temporary, path)
        });
        if let Err(error) = written {
            tracing::warn!(id, %error, "cannot keep a sandbox's configuration; no container starts in it after a restart");
        }
        self.known.lock().insert(id.to_owned(), config);
    }

    fn get(&self, id: &str) -> Result<PodSandboxConfig> {
        if let Some(config) = self.known.lock().get(id) {
            return Ok(config.clone());
        }
        let missing = || Error::NotFound(format!("configuration of sandbox {id}"));
        let text = std::fs::read(self.path(id).ok_or_else(missing)?).map_err(|_| missing())?;
        let config: PodSandboxConfig = serde_json::from_slice(&text).map_err(|e| Error::Internal(e.to_string()))?;
        self.known.lock().insert(id.to_owned(), config.clone());
        Ok(config)
    }

    fn remove(&self, id: &str) {
        self.known.lock().remove(id);
        if let Some(path) = self.path(id) {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_outlive_the_process() {
        let dir = tempfile::tempdir().expect("tempdir");
        let open = || Configs { dir: dir.path().to_owned(), known: Mutex::default() };
        let config = PodSandboxConfig { hostname: "h".into(), ..Default::default() };
        open().put("abc", config.clone());
        assert_eq!(open().get("abc").expect("kept"), config);
        open().remove("abc");
        assert!(open().get("abc").is_err());
        assert!(open().get("../x").is_err());
    }
}
