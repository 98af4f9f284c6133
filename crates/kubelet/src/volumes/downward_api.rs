//! `downwardAPI` volumes.

use super::{MountedVolume, Request, VolumePlugin, atomic_writer, mounts, payload};
use api::k8s::core::v1::Volume;
use async_trait::async_trait;

/// The plugin.
pub struct DownwardApiVolume;

#[async_trait]
impl VolumePlugin for DownwardApiVolume {
    fn name(&self) -> &'static str {
        "kubernetes.io~downward-api"
    }

    fn supports(&self, volume: &Volume) -> bool {
        volume.downward_api.is_some()
    }

    async fn set_up(&self, request: &Request<'_>) -> Result<MountedVolume, String> {
        let source = request.volume.downward_api.as_ref().ok_or("not a downwardAPI volume")?;
        let items = source.items.as_deref().unwrap_or_default();
        let files = payload::downward_api(request, items, payload::mode(source.default_mode, 0o644))?;
        mounts::make_dir(&request.dir, 0o777).map_err(|e| e.to_string())?;
        atomic_writer::write(&request.dir, &files, request.fs_group()).map_err(|e| e.to_string())?;
        Ok(MountedVolume { path: request.dir.clone(), readonly: true, renew_at: None })
    }
}
