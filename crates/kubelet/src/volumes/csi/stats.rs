//! Space and inodes of a CSI volume, as `/stats/summary` shows them.

use super::record::{self, Record};
use crate::context::Context;
use crate::plugins::rpc;
use crate::pod::PodExt;
use api::k8s::core::v1::{PersistentVolume, Pod};
use protos::csi::NodeGetVolumeStatsRequest;
use protos::csi::node_service_capability::rpc::Type as Rpc;
use protos::csi::volume_usage::Unit;
use std::path::Path;

/// Usage of one volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeUsage {
    /// Name of the pod's volume.
    pub volume: String,
    /// Its claim, where it has one.
    pub claim: Option<String>,
    /// Bytes: total, used, available.
    pub bytes: (u64, u64, u64),
    /// Inodes: total, used, available.
    pub inodes: (u64, u64, u64),
}

/// Usage of the CSI volumes of a pod whose drivers tell it.
pub async fn of_pod(ctx: &Context, pod: &Pod) -> Vec<VolumeUsage> {
    let mut out = Vec::new();
    for dir in record::directories(&ctx.config.pod_dir(pod.uid()).join("volumes/kubernetes.io~csi")) {
        let Ok(Some(record)) = Record::load(&dir) else { continue };
        let Some((volume, claim)) = name(ctx, pod, &record).await else { continue };
        if let Some(usage) = ask(ctx, &record, &dir).await {
            out.push(VolumeUsage { volume, claim, ..usage });
        }
    }
    out
}

/// The pod's own name of a volume, and its claim.
async fn name(ctx: &Context, pod: &Pod, record: &Record) -> Option<(String, Option<String>)> {
    if record.ephemeral {
        return Some((record.spec_name.clone(), None));
    }
    let api: kube::Api<PersistentVolume> = kube::Api::all(ctx.config.client.clone());
    let claim = api.get(&record.spec_name).await.ok()?.spec?.claim_ref?.name?;
    let uses = |v: &&api::k8s::core::v1::Volume| match (&v.persistent_volume_claim, &v.ephemeral) {
        (Some(source), _) => source.claim_name == claim,
        (None, Some(_)) => format!("{}-{}", pod.name(), v.name) == claim,
        _ => false,
    };
    let volume = pod.spec().volumes.iter().flatten().find(uses)?;
    Some((volume.name.clone(), Some(claim)))
}

async fn ask(ctx: &Context, record: &Record, dir: &Path) -> Option<VolumeUsage> {
    let driver = ctx.plugins.csi.get(&record.driver).ok()?;
    if !driver.can(Rpc::GetVolumeStats).await.unwrap_or(false) {
        return None;
    }
    let call = NodeGetVolumeStatsRequest {
        volume_id: record.handle.clone(),
        volume_path: dir.join("mount").display().to_string(),
        staging_target_path: String::new(),
    };
    let answer = driver.node().node_get_volume_stats(rpc::timed(call)).await.ok()?.into_inner();
    let number = |n: i64| u64::try_from(n).unwrap_or(0);
    let mut out = VolumeUsage::default();
    for usage in &answer.usage {
        let all = (number(usage.total), number(usage.used), number(usage.available));
        match usage.unit() {
            Unit::Bytes => out.bytes = all,
            Unit::Inodes => out.inodes = all,
            Unit::Unknown => {}
        }
    }
    Some(out)
}
