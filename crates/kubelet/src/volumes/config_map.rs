//! `configMap` volumes.

use super::payload::{self, Selection};
use super::{MountedVolume, Request, VolumePlugin, atomic_writer, mounts};
use api::k8s::core::v1::Volume;
use async_trait::async_trait;

/// The plugin.
pub struct ConfigMapVolume;

#[async_trait]
impl VolumePlugin for ConfigMapVolume {
    fn name(&self) -> &'static str {
        "kubernetes.io~configmap"
    }

    fn supports(&self, volume: &Volume) -> bool {
        volume.config_map.is_some()
    }

    async fn set_up(&self, request: &Request<'_>) -> Result<MountedVolume, String> {
        let source = request.volume.config_map.as_ref().ok_or("not a configMap volume")?;
        let optional = source.optional.unwrap_or(false);
        let object = request.ctx.config_map(request.pod, &source.name, optional).await?;
        let items = source.items.as_deref().unwrap_or_default();
        let selection = Selection { items, mode: payload::mode(source.default_mode, 0o644), optional };
        let files = payload::config_map(object.as_deref(), &selection)?;
        mounts::make_dir(&request.dir, 0o777).map_err(|e| e.to_string())?;
        atomic_writer::write(&request.dir, &files, request.fs_group()).map_err(|e| e.to_string())?;
        Ok(MountedVolume { path: request.dir.clone(), readonly: true, renew_at: None })
    }
}
