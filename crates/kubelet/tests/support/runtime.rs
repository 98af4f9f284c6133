//! A runtime in memory. Commands say what a "process" does: `exit <code>`, else it runs until it is stopped.

use async_trait::async_trait;
use cri::*;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::broadcast;

#[derive(Default)]
struct Content {
    sandboxes: BTreeMap<String, PodSandboxStatus>,
    containers: BTreeMap<String, ContainerStatus>,
    configs: BTreeMap<String, ContainerConfig>,
    logs: BTreeMap<String, String>,
    calls: Vec<String>,
}

pub struct FakeRuntime {
    content: Mutex<Content>,
    next: AtomicU64,
    events: broadcast::Sender<ContainerEvent>,
}

fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("clock").as_nanos() as i64
}

impl FakeRuntime {
    pub fn new() -> Self {
        Self { content: Mutex::default(), next: AtomicU64::new(1), events: broadcast::channel(256).0 }
    }

    fn id(&self) -> String {
        format!("{:064x}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn emit(&self, kind: ContainerEventKind, id: &str, pod_uid: &str) {
        let _ = self.events.send(ContainerEvent { kind, id: id.into(), pod_uid: pod_uid.into(), at: now() });
    }

    pub fn calls(&self) -> Vec<String> {
        self.content.lock().expect("lock").calls.clone()
    }

    pub fn config(&self, name: &str) -> Option<ContainerConfig> {
        let content = self.content.lock().expect("lock");
        content.configs.values().filter(|c| c.metadata.name == name).max_by_key(|c| c.metadata.attempt).cloned()
    }

    /// Ends a container by name, as its process would.
    pub fn end(&self, name: &str, code: i32) {
        let ids: Vec<String> = {
            let content = self.content.lock().expect("lock");
            content
                .containers
                .values()
                .filter(|c| c.metadata.name == name && c.state == ContainerState::Running)
                .map(|c| c.id.clone())
                .collect()
        };
        ids.iter().for_each(|id| self.exit(id, code));
    }

    fn exit(&self, id: &str, code: i32) {
        let uid = {
            let mut content = self.content.lock().expect("lock");
            let Some(container) = content.containers.get_mut(id).filter(|c| c.state == ContainerState::Running) else {
                return;
            };
            container.state = ContainerState::Exited;
            container.exit_code = code;
            container.finished_at = now();
            container.reason = if code == 0 { "Completed" } else { "Error" }.into();
            container.labels["io.kubernetes.pod.uid"].clone()
        };
        self.emit(ContainerEventKind::Stopped, id, &uid);
    }
}

#[async_trait]
impl RuntimeService for FakeRuntime {
    fn version(&self) -> (String, String) {
        ("fake".into(), "1".into())
    }

    async fn status(&self) -> Result<Vec<RuntimeCondition>> {
        let ready = |name| RuntimeCondition { name, status: true, ..RuntimeCondition::default() };
        Ok(vec![ready("RuntimeReady"), ready("NetworkReady")])
    }

    async fn run_pod_sandbox(&self, config: PodSandboxConfig) -> Result<String> {
        let id = self.id();
        let sandbox = PodSandboxStatus {
            id: id.clone(),
            metadata: config.metadata.clone(),
            state: PodSandboxState::Ready,
            created_at: now(),
            ips: vec!["10.1.0.5".parse().expect("ip")],
            namespaces: config.namespaces,
            labels: config.labels,
            annotations: config.annotations,
        };
        let mut content = self.content.lock().expect("lock");
        content.calls.push(format!("run_pod_sandbox {}", config.metadata.name));
        content.logs.insert(id.clone(), config.log_directory);
        content.sandboxes.insert(id.clone(), sandbox);
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        let mut content = self.content.lock().expect("lock");
        if let Some(sandbox) = content.sandboxes.get_mut(id) {
            sandbox.state = PodSandboxState::NotReady;
        }
        Ok(())
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        let mut content = self.content.lock().expect("lock");
        content.calls.push("remove_pod_sandbox".into());
        content.sandboxes.remove(id);
        content.containers.retain(|_, c| c.sandbox_id != id);
        Ok(())
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatus> {
        self.content.lock().expect("lock").sandboxes.get(id).cloned().ok_or_else(|| Error::NotFound(id.into()))
    }

    async fn list_pod_sandboxes(&self) -> Result<Vec<PodSandboxStatus>> {
        Ok(self.content.lock().expect("lock").sandboxes.values().cloned().collect())
    }

    async fn create_container(&self, sandbox_id: &str, config: ContainerConfig) -> Result<String> {
        let id = self.id();
        let status = ContainerStatus {
            id: id.clone(),
            sandbox_id: sandbox_id.into(),
            metadata: config.metadata.clone(),
            state: ContainerState::Created,
            created_at: now(),
            started_at: 0,
            finished_at: 0,
            exit_code: 0,
            image: config.user_specified_image.clone(),
            image_ref: format!("{}@sha256:0", config.user_specified_image),
            image_id: config.image.clone(),
            reason: String::new(),
            message: String::new(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            mounts: config.mounts.clone(),
            log_path: String::new(),
            resources: config.resources.clone(),
            user: Some((0, 0, vec![0])),
            pid: None,
        };
        let mut content = self.content.lock().expect("lock");
        content.calls.push(format!("create_container {} {}", config.metadata.name, config.metadata.attempt));
        let status =
            ContainerStatus { log_path: format!("{}/{}", content.logs[sandbox_id], config.log_path), ..status };
        std::fs::write(
            &status.log_path,
            "2026-01-01T00:00:01.000000000Z stdout F one\n2026-01-01T00:00:02.000000000Z stderr F two\n",
        )
        .expect("log");
        content.containers.insert(id.clone(), status);
        content.configs.insert(id.clone(), config);
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        let (uid, command) = {
            let mut content = self.content.lock().expect("lock");
            let command = content.configs[id].command.clone();
            let container = content.containers.get_mut(id).ok_or_else(|| Error::NotFound(id.into()))?;
            container.state = ContainerState::Running;
            container.started_at = now();
            (container.labels["io.kubernetes.pod.uid"].clone(), command)
        };
        self.emit(ContainerEventKind::Started, id, &uid);
        if let [word, code] = command.as_slice()
            && word == "exit"
        {
            self.exit(id, code.parse().expect("code"));
        }
        Ok(())
    }

    async fn stop_container(&self, id: &str, _: Duration) -> Result<()> {
        let name = {
            let mut content = self.content.lock().expect("lock");
            let name = content.containers.get(id).map(|c| c.metadata.name.clone()).unwrap_or_default();
            content.calls.push(format!("stop_container {name}"));
            name
        };
        let _ = name;
        self.exit(id, 143);
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        self.content.lock().expect("lock").containers.remove(id);
        Ok(())
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus> {
        self.content.lock().expect("lock").containers.get(id).cloned().ok_or_else(|| Error::NotFound(id.into()))
    }

    async fn list_containers(&self) -> Result<Vec<ContainerStatus>> {
        Ok(self.content.lock().expect("lock").containers.values().cloned().collect())
    }

    async fn update_container_resources(&self, id: &str, resources: LinuxContainerResources) -> Result<()> {
        let mut content = self.content.lock().expect("lock");
        content.calls.push(format!("update_container_resources {}", resources.cpu_quota));
        if let Some(container) = content.containers.get_mut(id) {
            container.resources = resources;
        }
        Ok(())
    }

    async fn reopen_container_log(&self, _: &str) -> Result<()> {
        Ok(())
    }

    async fn update_pod_cgroup(&self, cgroup: &str, _: LinuxContainerResources) -> Result<()> {
        self.content.lock().expect("lock").calls.push(format!("cgroup {cgroup}"));
        Ok(())
    }

    async fn remove_pod_cgroup(&self, _: &str) -> Result<()> {
        Ok(())
    }

    async fn exec_sync(&self, _: &str, cmd: Vec<String>, _: Duration) -> Result<ExecSyncOutput> {
        let code = cmd.get(1).and_then(|c| c.parse().ok()).unwrap_or(0);
        self.content.lock().expect("lock").calls.push(format!("exec_sync {}", cmd.join(" ")));
        Ok(ExecSyncOutput { stdout: b"said".to_vec(), stderr: Vec::new(), exit_code: code })
    }

    async fn exec(&self, request: ExecRequest) -> Result<Streams> {
        let (stdout, mut process_out) = tokio::io::duplex(1024);
        let (stdin, mut process_in) = tokio::io::duplex(1024);
        let (sender, exit) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            match request.cmd.first().map(String::as_str) {
                Some("cat") => drop(tokio::io::copy(&mut process_in, &mut process_out).await),
                _ => {
                    drop(tokio::io::AsyncWriteExt::write_all(&mut process_out, request.cmd.join(" ").as_bytes()).await)
                }
            }
            drop(process_out);
            let code =
                request.cmd.get(1).filter(|_| request.cmd[0] == "exit").and_then(|c| c.parse().ok()).unwrap_or(0);
            let _ = sender.send(Ok(code));
        });
        let stdin = request.stdin.then(|| Box::new(stdin) as Writer);
        Ok(Streams { stdin, stdout: Some(Box::new(stdout)), stderr: None, resize: None, exit })
    }

    async fn attach(&self, request: ExecRequest) -> Result<Streams> {
        self.exec(request).await
    }

    async fn port_forward(&self, _: &str, _: u16) -> Result<Box<dyn Duplex>> {
        let (near, far) = tokio::io::duplex(1024);
        tokio::spawn(async move {
            let (mut from, mut to) = tokio::io::split(far);
            let _ = tokio::io::copy(&mut from, &mut to).await;
        });
        Ok(Box::new(near))
    }

    async fn container_stats(&self, _: &str) -> Result<Stats> {
        Ok(Stats::default())
    }

    async fn cgroup_stats(&self, _: &str) -> Result<Stats> {
        Ok(Stats::default())
    }

    fn subscribe(&self) -> broadcast::Receiver<ContainerEvent> {
        self.events.subscribe()
    }
}

#[async_trait]
impl ImageService for FakeRuntime {
    async fn list_images(&self) -> Result<Vec<Image>> {
        Ok(Vec::new())
    }

    async fn image_status(&self, image: &str) -> Result<Option<Image>> {
        Ok((!image.contains("missing")).then(|| Image { id: format!("sha256:{image}"), ..Image::default() }))
    }

    async fn pull_image(&self, image: &str, _: Option<AuthConfig>) -> Result<String> {
        match image.contains("missing") {
            true => Err(Error::Image { reason: "ErrImagePull", message: format!("{image}: not found") }),
            false => Ok(image.to_owned()),
        }
    }

    async fn remove_image(&self, _: &str) -> Result<()> {
        Ok(())
    }

    async fn image_fs_bytes(&self) -> Result<u64> {
        Ok(0)
    }
}
