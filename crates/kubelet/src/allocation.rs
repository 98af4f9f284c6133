//! What a pod was granted of its node, which a resize may leave behind what its spec asks for (KEP-1287).
//!
//! It is written down with the pod's directory, so that a kubelet that starts again neither ends a pod for a size it
//! never got, nor gives it that size unasked.

use crate::pod::{PodExt, is_sidecar};
use api::k8s::core::v1::{Container, Pod, ResourceRequirements};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

const FILE: &str = "allocation.json";

/// Resources as last granted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Allocation {
    /// Of the pod as a whole (KEP-5419).
    pub pod: Option<ResourceRequirements>,
    /// Of regular containers and sidecars by name.
    pub containers: BTreeMap<String, Option<ResourceRequirements>>,
}

impl Allocation {
    /// All that a spec asks for.
    pub fn asked_by(pod: &Pod) -> Self {
        let containers = containers(pod).map(|c| (c.name.clone(), c.resources.clone())).collect();
        Self { pod: pod.spec().resources.clone(), containers }
    }

    /// The pod with what it was granted in place of what its spec asks for.
    pub fn apply(&self, asked: &Arc<Pod>) -> Arc<Pod> {
        if *self == Self::asked_by(asked) {
            return asked.clone();
        }
        let mut out = Pod::clone(asked);
        if let Some(spec) = &mut out.spec {
            spec.resources.clone_from(&self.pod);
            for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
                if let Some(granted) = self.containers.get(&container.name) {
                    container.resources.clone_from(granted);
                }
            }
        }
        Arc::new(out)
    }

    /// What an earlier life of the kubelet granted, if it wrote that down in this pod's directory.
    pub fn read(pod_dir: &Path) -> Option<Self> {
        let path = pod_dir.join(FILE);
        let text = std::fs::read(&path).ok()?;
        let parsed = serde_json::from_slice(&text);
        parsed
            .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "cannot read what a pod was granted"))
            .ok()
    }

    /// Writes it down; nothing is known of a pod without any resources, which no resize can give it.
    pub fn write(&self, pod_dir: &Path) -> io::Result<()> {
        if self.pod.is_none() && self.containers.values().all(Option::is_none) {
            return Ok(());
        }
        let temporary = pod_dir.join(".allocation.json");
        std::fs::write(&temporary, serde_json::to_vec(self)?)?;
        std::fs::rename(temporary, pod_dir.join(FILE))
    }
}

/// The containers that a resize may be about.
pub fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let sidecars = pod.spec().init_containers.iter().flatten().filter(|c| is_sidecar(c));
    pod.spec().containers.iter().chain(sidecars)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(cpu: &str) -> Arc<Pod> {
        let container = |name: &str| json!({"name": name, "resources": {"requests": {"cpu": cpu}}});
        let mut sidecar = container("s");
        sidecar["restartPolicy"] = "Always".into();
        let spec = json!({"containers": [container("c"), {"name": "d"}], "initContainers": [container("i"), sidecar]});
        Arc::new(serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).expect("pod"))
    }

    #[test]
    fn what_was_granted_takes_the_place_of_what_is_asked_for() {
        let granted = Allocation::asked_by(&pod("1"));
        assert_eq!(granted.containers.keys().collect::<Vec<_>>(), ["c", "d", "s"]);
        let same = pod("1");
        assert!(Arc::ptr_eq(&granted.apply(&same), &same));
        let applied = granted.apply(&pod("2"));
        let cpu = |c: &Container| c.resources.as_ref().map(|r| r.requests.as_ref().expect("requests")["cpu"].0.clone());
        let spec = applied.spec();
        assert_eq!(spec.containers.iter().map(cpu).collect::<Vec<_>>(), [Some("1".into()), None]);
        let init = spec.init_containers.iter().flatten().map(cpu).collect::<Vec<_>>();
        assert_eq!(init, [Some("2".into()), Some("1".into())]);
    }

    #[test]
    fn it_outlives_the_kubelet() {
        let dir = tempfile::tempdir().expect("directory");
        assert_eq!(Allocation::read(dir.path()), None);
        let granted = Allocation::asked_by(&pod("1"));
        granted.write(dir.path()).expect("written");
        assert_eq!(Allocation::read(dir.path()), Some(granted));
        assert_eq!(std::fs::read_dir(dir.path()).expect("list").count(), 1);
        std::fs::write(dir.path().join(FILE), "{").expect("write");
        assert_eq!(Allocation::read(dir.path()), None);
    }
}
