//! `secret` volumes: on tmpfs, so that their content never reaches a disk.

use super::payload::{self, Selection};
use super::{MountedVolume, Request, VolumePlugin, atomic_writer, mounts};
use api::k8s::core::v1::Volume;
use async_trait::async_trait;

/// The plugin.
pub struct SecretVolume;

#[async_trait]
impl VolumePlugin for SecretVolume {
    fn name(&self) -> &'static str {
        "kubernetes.io~secret"
    }

    fn supports(&self, volume: &Volume) -> bool {
        volume.secret.is_some()
    }

    async fn set_up(&self, request: &Request<'_>) -> Result<MountedVolume, String> {
        let source = request.volume.secret.as_ref().ok_or("not a secret volume")?;
        let optional = source.optional.unwrap_or(false);
        let name = source.secret_name.as_deref().unwrap_or_default();
        let object = request.ctx.secret(request.pod, name, optional).await?;
        let items = source.items.as_deref().unwrap_or_default();
        let selection = Selection { items, mode: payload::mode(source.default_mode, 0o644), optional };
        let files = payload::secret(object.as_deref(), &selection)?;
        mounts::ensure_tmpfs(&request.dir, 0).map_err(|e| e.to_string())?;
        atomic_writer::write(&request.dir, &files, request.fs_group()).map_err(|e| e.to_string())?;
        Ok(MountedVolume { path: request.dir.clone(), readonly: true, renew_at: None })
    }
}
