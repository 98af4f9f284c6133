//! CDI: devices that vendors describe in files of the node (container device interface, versions up to 1.0).
//!
//! A container names devices `vendor.com/class=name`; a specification in `/etc/cdi` or `/var/run/cdi` (which wins) says
//! what each adds to the container: environment, device nodes and mounts.
//!
//! Absent: hooks (programs the runtime would run on the node) and RDT; a device that asks for them is refused.

use cri::{ContainerConfig, Device, Error, Mount, Result};
use serde::Deserialize;
use std::path::Path;

const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
const MAX: u64 = 4 << 20;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    kind: String,
    #[serde(default)]
    devices: Vec<SpecDevice>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecDevice {
    name: String,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    mounts: Vec<SpecMount>,
    hooks: Vec<serde_json::Value>,
    additional_gids: Vec<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Node {
    path: String,
    host_path: String,
    permissions: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SpecMount {
    host_path: String,
    container_path: String,
    options: Vec<String>,
}

/// Adds what the devices of a configuration ask for to it.
pub(crate) fn apply(config: &mut ContainerConfig) -> Result<()> {
    if config.cdi_devices.is_empty() {
        return Ok(());
    }
    let specs: Vec<Spec> = DIRECTORIES.iter().rev().flat_map(|dir| read(Path::new(dir))).collect();
    inject(&specs, config)
}

fn inject(specs: &[Spec], config: &mut ContainerConfig) -> Result<()> {
    let mut edits: Vec<&Edits> = Vec::new();
    let mut missing = Vec::new();
    let mut kinds: Vec<*const Spec> = Vec::new();
    for name in &config.cdi_devices {
        let (kind, device) = name.split_once('=').unwrap_or((name, ""));
        let mut candidates = specs.iter().filter(|s| s.kind == kind);
        let found = candidates.find_map(|s| Some((s, s.devices.iter().find(|d| d.name == device)?)));
        let Some((spec, device)) = found else {
            missing.push(name.clone());
            continue;
        };
        // The edits of a kind are made once, however many of its devices there are.
        if !kinds.contains(&std::ptr::from_ref(spec)) {
            kinds.push(spec);
            edits.push(&spec.container_edits);
        }
        edits.push(&device.container_edits);
    }
    if !missing.is_empty() {
        return Err(Error::InvalidArgument(format!(
            "CDI device injection failed: unresolvable CDI devices {}",
            missing.join(", ")
        )));
    }
    let edits: Vec<Edits> = edits.into_iter().cloned().collect();
    edits.into_iter().try_for_each(|one| edit(config, one))
}

fn edit(config: &mut ContainerConfig, edits: Edits) -> Result<()> {
    if !edits.hooks.is_empty() {
        return Err(Error::InvalidArgument("CDI device injection failed: hooks are not supported".into()));
    }
    for entry in edits.env {
        let (name, value) = entry.split_once('=').unwrap_or((&entry, ""));
        config.envs.retain(|(known, _)| known != name);
        config.envs.push((name.to_owned(), value.to_owned()));
    }
    for node in edits.device_nodes {
        let host_path = if node.host_path.is_empty() { node.path.clone() } else { node.host_path };
        let permissions = if node.permissions.is_empty() { "rwm".to_owned() } else { node.permissions };
        config.devices.push(Device { container_path: node.path, host_path, permissions });
    }
    for mount in edits.mounts {
        let readonly = mount.options.iter().any(|o| o == "ro");
        config.mounts.push(Mount {
            container_path: mount.container_path,
            host_path: mount.host_path,
            readonly,
            ..Mount::default()
        });
    }
    config.security_context.supplemental_groups.extend(edits.additional_gids.into_iter().map(i64::from));
    Ok(())
}

/// The specifications of a directory; one that cannot be read is left out, with a warning.
fn read(dir: &Path) -> Vec<Spec> {
    let mut paths: Vec<_> = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
    paths.sort();
    let known = |path: &&std::path::PathBuf| {
        path.extension().is_some_and(|e| e == "json" || e == "yaml" || e == "yml")
            && path.metadata().is_ok_and(|m| m.is_file() && m.len() <= MAX)
    };
    let parse = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path).map_err(|e| e.to_string());
        let json = path.extension().is_some_and(|e| e == "json");
        let parsed = text.and_then(|text| match json {
            true => serde_json::from_str(&text).map_err(|e| e.to_string()),
            false => serde_saphyr::from_str(&text).map_err(|e| e.to_string()),
        });
        parsed
            .inspect_err(|error| tracing::warn!(path = %path.display(), error, "cannot read a CDI specification"))
            .ok()
    };
    paths.iter().filter(known).filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_edit_the_container() {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::write(dir.path().join("a.json"), r#"{"cdiVersion": "0.6.0", "kind": "v.com/x", "containerEdits": {"env": ["K=1"]},
            "devices": [{"name": "0", "containerEdits": {"env": ["A=b"], "deviceNodes": [{"path": "/dev/x", "hostPath": "/dev/null"}],
            "mounts": [{"hostPath": "/h", "containerPath": "/c", "options": ["ro", "bind"]}]}}]}"#).expect("write");
        std::fs::write(
            dir.path().join("b.yaml"),
            "kind: w.com/y\ndevices:\n- name: z\n  containerEdits:\n    hooks:\n    - path: /bin/x\n",
        )
        .expect("write");
        std::fs::write(dir.path().join("c.json"), "{").expect("write");
        let specs = read(dir.path());
        assert_eq!(specs.len(), 2);
        let with = |name: &str| ContainerConfig { cdi_devices: vec![name.into()], ..ContainerConfig::default() };
        let mut config = with("v.com/x=0");
        inject(&specs, &mut config).expect("injected");
        assert_eq!(config.envs, vec![("K".to_owned(), "1".to_owned()), ("A".to_owned(), "b".to_owned())]);
        assert_eq!(config.devices[0].host_path, "/dev/null");
        assert!(config.mounts[0].readonly);
        let why = inject(&specs, &mut with("v.com/x=1")).expect_err("missing").to_string();
        assert_eq!(why, "CDI device injection failed: unresolvable CDI devices v.com/x=1");
        assert!(inject(&specs, &mut with("w.com/y=z")).is_err(), "hooks are refused");
    }
}
