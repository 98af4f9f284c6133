//! `projected` volumes: config maps, secrets, the downward API, tokens and trust bundles in one directory.

use super::atomic_writer::{FileProjection, Payload};
use super::payload::{self, Selection};
use super::{MountedVolume, Request, VolumePlugin, atomic_writer, mounts};
use crate::pod::PodExt;
use api::k8s::core::v1::{Pod, ServiceAccountTokenProjection, Volume, VolumeProjection};
use async_trait::async_trait;
use std::time::Instant;

/// The plugin.
pub struct ProjectedVolume;

#[async_trait]
impl VolumePlugin for ProjectedVolume {
    fn name(&self) -> &'static str {
        "kubernetes.io~projected"
    }

    fn supports(&self, volume: &Volume) -> bool {
        volume.projected.is_some()
    }

    async fn set_up(&self, request: &Request<'_>) -> Result<MountedVolume, String> {
        let source = request.volume.projected.as_ref().ok_or("not a projected volume")?;
        let mode = payload::mode(source.default_mode, 0o644);
        let (mut files, mut renew_at, mut errors) = (Payload::new(), None, Vec::new());
        for projection in source.sources.iter().flatten() {
            match project(request, projection, mode).await {
                Ok((more, due)) => {
                    files.extend(more);
                    renew_at = renew_at.into_iter().chain(due).min();
                }
                Err(why) => errors.push(why),
            }
        }
        match errors.as_slice() {
            [] => {}
            [one] => return Err(one.clone()),
            many => return Err(format!("[{}]", many.join(", "))),
        }
        mounts::ensure_tmpfs(&request.dir, 0).map_err(|e| e.to_string())?;
        atomic_writer::write(&request.dir, &files, request.fs_group()).map_err(|e| e.to_string())?;
        Ok(MountedVolume { path: request.dir.clone(), readonly: true, renew_at })
    }
}

type Projected = Result<(Payload, Option<Instant>), String>;

async fn project(request: &Request<'_>, projection: &VolumeProjection, mode: u32) -> Projected {
    if let Some(source) = &projection.secret {
        let optional = source.optional.unwrap_or(false);
        let object = request.ctx.secret(request.pod, &source.name, optional).await?;
        let selection = Selection { items: source.items.as_deref().unwrap_or_default(), mode, optional };
        return Ok((payload::secret(object.as_deref(), &selection)?, None));
    }
    if let Some(source) = &projection.config_map {
        let optional = source.optional.unwrap_or(false);
        let object = request.ctx.config_map(request.pod, &source.name, optional).await?;
        let selection = Selection { items: source.items.as_deref().unwrap_or_default(), mode, optional };
        return Ok((payload::config_map(object.as_deref(), &selection)?, None));
    }
    if let Some(source) = &projection.downward_api {
        return Ok((payload::downward_api(request, source.items.as_deref().unwrap_or_default(), mode)?, None));
    }
    if let Some(source) = &projection.service_account_token {
        return token(request, source, mode).await;
    }
    if let Some(source) = &projection.cluster_trust_bundle {
        let text = request.ctx.trust_bundles.get(request.pod.uid(), source).await?;
        let file = FileProjection { data: text.into_bytes(), mode, user: None };
        return Ok((Payload::from([(source.path.clone(), file)]), None));
    }
    if projection.pod_certificate.is_some() {
        return Err(
            "podCertificate projections are not supported by this node: it makes no PodCertificateRequests".into()
        );
    }
    Err("projection of this kind is not supported by this node".into())
}

async fn token(request: &Request<'_>, source: &ServiceAccountTokenProjection, mode: u32) -> Projected {
    let audience = source.audience.as_deref().unwrap_or_default();
    let token = request.ctx.tokens.get(request.pod, audience, source.expiration_seconds).await?;
    let user = single_user(request.pod);
    // A token is for its pod's user or group alone, where either is known.
    let mode = if user.is_some() || request.fs_group().is_some() { 0o600 } else { mode };
    let file = FileProjection { data: token.text.into_bytes(), mode, user };
    Ok((Payload::from([(source.path.clone(), file)]), Some(token.renew_at)))
}

/// The user all containers run as, where that is one and the same.
fn single_user(pod: &Pod) -> Option<u32> {
    let spec = pod.spec();
    let of_pod = spec.security_context.as_ref().and_then(|s| s.run_as_user);
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let mut users = containers.map(|c| c.security_context.as_ref().and_then(|s| s.run_as_user).or(of_pod));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok())?
}
