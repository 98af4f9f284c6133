//! What the runtime says of one pod: its sandboxes and containers.
//!
//! A worker owns the state of its pod. It is filled once from the runtime's lists (so that a restarted kubelet
//! takes over what runs) and afterwards refreshed per id: after the worker's own calls and for ids in events.

use api::k8s::core::v1::Container;
use cri::{ContainerState, ContainerStatus, PodSandboxState, PodSandboxStatus, RuntimeService};
use std::collections::BTreeMap;

/// Labels and annotations by which pods and containers are found again.
pub mod label {
    #![allow(missing_docs)]
    pub const POD_NAME: &str = "io.kubernetes.pod.name";
    pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    pub const POD_UID: &str = "io.kubernetes.pod.uid";
    pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
    pub const HASH: &str = "io.kubernetes.container.hash";
    pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
    pub const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
    pub const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
    pub const GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";
}

/// A container with the message it left.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerView {
    /// The runtime's status; its `message` includes the termination message.
    pub status: ContainerStatus,
}

/// Sandboxes and containers of one pod by id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodState {
    /// Sandboxes.
    pub sandboxes: BTreeMap<String, PodSandboxStatus>,
    /// Containers.
    pub containers: BTreeMap<String, ContainerView>,
}

impl PodState {
    /// Reads the whole state of a pod from the runtime.
    pub async fn list(runtime: &dyn RuntimeService, uid: &str) -> cri::Result<Self> {
        let mut state = Self::default();
        let (sandboxes, containers) = runtime.list_pod(uid).await?;
        state.sandboxes.extend(sandboxes.into_iter().map(|sandbox| (sandbox.id.clone(), sandbox)));
        containers.into_iter().for_each(|container| state.put(container, runtime.features().linked_logs));
        Ok(state)
    }

    /// Reads one id anew; one the runtime does not know is forgotten.
    pub async fn refresh(&mut self, runtime: &dyn RuntimeService, id: &str) -> cri::Result<()> {
        if !self.containers.contains_key(id) {
            match runtime.pod_sandbox_status(id).await {
                Ok(sandbox) => {
                    self.sandboxes.insert(id.to_owned(), sandbox);
                    return Ok(());
                }
                Err(cri::Error::NotFound(_)) => drop(self.sandboxes.remove(id)),
                Err(error) => return Err(error),
            }
        }
        match runtime.container_status(id).await {
            Ok(container) => self.put(container, runtime.features().linked_logs),
            Err(cri::Error::NotFound(_)) => drop(self.containers.remove(id)),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// `linked`: logs of the runtime may be links.
    fn put(&mut self, mut status: ContainerStatus, linked: bool) {
        let known = self.containers.get(&status.id).filter(|c| c.status.state == ContainerState::Exited);
        if let Some(known) = known {
            status.message.clone_from(&known.status.message);
        } else if status.state == ContainerState::Exited {
            let message = crate::termination_message::read(&status, linked);
            if !message.is_empty() {
                status.message =
                    if status.message.is_empty() { message } else { format!("{}: {message}", status.message) };
            }
        }
        self.containers.insert(status.id.clone(), ContainerView { status });
    }

    /// The newest sandbox, whatever its state.
    pub fn newest_sandbox(&self) -> Option<&PodSandboxStatus> {
        self.sandboxes.values().max_by_key(|s| (s.created_at, s.metadata.attempt))
    }

    /// The sandbox containers are made in: the newest, if it is ready.
    pub fn sandbox(&self) -> Option<&PodSandboxStatus> {
        self.newest_sandbox().filter(|s| s.state == PodSandboxState::Ready)
    }

    /// All instances of a container, the newest first.
    pub fn history(&self, name: &str) -> Vec<&ContainerStatus> {
        let mut all: Vec<_> = self.containers.values().map(|c| &c.status).filter(|s| s.metadata.name == name).collect();
        all.sort_by_key(|s| std::cmp::Reverse((s.created_at, s.metadata.attempt)));
        all
    }

    /// The newest instance of a container.
    pub fn latest(&self, name: &str) -> Option<&ContainerStatus> {
        self.history(name).into_iter().next()
    }

    /// The newest instance in the current sandbox.
    pub fn current(&self, name: &str) -> Option<&ContainerStatus> {
        let sandbox = self.sandbox()?;
        self.latest(name).filter(|s| s.sandbox_id == sandbox.id)
    }

    /// Containers whose process may run.
    pub fn running(&self) -> impl Iterator<Item = &ContainerStatus> {
        let all = self.containers.values().map(|c| &c.status);
        all.filter(|s| matches!(s.state, ContainerState::Running | ContainerState::Unknown))
    }

    /// Whether a regular container was ever made in the current sandbox: initialization is over.
    pub fn has_initialized(&self, containers: &[Container]) -> bool {
        containers.iter().any(|c| self.current(&c.name).is_some())
    }
}
