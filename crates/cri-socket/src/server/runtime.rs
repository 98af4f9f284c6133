//! `RuntimeService` of our runtime.

use super::streams::Sessions;
use super::{Answer, Options, answer, image_mounts, missing, stats};
use crate::convert::*;
use cri::{ContainerEvent, ContainerEventKind, ContainerStatus, PodSandboxStatus, StreamRequest};
use protos::cri as p;
use protos::cri::runtime_service_server::RuntimeService;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, async_trait};

/// The service.
pub struct Runtime {
    pub options: Arc<Options>,
    pub sessions: Sessions,
}

fn selected(labels: &std::collections::BTreeMap<String, String>, selector: &HashMap<String, String>) -> bool {
    selector.iter().all(|(k, v)| labels.get(k) == Some(v))
}

impl Runtime {
    async fn sandboxes(&self, filter: Option<p::PodSandboxFilter>) -> Result<Vec<PodSandboxStatus>, Status> {
        let filter = filter.unwrap_or_default();
        let state = filter.state.map(|s| s.state);
        let all = self.options.runtime.list_pod_sandboxes().await.map_err(to_status)?;
        let wanted = |s: &PodSandboxStatus| {
            (filter.id.is_empty() || s.id.starts_with(&filter.id))
                && state.is_none_or(|state| to_sandbox(s).state == state)
                && selected(&s.labels, &filter.label_selector)
        };
        Ok(all.into_iter().filter(wanted).collect())
    }

    async fn containers(&self, filter: Option<p::ContainerFilter>) -> Result<Vec<ContainerStatus>, Status> {
        let filter = filter.unwrap_or_default();
        let state = filter.state.map(|s| s.state);
        let all = self.options.runtime.list_containers().await.map_err(to_status)?;
        let wanted = |c: &ContainerStatus| {
            (filter.id.is_empty() || c.id.starts_with(&filter.id))
                && (filter.pod_sandbox_id.is_empty() || c.sandbox_id.starts_with(&filter.pod_sandbox_id))
                && state.is_none_or(|state| to_container(c).state == state)
                && selected(&c.labels, &filter.label_selector)
        };
        Ok(all.into_iter().filter(wanted).collect())
    }

    /// The id that a prefix means (crictl shows 13 digits).
    async fn container_id(&self, prefix: &str) -> Result<String, Status> {
        let filter = p::ContainerFilter { id: prefix.to_owned(), ..Default::default() };
        unambiguous(prefix, "container", self.containers(Some(filter)).await?.into_iter().map(|c| c.id))
    }

    async fn sandbox_id(&self, prefix: &str) -> Result<String, Status> {
        let filter = p::PodSandboxFilter { id: prefix.to_owned(), ..Default::default() };
        unambiguous(prefix, "pod sandbox", self.sandboxes(Some(filter)).await?.into_iter().map(|s| s.id))
    }
}

fn unambiguous(prefix: &str, what: &str, mut found: impl Iterator<Item = String>) -> Result<String, Status> {
    let not_found = || Status::not_found(format!("{what} {prefix:?} not found"));
    if prefix.is_empty() {
        return Err(Status::invalid_argument(format!("{what} id is not set")));
    }
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id),
        (None, _) => Err(not_found()),
        (Some(_), Some(_)) => Err(Status::invalid_argument(format!("{what} id {prefix:?} is ambiguous"))),
    }
}

/// Success also where the object is gone, as CRI wants it of stop and remove.
fn or_gone<T>(id: Result<T, Status>) -> Result<Option<T>, Status> {
    match id {
        Ok(id) => Ok(Some(id)),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
        Err(status) => Err(status),
    }
}

#[async_trait]
impl RuntimeService for Runtime {
    async fn version(&self, _: Request<p::VersionRequest>) -> Answer<p::VersionResponse> {
        let (runtime_name, runtime_version) = self.options.runtime.version();
        Ok(Response::new(p::VersionResponse {
            version: "0.1.0".into(),
            runtime_name,
            runtime_version,
            runtime_api_version: "v1".into(),
        }))
    }

    async fn status(&self, _: Request<p::StatusRequest>) -> Answer<p::StatusResponse> {
        let features = self.options.runtime.features();
        let handler = p::RuntimeHandler {
            name: String::new(),
            features: Some(p::RuntimeHandlerFeatures {
                recursive_read_only_mounts: features.recursive_read_only_mounts,
                user_namespaces: features.user_namespaces,
            }),
        };
        let condition = |c: cri::RuntimeCondition| p::RuntimeCondition {
            r#type: c.name.to_owned(),
            status: c.status,
            reason: c.reason,
            message: c.message,
        };
        answer(self.options.runtime.status().await, |conditions| p::StatusResponse {
            status: Some(p::RuntimeStatus { conditions: conditions.into_iter().map(condition).collect() }),
            info: HashMap::new(),
            runtime_handlers: vec![handler],
            features: Some(p::RuntimeFeatures {
                supplemental_groups_policy: features.supplemental_groups_policy,
                user_namespaces_host_network: false,
            }),
        })
    }

    async fn runtime_config(&self, _: Request<p::RuntimeConfigRequest>) -> Answer<p::RuntimeConfigResponse> {
        let linux = p::LinuxRuntimeConfiguration { cgroup_driver: p::CgroupDriver::Cgroupfs.into() };
        Ok(Response::new(p::RuntimeConfigResponse { linux: Some(linux) }))
    }

    async fn update_runtime_config(
        &self,
        request: Request<p::UpdateRuntimeConfigRequest>,
    ) -> Answer<p::UpdateRuntimeConfigResponse> {
        let network = request.into_inner().runtime_config.and_then(|c| c.network_config).unwrap_or_default();
        let cidrs: Vec<String> = network.pod_cidr.split(',').filter(|c| !c.is_empty()).map(str::to_owned).collect();
        if let Some(handler) = self.options.on_pod_cidr.as_ref().filter(|_| !cidrs.is_empty()) {
            handler(cidrs).await;
        }
        Ok(Response::new(p::UpdateRuntimeConfigResponse {}))
    }

    async fn run_pod_sandbox(&self, request: Request<p::RunPodSandboxRequest>) -> Answer<p::RunPodSandboxResponse> {
        let request = request.into_inner();
        let config = request.config.ok_or_else(|| missing("config"))?;
        let mut config = from_sandbox_config(config, request.runtime_handler);
        if config.cgroup_parent.is_empty() {
            config.cgroup_parent.clone_from(&self.options.cgroup);
        }
        let made = self.options.runtime.run_pod_sandbox(config).await;
        answer(made, |pod_sandbox_id| p::RunPodSandboxResponse { pod_sandbox_id })
    }

    async fn stop_pod_sandbox(&self, request: Request<p::StopPodSandboxRequest>) -> Answer<p::StopPodSandboxResponse> {
        if let Some(id) = or_gone(self.sandbox_id(&request.into_inner().pod_sandbox_id).await)? {
            self.options.runtime.stop_pod_sandbox(&id).await.map_err(to_status)?;
        }
        Ok(Response::new(p::StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<p::RemovePodSandboxRequest>,
    ) -> Answer<p::RemovePodSandboxResponse> {
        if let Some(id) = or_gone(self.sandbox_id(&request.into_inner().pod_sandbox_id).await)? {
            // CRI: running containers are ended, not waited for.
            self.options.runtime.stop_pod_sandbox(&id).await.map_err(to_status)?;
            self.options.runtime.remove_pod_sandbox(&id).await.map_err(to_status)?;
            image_mounts::release(&self.options, &id).await.map_err(to_status)?;
        }
        Ok(Response::new(p::RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<p::PodSandboxStatusRequest>,
    ) -> Answer<p::PodSandboxStatusResponse> {
        let id = self.sandbox_id(&request.into_inner().pod_sandbox_id).await?;
        let filter = p::ContainerFilter { pod_sandbox_id: id.clone(), ..Default::default() };
        let containers = self.containers(Some(filter)).await?;
        answer(self.options.runtime.pod_sandbox_status(&id).await, |status| p::PodSandboxStatusResponse {
            status: Some(to_sandbox_status(&status)),
            info: HashMap::new(),
            containers_statuses: containers.iter().map(to_container_status).collect(),
            timestamp: super::now(),
        })
    }

    async fn list_pod_sandbox(&self, request: Request<p::ListPodSandboxRequest>) -> Answer<p::ListPodSandboxResponse> {
        let items = self.sandboxes(request.into_inner().filter).await?.iter().map(to_sandbox).collect();
        Ok(Response::new(p::ListPodSandboxResponse { items }))
    }

    async fn create_container(
        &self,
        request: Request<p::CreateContainerRequest>,
    ) -> Answer<p::CreateContainerResponse> {
        let request = request.into_inner();
        let mut config = request.config.ok_or_else(|| missing("config"))?;
        if config.image.as_ref().is_none_or(|image| image.image.is_empty()) {
            // Containers without an image are the kubelet's own.
            return Err(missing("config.image"));
        }
        let id = self.sandbox_id(&request.pod_sandbox_id).await?;
        image_mounts::prepare(&self.options, &id, &mut config).await.map_err(to_status)?;
        let config = from_container_config(config).map_err(to_status)?;
        let made = self.options.runtime.create_container(&id, config).await;
        answer(made, |container_id| p::CreateContainerResponse { container_id })
    }

    async fn start_container(&self, request: Request<p::StartContainerRequest>) -> Answer<p::StartContainerResponse> {
        let id = self.container_id(&request.into_inner().container_id).await?;
        answer(self.options.runtime.start_container(&id).await, |()| p::StartContainerResponse {})
    }

    async fn stop_container(&self, request: Request<p::StopContainerRequest>) -> Answer<p::StopContainerResponse> {
        let request = request.into_inner();
        let grace = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
        if let Some(id) = or_gone(self.container_id(&request.container_id).await)? {
            self.options.runtime.stop_container(&id, grace).await.map_err(to_status)?;
        }
        Ok(Response::new(p::StopContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<p::RemoveContainerRequest>,
    ) -> Answer<p::RemoveContainerResponse> {
        if let Some(id) = or_gone(self.container_id(&request.into_inner().container_id).await)? {
            // CRI: a running container is ended first, without grace.
            self.options.runtime.stop_container(&id, Duration::ZERO).await.map_err(to_status)?;
            self.options.runtime.remove_container(&id).await.map_err(to_status)?;
        }
        Ok(Response::new(p::RemoveContainerResponse {}))
    }

    async fn list_containers(&self, request: Request<p::ListContainersRequest>) -> Answer<p::ListContainersResponse> {
        let containers = self.containers(request.into_inner().filter).await?.iter().map(to_container).collect();
        Ok(Response::new(p::ListContainersResponse { containers }))
    }

    async fn container_status(
        &self,
        request: Request<p::ContainerStatusRequest>,
    ) -> Answer<p::ContainerStatusResponse> {
        let request = request.into_inner();
        let id = self.container_id(&request.container_id).await?;
        answer(self.options.runtime.container_status(&id).await, |status| p::ContainerStatusResponse {
            info: if request.verbose { info(&status) } else { HashMap::new() },
            status: Some(to_container_status(&status)),
        })
    }

    async fn update_container_resources(
        &self,
        request: Request<p::UpdateContainerResourcesRequest>,
    ) -> Answer<p::UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        let id = self.container_id(&request.container_id).await?;
        let updated = self.options.runtime.update_container_resources(&id, from_resources(request.linux)).await;
        answer(updated, |()| p::UpdateContainerResourcesResponse {})
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<p::UpdatePodSandboxResourcesRequest>,
    ) -> Answer<p::UpdatePodSandboxResourcesResponse> {
        // A notice only: whoever calls has changed the pod's cgroup itself.
        self.sandbox_id(&request.into_inner().pod_sandbox_id).await?;
        Ok(Response::new(p::UpdatePodSandboxResourcesResponse {}))
    }

    async fn reopen_container_log(
        &self,
        request: Request<p::ReopenContainerLogRequest>,
    ) -> Answer<p::ReopenContainerLogResponse> {
        let id = self.container_id(&request.into_inner().container_id).await?;
        answer(self.options.runtime.reopen_container_log(&id).await, |()| p::ReopenContainerLogResponse {})
    }

    async fn exec_sync(&self, request: Request<p::ExecSyncRequest>) -> Answer<p::ExecSyncResponse> {
        let p::ExecSyncRequest { container_id, cmd, timeout } = request.into_inner();
        let id = self.container_id(&container_id).await?;
        // CRI: zero means without limit.
        let limit = u64::try_from(timeout).ok().filter(|t| *t > 0).map_or(Duration::MAX, Duration::from_secs);
        let done = self.options.runtime.exec_sync(&id, cmd, limit.min(Duration::from_secs(365 * 24 * 3600))).await;
        answer(done, |out| p::ExecSyncResponse { stdout: out.stdout, stderr: out.stderr, exit_code: out.exit_code })
    }

    async fn exec(&self, request: Request<p::ExecRequest>) -> Answer<p::ExecResponse> {
        let p::ExecRequest { container_id, cmd, tty, stdin, stdout, stderr } = request.into_inner();
        let container_id = self.container_id(&container_id).await?;
        let session = cri::ExecRequest { container_id, cmd, tty, stdin, stdout, stderr: stderr && !tty };
        let url = self.sessions.open(StreamRequest::Exec(session))?;
        Ok(Response::new(p::ExecResponse { url }))
    }

    async fn attach(&self, request: Request<p::AttachRequest>) -> Answer<p::AttachResponse> {
        let p::AttachRequest { container_id, stdin, tty, stdout, stderr } = request.into_inner();
        let container_id = self.container_id(&container_id).await?;
        let stderr = stderr && !tty;
        let session = cri::ExecRequest { container_id, cmd: Vec::new(), tty, stdin, stdout, stderr };
        let url = self.sessions.open(StreamRequest::Attach(session))?;
        Ok(Response::new(p::AttachResponse { url }))
    }

    async fn port_forward(&self, request: Request<p::PortForwardRequest>) -> Answer<p::PortForwardResponse> {
        let p::PortForwardRequest { pod_sandbox_id, port } = request.into_inner();
        let sandbox_id = self.sandbox_id(&pod_sandbox_id).await?;
        let ports = port.into_iter().filter_map(|p| u16::try_from(p).ok()).collect();
        let url = self.sessions.open(StreamRequest::PortForward { sandbox_id, ports })?;
        Ok(Response::new(p::PortForwardResponse { url }))
    }

    async fn container_stats(&self, request: Request<p::ContainerStatsRequest>) -> Answer<p::ContainerStatsResponse> {
        let id = self.container_id(&request.into_inner().container_id).await?;
        let container = self.options.runtime.container_status(&id).await.map_err(to_status)?;
        let stats = stats::container(&self.options, &container).await.map_err(to_status)?;
        Ok(Response::new(p::ContainerStatsResponse { stats: Some(stats) }))
    }

    async fn list_container_stats(
        &self,
        request: Request<p::ListContainerStatsRequest>,
    ) -> Answer<p::ListContainerStatsResponse> {
        let filter = request.into_inner().filter.map(|f| p::ContainerFilter {
            id: f.id,
            pod_sandbox_id: f.pod_sandbox_id,
            label_selector: f.label_selector,
            state: None,
        });
        let stats = stats::containers(&self.options, &self.containers(filter).await?).await;
        Ok(Response::new(p::ListContainerStatsResponse { stats }))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<p::PodSandboxStatsRequest>,
    ) -> Answer<p::PodSandboxStatsResponse> {
        let id = self.sandbox_id(&request.into_inner().pod_sandbox_id).await?;
        let sandbox = self.options.runtime.pod_sandbox_status(&id).await.map_err(to_status)?;
        let filter = p::ContainerFilter { pod_sandbox_id: id, ..Default::default() };
        let stats = stats::sandbox(&self.options, &sandbox, &self.containers(Some(filter)).await?).await;
        Ok(Response::new(p::PodSandboxStatsResponse { stats: Some(stats) }))
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<p::ListPodSandboxStatsRequest>,
    ) -> Answer<p::ListPodSandboxStatsResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let filter = p::PodSandboxFilter { id: filter.id, state: None, label_selector: filter.label_selector };
        let (sandboxes, containers) = (self.sandboxes(Some(filter)).await?, self.containers(None).await?);
        let mut out = Vec::new();
        for sandbox in sandboxes {
            let own: Vec<ContainerStatus> = containers.iter().filter(|c| c.sandbox_id == sandbox.id).cloned().collect();
            out.push(stats::sandbox(&self.options, &sandbox, &own).await);
        }
        Ok(Response::new(p::ListPodSandboxStatsResponse { stats: out }))
    }

    async fn get_container_events(
        &self,
        _: Request<p::GetEventsRequest>,
    ) -> Answer<BoxStream<p::ContainerEventResponse>> {
        let (runtime, receiver) = (self.options.runtime.clone(), self.options.runtime.subscribe());
        let stream = futures::stream::unfold((runtime, receiver), |(runtime, mut receiver)| async move {
            let answer = loop {
                let event = match receiver.recv().await {
                    Ok(event) => event,
                    // The client connects again and lists, as it does after any end of the stream.
                    Err(RecvError::Lagged(_)) => break Err(Status::data_loss("events were lost")),
                    Err(RecvError::Closed) => return None,
                };
                if let Some(kind) = to_event_type(&event.kind) {
                    break Ok(event_response(&*runtime, event, kind).await);
                }
            };
            Some((answer, (runtime, receiver)))
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

/// The kind on the wire, where it has one.
fn to_event_type(kind: &ContainerEventKind) -> Option<p::ContainerEventType> {
    match kind {
        ContainerEventKind::Created => Some(p::ContainerEventType::ContainerCreatedEvent),
        ContainerEventKind::Started => Some(p::ContainerEventType::ContainerStartedEvent),
        ContainerEventKind::Stopped => Some(p::ContainerEventType::ContainerStoppedEvent),
        ContainerEventKind::Deleted => Some(p::ContainerEventType::ContainerDeletedEvent),
        ContainerEventKind::LogFull => None,
    }
}

async fn event_response(
    runtime: &dyn cri::RuntimeService,
    event: ContainerEvent,
    kind: p::ContainerEventType,
) -> p::ContainerEventResponse {
    let containers = runtime.list_containers().await.unwrap_or_default();
    let sandbox_id = containers.iter().find(|c| c.id == event.id).map_or(&event.id, |c| &c.sandbox_id);
    let sandbox = match runtime.pod_sandbox_status(sandbox_id).await {
        Ok(status) => to_sandbox_status(&status),
        // What is deleted has no status left; whose it was is still told.
        Err(_) => p::PodSandboxStatus {
            metadata: Some(p::PodSandboxMetadata { uid: event.pod_uid.clone(), ..Default::default() }),
            ..Default::default()
        },
    };
    let own = containers.iter().filter(|c| c.sandbox_id == *sandbox_id).map(to_container_status).collect();
    p::ContainerEventResponse {
        container_id: event.id.clone(),
        container_event_type: kind.into(),
        created_at: event.at,
        pod_sandbox_status: Some(sandbox),
        containers_statuses: own,
    }
}

/// What `crictl inspect` shows besides.
fn info(status: &ContainerStatus) -> HashMap<String, String> {
    let info = serde_json::json!({"sandboxID": status.sandbox_id, "pid": status.pid.unwrap_or(0)});
    HashMap::from([("info".to_owned(), info.to_string())])
}
