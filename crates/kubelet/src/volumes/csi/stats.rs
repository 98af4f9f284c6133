//! Space and inodes of a CSI volume, as `/stats/summary` shows them.

use super::record::{self, Record};
use crate::context::Context;
use crate::plugins::rpc;
use protos::csi::node_service_capability::rpc::Type as Rpc;
use protos::csi::volume_usage::Unit;
use protos::csi::NodeGetVolumeStatsRequest;

/// Usage of one volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeStats {
    /// Name of the volume of the specification.
    pub spec_name: String,
    /// Bytes: total, used, available.
    pub bytes: (u64, u64, u64),
    /// Inodes: total, used, available.
    pub inodes: (u64, u64, u64),
    /// What is wrong with it, where the driver says so.
    pub abnormal: Option<String>,
}

/// Usage of the CSI volumes of a pod whose drivers tell it.
pub async fn of_pod(ctx: &Context, pod_uid: &str) -> Vec<VolumeStats> {
    let mut out = Vec::new();
    for dir in record::directories(&ctx.config.pod_dir(pod_uid).join("volumes/kubernetes.io~csi")) {
        let Ok(Some(record)) = Record::load(&dir) else { continue };
        let Ok(driver) = ctx.plugins.csi.get(&record.driver) else { continue };
        if !driver.can(Rpc::GetVolumeStats).await.unwrap_or(false) {
            continue;
        }
        let call = NodeGetVolumeStatsRequest {
            volume_id: record.handle.clone(),
            volume_path: dir.join("mount").display().to_string(),
            staging_target_path: String::new(),
        };
        let Ok(answer) = driver.node().node_get_volume_stats(rpc::timed(call)).await else { continue };
        let answer = answer.into_inner();
        let number = |n: i64| u64::try_from(n).unwrap_or(0);
        let mut stats = VolumeStats { spec_name: record.spec_name, ..VolumeStats::default() };
        for usage in &answer.usage {
            let all = (number(usage.total), number(usage.used), number(usage.available));
            match usage.unit() {
                Unit::Bytes => stats.bytes = all,
                Unit::Inodes => stats.inodes = all,
                Unit::Unknown => {}
            }
        }
        stats.abnormal = answer.volume_condition.filter(|c| c.abnormal).map(|c| c.message);
        out.push(stats);
    }
    out
}
