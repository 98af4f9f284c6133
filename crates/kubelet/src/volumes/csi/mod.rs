//! CSI: volumes of drivers that are processes of their own.
//!
//! [`registration`] takes over a driver that `plugins` found and tells the API of it ([`node_info`]). A volume is
//! attached (by the controller, if the driver wants that), staged once per node, published once per pod and volume
//! ([`mount`], [`block`] for raw devices), grown when its claim has ([`expand`]), and undone in reverse
//! ([`teardown`]). What was done is kept in `vol_data.json` beside each target ([`record`]) as upstream keeps it, so a
//! restarted kubelet undoes what an earlier one did.
//!
//! Absent: SELinux mount options, in-tree volume migration.

mod block;
mod driver;
pub mod expand;
mod mount;
pub mod node_info;
mod record;
pub mod registration;
mod source;
pub mod stats;
mod teardown;

pub use driver::Drivers;
pub use teardown::tear_down;

use super::{MountedVolume, Request, VolumePlugin};
use api::k8s::core::v1::{PersistentVolume, PersistentVolumeClaim, Volume};
use async_trait::async_trait;
use source::Source;

/// The name of the volume plugin, as unique volume names and directories carry it.
pub const PLUGIN: &str = "kubernetes.io/csi";

/// Inline volumes.
pub struct CsiVolume;

#[async_trait]
impl VolumePlugin for CsiVolume {
    fn name(&self) -> &'static str {
        "kubernetes.io~csi"
    }

    fn supports(&self, volume: &Volume) -> bool {
        volume.csi.is_some()
    }

    async fn set_up(&self, request: &Request<'_>) -> Result<MountedVolume, String> {
        mount::set_up(request, &Source::inline(request)?).await
    }
}

/// Sets up a claim's volume whose persistent volume is a CSI one.
pub async fn persistent(
    request: &Request<'_>,
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
) -> Result<MountedVolume, String> {
    let source = Source::persistent(request, volume)?;
    let mounted =
        if source.block { block::set_up(request, &source).await } else { mount::set_up(request, &source).await };
    expand::after_set_up(request, &source, claim, volume, &mounted?.path).await
}
