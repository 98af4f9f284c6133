//! A small CSI driver, as a process of its own, for tests of the node.
//!
//! `csi-driver NAME ENDPOINT REGISTRATION DIR NODE-ID`: volumes are directories of DIR, bound to where they are staged
//! and published; a raw volume is `/dev/zero` under another name. Every call is a line of DIR/calls.log.

use anyhow::{Context, Result};
use protos::csi::identity_server::{Identity, IdentityServer};
use protos::csi::node_server::{Node, NodeServer};
use protos::csi::node_service_capability::{Rpc, Type, rpc};
use protos::csi::volume_capability::AccessType;
use protos::csi::*;
use protos::pluginregistration::registration_server::{Registration, RegistrationServer};
use protos::pluginregistration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use protos::socket::{self, Services};
use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use tonic::{Request, Response, Status, async_trait};

#[derive(Clone)]
struct Driver {
    name: String,
    endpoint: PathBuf,
    dir: PathBuf,
    node_id: String,
}

type Answer<T> = Result<Response<T>, Status>;

fn failed(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

impl Driver {
    fn log(&self, call: &str, what: Value) -> Result<(), Status> {
        let mut file =
            std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join("calls.log")).map_err(failed)?;
        writeln!(file, "{}", json!({"call": call, "request": what})).map_err(failed)
    }

    /// The volume's directory; ids are not trusted with a path.
    fn volume(&self, id: &str) -> Result<PathBuf, Status> {
        if id.is_empty() || id.contains('/') || id.starts_with('.') {
            return Err(Status::invalid_argument(format!("volume id {id:?}")));
        }
        let path = self.dir.join("volumes").join(id);
        std::fs::create_dir_all(&path).map_err(failed)?;
        Ok(path)
    }
}

fn bind(from: &Path, to: &Path, readonly: bool) -> Result<(), Status> {
    if mounted(to) {
        return Ok(());
    }
    if from.is_dir() {
        std::fs::create_dir_all(to).map_err(failed)?;
    } else {
        std::fs::File::create(to).map_err(failed)?;
    }
    mount_bind(from, to).map_err(failed)?;
    if readonly {
        mount_remount(to, MountFlags::BIND | MountFlags::RDONLY, "").map_err(failed)?;
    }
    Ok(())
}

fn mounted(path: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter_map(|line| line.split(' ').nth(4)).any(|point| Path::new(point) == path)
}

fn unbind(path: &Path) -> Result<(), Status> {
    if mounted(path) {
        unmount(path, UnmountFlags::empty()).map_err(failed)?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir(path).map_err(failed),
        Ok(_) => std::fs::remove_file(path).map_err(failed),
        Err(_) => Ok(()),
    }
}

fn is_block(capability: Option<&VolumeCapability>) -> bool {
    matches!(capability.and_then(|c| c.access_type.as_ref()), Some(AccessType::Block(_)))
}

fn capability(capability: Option<&VolumeCapability>) -> Value {
    let mount = match capability.and_then(|c| c.access_type.clone()) {
        Some(AccessType::Mount(m)) => {
            json!({"fsType": m.fs_type, "flags": m.mount_flags, "group": m.volume_mount_group})
        }
        _ => Value::Null,
    };
    json!({"block": is_block(capability), "mount": mount, "mode": capability.and_then(|c| c.access_mode.as_ref()).map(|m| m.mode)})
}

#[async_trait]
impl Identity for Driver {
    async fn get_plugin_info(&self, _: Request<GetPluginInfoRequest>) -> Answer<GetPluginInfoResponse> {
        Ok(Response::new(GetPluginInfoResponse {
            name: self.name.clone(),
            vendor_version: "1".into(),
            ..Default::default()
        }))
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Answer<ProbeResponse> {
        Ok(Response::new(ProbeResponse { ready: Some(Bool { value: true }) }))
    }
}

#[async_trait]
impl Node for Driver {
    async fn node_get_info(&self, _: Request<NodeGetInfoRequest>) -> Answer<NodeGetInfoResponse> {
        let zone = (format!("topology.{}/zone", self.name), "z1".to_owned());
        Ok(Response::new(NodeGetInfoResponse {
            node_id: self.node_id.clone(),
            max_volumes_per_node: 10,
            accessible_topology: Some(Topology { segments: [zone].into() }),
        }))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Answer<NodeGetCapabilitiesResponse> {
        let all = [rpc::Type::StageUnstageVolume, rpc::Type::GetVolumeStats, rpc::Type::ExpandVolume];
        let one = |kind: rpc::Type| NodeServiceCapability { r#type: Some(Type::Rpc(Rpc { r#type: kind.into() })) };
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities: all.map(one).to_vec() }))
    }

    async fn node_stage_volume(&self, request: Request<NodeStageVolumeRequest>) -> Answer<NodeStageVolumeResponse> {
        let r = request.into_inner();
        let what = json!({"volume": r.volume_id, "staging": r.staging_target_path, "publishContext": r.publish_context,
            "secrets": r.secrets, "context": r.volume_context, "capability": capability(r.volume_capability.as_ref())});
        self.log("NodeStageVolume", what)?;
        if !is_block(r.volume_capability.as_ref()) {
            bind(&self.volume(&r.volume_id)?, Path::new(&r.staging_target_path), false)?;
        }
        Ok(Response::new(NodeStageVolumeResponse {}))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Answer<NodeUnstageVolumeResponse> {
        let r = request.into_inner();
        self.log("NodeUnstageVolume", json!({"volume": r.volume_id, "staging": r.staging_target_path}))?;
        unbind(Path::new(&r.staging_target_path))?;
        Ok(Response::new(NodeUnstageVolumeResponse {}))
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Answer<NodePublishVolumeResponse> {
        let r = request.into_inner();
        let what = json!({"volume": r.volume_id, "staging": r.staging_target_path, "target": r.target_path, "readonly": r.readonly,
            "publishContext": r.publish_context, "secrets": r.secrets, "context": r.volume_context,
            "capability": capability(r.volume_capability.as_ref())});
        self.log("NodePublishVolume", what)?;
        if r.volume_context.get("fail").is_some_and(|f| f == "publish") {
            return Err(Status::internal("asked to fail"));
        }
        let target = Path::new(&r.target_path);
        if is_block(r.volume_capability.as_ref()) {
            bind(Path::new("/dev/zero"), target, false)?;
        } else {
            bind(&self.volume(&r.volume_id)?, target, r.readonly)?;
        }
        Ok(Response::new(NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Answer<NodeUnpublishVolumeResponse> {
        let r = request.into_inner();
        self.log("NodeUnpublishVolume", json!({"volume": r.volume_id, "target": r.target_path}))?;
        unbind(Path::new(&r.target_path))?;
        Ok(Response::new(NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Answer<NodeGetVolumeStatsResponse> {
        let stat = rustix::fs::statvfs(&request.into_inner().volume_path).map_err(failed)?;
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let bytes = VolumeUsage {
            available: number(stat.f_bavail * stat.f_frsize),
            total: number(stat.f_blocks * stat.f_frsize),
            used: number((stat.f_blocks - stat.f_bfree) * stat.f_frsize),
            unit: volume_usage::Unit::Bytes.into(),
        };
        Ok(Response::new(NodeGetVolumeStatsResponse { usage: vec![bytes], volume_condition: None }))
    }

    async fn node_expand_volume(&self, request: Request<NodeExpandVolumeRequest>) -> Answer<NodeExpandVolumeResponse> {
        let r = request.into_inner();
        let size = r.capacity_range.map_or(0, |c| c.required_bytes);
        self.log("NodeExpandVolume", json!({"volume": r.volume_id, "path": r.volume_path, "bytes": size}))?;
        Ok(Response::new(NodeExpandVolumeResponse { capacity_bytes: size }))
    }
}

#[async_trait]
impl Registration for Driver {
    async fn get_info(&self, _: Request<InfoRequest>) -> Answer<PluginInfo> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".into(),
            name: self.name.clone(),
            endpoint: self.endpoint.display().to_string(),
            supported_versions: vec!["1.0.0".into()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Answer<RegistrationStatusResponse> {
        let status = request.into_inner();
        self.log("registered", json!({"ok": status.plugin_registered, "error": status.error}))?;
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [name, endpoint, registration, dir, node_id] = args.as_slice() else {
        anyhow::bail!("usage: csi-driver NAME ENDPOINT REGISTRATION DIR NODE-ID");
    };
    std::fs::create_dir_all(dir)?;
    let driver = Driver { name: name.clone(), endpoint: endpoint.into(), dir: dir.into(), node_id: node_id.clone() };
    let services = Services::default().with(IdentityServer::new(driver.clone())).with(NodeServer::new(driver.clone()));
    let served = socket::bind(Path::new(endpoint), 0o600).context("bind the endpoint")?;
    let registered = socket::bind(Path::new(registration), 0o600).context("bind the registration socket")?;
    let registration_service = Services::default().with(RegistrationServer::new(driver));
    let serving =
        async { tokio::join!(socket::serve(served, services), socket::serve(registered, registration_service)) };
    tokio::select! {
        _ = serving => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    // A driver that ends takes its registration away.
    Ok(std::fs::remove_file(registration)?)
}
