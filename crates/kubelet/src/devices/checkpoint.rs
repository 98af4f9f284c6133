//! What containers were given, on disk; in the form upstream's kubelet keeps it.

use super::{Allocation, Allocations};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use protos::deviceplugin::ContainerAllocateResponse;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

const FILE: &str = "kubelet_internal_checkpoint";
/// Devices by resource.
type Known = BTreeMap<String, BTreeSet<String>>;

/// Writes everything, at once or not at all.
pub fn write(dir: &Path, allocations: &Allocations, known: Known) -> io::Result<()> {
    let mut entries = Vec::new();
    for (pod, containers) in allocations {
        for (container, resources) in containers {
            for (resource, allocation) in resources {
                entries.push(json!({
                    "PodUID": pod, "ContainerName": container, "ResourceName": resource,
                    "DeviceIDs": {"-1": allocation.ids},
                    "AllocResp": STANDARD.encode(allocation.response.encode_to_vec()),
                }));
            }
        }
    }
    let data = json!({"Data": {"PodDeviceEntries": entries, "RegisteredDevices": known}});
    std::fs::create_dir_all(dir)?;
    let temporary = dir.join(format!(".{FILE}.tmp"));
    std::fs::write(&temporary, data.to_string())?;
    std::fs::rename(temporary, dir.join(FILE))
}

/// Reads what there is; a file that cannot be read is as none, since devices can be listed anew.
pub fn read(dir: &Path) -> (Allocations, Known) {
    let path = dir.join(FILE);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(_) => return Default::default(),
    };
    let value: Value = match serde_json::from_slice(&text) {
        Ok(value) => value,
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "cannot read the checkpoint of devices");
            return Default::default();
        }
    };
    let mut allocations = Allocations::new();
    for entry in value["Data"]["PodDeviceEntries"].as_array().into_iter().flatten() {
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        let bytes = STANDARD.decode(text("AllocResp")).unwrap_or_default();
        let Ok(response) = ContainerAllocateResponse::decode(bytes.as_slice()) else { continue };
        let ids = entry["DeviceIDs"].as_object().into_iter().flatten().flat_map(|(_, ids)| strings(ids)).collect();
        let container = allocations.entry(text("PodUID")).or_default().entry(text("ContainerName")).or_default();
        container.insert(text("ResourceName"), Allocation { ids, response });
    }
    let known = value["Data"]["RegisteredDevices"].as_object().into_iter().flatten();
    (allocations, known.map(|(name, ids)| (name.clone(), strings(ids).collect())).collect())
}

fn strings(list: &Value) -> impl Iterator<Item = String> {
    list.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_come_back() {
        let dir = tempfile::tempdir().expect("tempdir");
        let response = ContainerAllocateResponse {
            envs: [("A".to_owned(), "1".to_owned())].into(),
            ..ContainerAllocateResponse::default()
        };
        let allocation = Allocation { ids: ["d1".to_owned(), "d2".to_owned()].into(), response };
        let container = BTreeMap::from([("c".to_owned(), BTreeMap::from([("example.com/x".to_owned(), allocation)]))]);
        let allocations = Allocations::from([("u".to_owned(), container)]);
        let known = Known::from([("example.com/x".to_owned(), ["d1".to_owned()].into())]);
        write(dir.path(), &allocations, known.clone()).expect("write");
        assert_eq!(read(dir.path()), (allocations, known));
        std::fs::write(dir.path().join(FILE), "{").expect("spoil");
        assert_eq!(read(dir.path()), Default::default());
    }
}
