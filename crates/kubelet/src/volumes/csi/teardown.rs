//! The way back: unpublish what a pod had, unstage what no pod of the node has any more.

use super::driver::Driver;
use super::record::{self, Record};
use super::{block, mount};
use crate::context::Context;
use crate::plugins::rpc;
use crate::volumes::mounts;
use protos::csi::node_service_capability::rpc::Type as Rpc;
use protos::csi::{NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest};
use std::io;
use std::path::Path;

/// Undoes all CSI volumes of a pod; idempotent, and tried again by the caller when it fails.
pub async fn tear_down(ctx: &Context, pod_uid: &str) -> io::Result<()> {
    let pod = ctx.config.pod_dir(pod_uid);
    let (volumes, devices) = (pod.join("volumes/kubernetes.io~csi"), pod.join("volumeDevices/kubernetes.io~csi"));
    let mounted = record::directories(&volumes);
    if !mounted.is_empty() {
        // Binds of subPaths hold the volumes.
        mounts::unmount_below(&pod.join("volume-subpaths")).await?;
    }
    for dir in mounted {
        let Some(record) = Record::load(&dir)? else { continue };
        let driver = driver(ctx, &record, "Unmounter.TearDownAt")?;
        let target = dir.join("mount");
        unpublish(&driver, &record, &target).await?;
        remove_target(&target)?;
        Record::remove(&dir)?;
        ctx.plugins.csi.forget(&target);
        if !record.ephemeral {
            let stage = mount::stage_dir(ctx, &record.driver, &record.handle);
            unstage(ctx, &driver, &record, &stage, &stage.join("globalmount")).await?;
        }
    }
    for dir in record::directories(&devices) {
        let Some(record) = Record::load(&dir)? else { continue };
        let driver = driver(ctx, &record, "blockMapper.UnmapPodDevice")?;
        let target = block::publish_path(ctx, &record.spec_name, pod_uid);
        unpublish(&driver, &record, &target).await?;
        remove_file(&target)?;
        // The last pod's removes the directory of all.
        let _ = target.parent().map(std::fs::remove_dir);
        Record::remove(&dir)?;
        ctx.plugins.csi.forget(&target);
        let stage = block::stage_path(ctx, &record.spec_name);
        unstage(ctx, &driver, &record, &stage, &stage).await?;
    }
    Ok(())
}

fn driver(ctx: &Context, record: &Record, caller: &str) -> io::Result<Driver> {
    let found = ctx.plugins.csi.get(&record.driver);
    found.map_err(|why| io::Error::other(super::source::log(format!("{caller} failed to get CSI client: {why}"))))
}

async fn unpublish(driver: &Driver, record: &Record, target: &Path) -> io::Result<()> {
    let call =
        NodeUnpublishVolumeRequest { volume_id: record.handle.clone(), target_path: target.display().to_string() };
    let answer = driver.node().node_unpublish_volume(rpc::timed(call)).await;
    answer
        .map(drop)
        .map_err(|s| io::Error::other(super::source::log(format!("Unmounter.TearDownAt failed: {}", rpc::text(&s)))))
}

async fn unstage(ctx: &Context, driver: &Driver, record: &Record, dir: &Path, path: &Path) -> io::Result<()> {
    if !driver.can(Rpc::StageUnstageVolume).await.map_err(io::Error::other)? {
        return Ok(());
    }
    let _turn = ctx.plugins.csi.lock(dir).await;
    if is_used(ctx, record) || !dir.exists() {
        return Ok(());
    }
    let call =
        NodeUnstageVolumeRequest { volume_id: record.handle.clone(), staging_target_path: path.display().to_string() };
    let answer = driver.node().node_unstage_volume(rpc::timed(call)).await;
    answer.map_err(|s| {
        io::Error::other(super::source::log(format!("attacher.UnmountDevice failed: {}", rpc::text(&s))))
    })?;
    remove_target(path)?;
    Record::remove(dir)?;
    ctx.plugins.csi.forget(path);
    Ok(())
}

/// Whether any pod of the node has the volume published, by what is written on disk.
fn is_used(ctx: &Context, record: &Record) -> bool {
    let pods = std::fs::read_dir(ctx.config.root_dir.join("pods")).into_iter().flatten().flatten();
    let same = |dir: &Path| {
        let loaded = Record::load(dir).ok().flatten();
        loaded.is_some_and(|r| r.driver == record.driver && r.handle == record.handle)
    };
    pods.flat_map(|pod| ["volumes", "volumeDevices"].map(|kind| pod.path().join(kind).join("kubernetes.io~csi")))
        .any(|dir| record::directories(&dir).iter().any(|d| same(d)))
}

/// Removes an empty target that the driver left, and never what is still mounted.
fn remove_target(target: &Path) -> io::Result<()> {
    if !target.exists() {
        return Ok(());
    }
    if mounts::is_mounted(target)? {
        return Err(io::Error::other(format!("{} is still mounted", target.display())));
    }
    std::fs::remove_dir(target)
}

fn remove_file(target: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(meta) if meta.is_dir() => std::fs::remove_dir(target),
        Ok(_) => std::fs::remove_file(target),
    }
}
