//! What the agent knows: sandboxes and containers, in memory and on disk.

use crate::protocol::{Phase, Record};
use cri::{
    ContainerConfig, ContainerState, ContainerStatus, Error, PodSandboxConfig, PodSandboxState, PodSandboxStatus,
    Result,
};
use oci::ProcessSpec;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// `sandbox.json`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub config: PodSandboxConfig,
    pub created_at: i64,
    pub ips: Vec<IpAddr>,
}

/// `container.json`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub sandbox_id: String,
    pub config: ContainerConfig,
    pub created_at: i64,
    pub image_ref: String,
    /// The image as the status names it; empty in records of before there was such a field.
    #[serde(default)]
    pub image_name: String,
    #[serde(default)]
    pub image_id: String,
    pub stop_signal: i32,
    pub log_path: PathBuf,
    /// Model of the processes exec starts; its arguments and terminal are filled in.
    pub process: ProcessSpec,
}

/// A sandbox.
pub(crate) struct Sandbox {
    pub id: String,
    pub dir: PathBuf,
    pub record: SandboxRecord,
    /// Whether its shim lives.
    pub alive: watch::Sender<bool>,
    pub monitor: Mutex<Option<AbortHandle>>,
    /// Held by stop and remove.
    pub teardown: tokio::sync::Mutex<()>,
}

/// A container.
pub(crate) struct Container {
    pub id: String,
    pub dir: PathBuf,
    pub record: Mutex<ContainerRecord>,
    pub state: watch::Sender<Record>,
    /// Made completely; before, nobody is shown it.
    pub visible: AtomicBool,
    /// Held by remove.
    pub teardown: tokio::sync::Mutex<()>,
}

impl Sandbox {
    pub(crate) fn new(id: &str, dir: &Path, record: SandboxRecord) -> Arc<Self> {
        Arc::new(Self {
            id: id.into(),
            dir: dir.into(),
            record,
            alive: watch::Sender::new(false),
            monitor: Mutex::new(None),
            teardown: tokio::sync::Mutex::default(),
        })
    }

    pub(crate) fn container_dir(&self, id: &str) -> PathBuf {
        self.dir.join("containers").join(id)
    }

    pub(crate) fn status(&self) -> PodSandboxStatus {
        let config = &self.record.config;
        PodSandboxStatus {
            id: self.id.clone(),
            metadata: config.metadata.clone(),
            state: if *self.alive.borrow() { PodSandboxState::Ready } else { PodSandboxState::NotReady },
            created_at: self.record.created_at,
            ips: self.record.ips.clone(),
            namespaces: config.namespaces.clone(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        }
    }
}

impl Container {
    pub(crate) fn new(id: &str, dir: &Path, record: ContainerRecord, state: Record, visible: bool) -> Arc<Self> {
        Arc::new(Self {
            id: id.into(),
            dir: dir.into(),
            record: Mutex::new(record),
            state: watch::Sender::new(state),
            visible: AtomicBool::new(visible),
            teardown: tokio::sync::Mutex::default(),
        })
    }

    pub(crate) fn phase(&self) -> Phase {
        self.state.borrow().phase
    }

    /// Waits until the container ended. The sender lives in `self`, so the wait cannot fail.
    pub(crate) async fn ended(&self) {
        let _ = self.state.subscribe().wait_for(|state| state.phase == Phase::Exited).await;
    }

    pub(crate) fn sandbox_id(&self) -> String {
        self.record.lock().sandbox_id.clone()
    }

    pub(crate) fn status(&self) -> ContainerStatus {
        let record = self.record.lock().clone();
        let state = self.state.borrow().clone();
        let identity = &state.identity;
        ContainerStatus {
            id: self.id.clone(),
            sandbox_id: record.sandbox_id,
            metadata: record.config.metadata,
            state: match state.phase {
                Phase::Created => ContainerState::Created,
                Phase::Running => ContainerState::Running,
                Phase::Exited => ContainerState::Exited,
            },
            created_at: record.created_at,
            started_at: state.started_at,
            finished_at: state.finished_at,
            exit_code: state.exit_code,
            image: if record.image_name.is_empty() { record.config.user_specified_image } else { record.image_name },
            image_id: record.image_id,
            image_ref: record.image_ref,
            reason: state.reason,
            message: state.message,
            labels: record.config.labels,
            annotations: record.config.annotations,
            mounts: record.config.mounts,
            log_path: record.log_path.display().to_string(),
            resources: record.config.resources,
            user: Some((
                identity.uid.into(),
                identity.gid.into(),
                identity.groups.iter().map(|g| i64::from(*g)).collect(),
            )),
            pid: state.pid,
        }
    }
}

/// All of them, by id.
#[derive(Default)]
pub(crate) struct State {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    sandboxes: HashMap<String, Arc<Sandbox>>,
    containers: HashMap<String, Arc<Container>>,
}

impl State {
    pub(crate) fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>> {
        self.inner.lock().sandboxes.get(id).cloned().ok_or_else(|| Error::NotFound(format!("sandbox \"{id}\"")))
    }

    pub(crate) fn container(&self, id: &str) -> Result<Arc<Container>> {
        let found = self.inner.lock().containers.get(id).cloned();
        found
            .filter(|c| c.visible.load(Ordering::Acquire))
            .ok_or_else(|| Error::NotFound(format!("container \"{id}\"")))
    }

    /// Also one that is still being made.
    pub(crate) fn any_container(&self, id: &str) -> Option<Arc<Container>> {
        self.inner.lock().containers.get(id).cloned()
    }

    pub(crate) fn sandboxes(&self) -> Vec<Arc<Sandbox>> {
        self.inner.lock().sandboxes.values().cloned().collect()
    }

    pub(crate) fn containers(&self) -> Vec<Arc<Container>> {
        let inner = self.inner.lock();
        inner.containers.values().filter(|c| c.visible.load(Ordering::Acquire)).cloned().collect()
    }

    pub(crate) fn containers_of(&self, sandbox: &str) -> Vec<Arc<Container>> {
        let all: Vec<_> = self.inner.lock().containers.values().cloned().collect();
        all.into_iter().filter(|c| c.record.lock().sandbox_id == sandbox).collect()
    }

    pub(crate) fn insert_sandbox(&self, sandbox: Arc<Sandbox>) {
        self.inner.lock().sandboxes.insert(sandbox.id.clone(), sandbox);
    }

    pub(crate) fn insert_container(&self, container: Arc<Container>) {
        self.inner.lock().containers.insert(container.id.clone(), container);
    }

    pub(crate) fn remove_sandbox(&self, id: &str) {
        self.inner.lock().sandboxes.remove(id);
    }

    pub(crate) fn remove_container(&self, id: &str) {
        self.inner.lock().containers.remove(id);
    }

    pub(crate) fn has_sandboxes(&self) -> bool {
        !self.inner.lock().sandboxes.is_empty()
    }

    pub(crate) fn stop_monitors(&self) {
        for sandbox in self.sandboxes() {
            if let Some(monitor) = sandbox.monitor.lock().take() {
                monitor.abort();
            }
        }
    }
}

/// A new id: 64 hex digits.
pub(crate) fn new_id() -> String {
    format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}
