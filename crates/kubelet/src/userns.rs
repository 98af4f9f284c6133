//! User namespaces of pods (`hostUsers: false`, KEP-127): each pod has ids of the node that no other pod has.
//!
//! A pod's range is in a file of its directory, so that a restarted kubelet knows it.

use crate::config::Config;
use crate::pod::PodExt;
use api::k8s::core::v1::Pod;
use cri::IdMapping;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

const FILE: &str = "userns";

/// The file, in upstream's form.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    uid_mappings: Vec<Mapping>,
    gid_mappings: Vec<Mapping>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    host_id: u32,
    container_id: u32,
    length: u32,
}

/// Ranges by pod.
pub struct UserNamespaces {
    /// Ids of one pod; the first range is the node's own users.
    length: u32,
    most: u32,
    taken: Mutex<BTreeMap<String, u32>>,
}

impl UserNamespaces {
    /// Makes the table, with what earlier kubelets gave.
    pub fn new(config: &Config, cpus: u64) -> Self {
        let length = config.settings.user_namespaces.ids_per_pod.max(65536);
        // The kernel's last id is no id.
        let most = config.settings.pod_limit(cpus).min(u32::MAX / length - 1);
        let made = Self { length, most, taken: Mutex::default() };
        for entry in std::fs::read_dir(config.root_dir.join("pods")).into_iter().flatten().flatten() {
            if let Some(first) = read(&entry.path()) {
                made.taken.lock().insert(entry.file_name().to_string_lossy().into_owned(), first);
            }
        }
        made
    }

    /// The mappings of a pod that wants a namespace of its own; the same ones each time.
    pub fn get(&self, config: &Config, pod: &Pod) -> Result<Option<(Vec<IdMapping>, Vec<IdMapping>)>, String> {
        if pod.spec().host_users != Some(false) {
            return Ok(None);
        }
        let first = self.first(pod.uid())?;
        let own = Mapping { host_id: first, container_id: 0, length: self.length };
        let record = Record { uid_mappings: vec![own.clone()], gid_mappings: vec![own] };
        let dir = config.pod_dir(pod.uid());
        let text = serde_json::to_string(&record).unwrap_or_default();
        std::fs::write(dir.join(FILE), text).map_err(|e| format!("record user namespace: {e}"))?;
        let mapping = IdMapping { host_id: first, container_id: 0, length: self.length };
        Ok(Some((vec![mapping.clone()], vec![mapping])))
    }

    fn first(&self, uid: &str) -> Result<u32, String> {
        let mut taken = self.taken.lock();
        if let Some(first) = taken.get(uid) {
            return Ok(*first);
        }
        let free = (1..=self.most).map(|i| i * self.length).find(|first| !taken.values().any(|t| t == first));
        let first = free.ok_or("could not find an empty slot to allocate a user namespace")?;
        taken.insert(uid.to_owned(), first);
        Ok(first)
    }

    /// Gives a pod's range back.
    pub fn release(&self, pod_uid: &str) {
        self.taken.lock().remove(pod_uid);
    }
}

fn read(dir: &Path) -> Option<u32> {
    let record: Record = serde_json::from_slice(&std::fs::read(dir.join(FILE)).ok()?).ok()?;
    record.uid_mappings.first().map(|m| m.host_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_do_not_meet() {
        let ids = UserNamespaces { length: 65536, most: 2, taken: Mutex::default() };
        assert_eq!((ids.first("a"), ids.first("b"), ids.first("a")), (Ok(65536), Ok(131_072), Ok(65536)));
        assert!(ids.first("c").is_err());
        ids.release("a");
        assert_eq!(ids.first("c"), Ok(65536));
    }
}
