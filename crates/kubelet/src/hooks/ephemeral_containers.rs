//! Ephemeral containers: started once each, never again.

use super::{Flow, Hook, start};
use crate::pod::{PodExt, from_ephemeral};
use crate::worker::Worker;
use async_trait::async_trait;

/// The hook.
pub struct EphemeralContainers;

#[async_trait]
impl Hook for EphemeralContainers {
    async fn sync(&self, worker: &mut Worker) -> Flow {
        let pod = worker.pod.clone();
        for ephemeral in pod.spec().ephemeral_containers.iter().flatten() {
            if worker.state.latest(&ephemeral.name).is_some() {
                continue;
            }
            let target = match ephemeral.target_container_name.as_deref().filter(|t| !t.is_empty()) {
                None => None,
                Some(name) => match worker.state.current(name) {
                    Some(target) => Some(target.id.clone()),
                    None => {
                        let message = format!("unable to find target container {name}");
                        worker.waiting.insert(ephemeral.name.clone(), ("CreateContainerConfigError".into(), message));
                        continue;
                    }
                },
            };
            start(worker, &from_ephemeral(ephemeral), target).await;
        }
        Flow::Continue
    }
}
