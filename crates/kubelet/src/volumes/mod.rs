//! Volumes of pods.
//!
//! A type is one file that implements [`VolumePlugin`] and one line in [`PLUGINS`]. Setting up is idempotent
//! and repeated by every sync: that is also how changed config maps, secrets and due tokens reach the files.

pub mod atomic_writer;
pub mod bounded;
mod config_map;
pub mod csi;
mod downward_api;
mod empty_dir;
pub mod git_repo;
mod host_path;
pub mod image;
pub mod mounts;
mod nfs;
pub mod ownership;
pub mod payload;
mod persistent_volume_claim;
mod projected;
mod secret;
pub mod subpath;
pub mod trust_bundle;

use crate::context::Context;
use crate::env::field_ref::Facts;
use crate::pod::PodExt;
use api::k8s::core::v1::{Pod, Volume};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// The volume types, asked in this order.
const PLUGINS: [&dyn VolumePlugin; 10] = [
    &config_map::ConfigMapVolume,
    &csi::CsiVolume,
    &downward_api::DownwardApiVolume,
    &empty_dir::EmptyDirVolume,
    &git_repo::GitRepoVolume,
    &host_path::HostPathVolume,
    &nfs::NfsVolume,
    &persistent_volume_claim::PersistentVolumeClaimVolume,
    &projected::ProjectedVolume,
    &secret::SecretVolume,
];

/// A volume that is ready for containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountedVolume {
    /// Path on the node.
    pub path: PathBuf,
    /// Never writable, whatever the mount says.
    pub readonly: bool,
    /// When it has to be set up anew.
    pub renew_at: Option<Instant>,
}

/// A pod's volumes by name.
pub type MountedVolumes = BTreeMap<String, MountedVolume>;

/// What a plugin is given.
pub struct Request<'a> {
    /// The kubelet.
    pub ctx: &'a Context,
    /// The pod.
    pub pod: &'a Pod,
    /// What the downward API shows.
    pub facts: &'a Facts<'a>,
    /// The volume.
    pub volume: &'a Volume,
    /// Directory of this volume, existing only once a plugin makes it.
    pub dir: PathBuf,
    /// Cancelled when the pod is to end: what may never answer is given up then. What another process does for the volume
    /// is waited for, so that it can be undone.
    pub ending: &'a CancellationToken,
}

impl Request<'_> {
    /// `fsGroup` of the pod.
    pub fn fs_group(&self) -> Option<u32> {
        self.pod.spec().security_context.as_ref()?.fs_group.and_then(|g| u32::try_from(g).ok())
    }
}

/// One type of volume.
#[async_trait]
pub trait VolumePlugin: Send + Sync {
    /// Name of its directory, `kubernetes.io~configmap`.
    fn name(&self) -> &'static str;
    /// Whether a volume is of this type.
    fn supports(&self, volume: &Volume) -> bool;
    /// Makes the volume ready or up to date; called at every sync. The error is the event's text.
    async fn set_up(&self, request: &Request<'_>) -> Result<MountedVolume, String>;
}

/// Sets up the volumes of a pod, but images, which come when a container starts; tries each even where one fails. The
/// errors are the texts of `FailedMount` events; one without words only waits, and is woken.
pub async fn set_up(
    ctx: &Context,
    pod: &Pod,
    facts: &Facts<'_>,
    ending: &CancellationToken,
) -> Result<MountedVolumes, Vec<String>> {
    let (mut out, mut errors, mut unprocessed) = (MountedVolumes::new(), Vec::new(), Vec::new());
    let mut unmounted = Vec::new();
    for volume in pod.spec().volumes.iter().flatten().filter(|v| v.image.is_none()) {
        let why = match set_up_one(ctx, pod, facts, volume, ending).await {
            Ok(mounted) => {
                out.insert(volume.name.clone(), mounted);
                continue;
            }
            Err(why) => why,
        };
        unmounted.push(volume.name.as_str());
        if why.starts_with(persistent_volume_claim::UNPROCESSED) {
            unprocessed.push((volume.name.as_str(), why));
            continue;
        }
        // A plugin whose operation has a name of its own says the whole.
        let whole = why.is_empty() || why.starts_with("MountVolume.") || why.starts_with("MapVolume.");
        let name = crate::format::quote(&volume.name);
        errors.push(if whole { why } else { format!("MountVolume.SetUp failed for volume {name} : {why}") });
    }
    errors.extend(not_processed(unmounted, unprocessed));
    if errors.is_empty() { Ok(out) } else { Err(errors) }
}

/// What upstream's volume manager says when volumes of a pod cannot even be looked at.
fn not_processed(mut unmounted: Vec<&str>, unprocessed: Vec<(&str, String)>) -> Option<String> {
    let (mut names, texts): (Vec<_>, Vec<_>) = unprocessed.into_iter().unzip();
    unmounted.sort_unstable();
    names.sort_unstable();
    let (unmounted, failed) = (unmounted.join(" "), names.join(" "));
    (!texts.is_empty()).then(|| {
        format!(
            "Unable to attach or mount volumes: unmounted volumes=[{unmounted}], unattached volumes=[], failed to process volumes=[{failed}]: {}",
            texts.join("; ")
        )
    })
}

async fn set_up_one(
    ctx: &Context,
    pod: &Pod,
    facts: &Facts<'_>,
    volume: &Volume,
    ending: &CancellationToken,
) -> Result<MountedVolume, String> {
    let plugin = PLUGINS.iter().find(|p| p.supports(volume)).ok_or("no volume plugin matched")?;
    let dir = ctx.config.pod_dir(pod.uid()).join("volumes").join(plugin.name()).join(&volume.name);
    plugin.set_up(&Request { ctx, pod, facts, volume, dir, ending }).await
}

/// Where a volume of a pod is on this node; `None` where it is not set up.
pub fn path(ctx: &Context, pod: &Pod, volume: &Volume) -> Option<PathBuf> {
    let plugin = PLUGINS.iter().find(|p| p.supports(volume))?;
    let dir = ctx.config.pod_dir(pod.uid()).join("volumes").join(plugin.name()).join(&volume.name);
    dir.exists().then_some(dir)
}

/// Unmounts and removes everything of a pod on this node; idempotent. Nothing is removed while a mount remains.
pub async fn tear_down(ctx: &Context, pod_uid: &str) -> std::io::Result<()> {
    let dir = ctx.config.pod_dir(pod_uid);
    csi::tear_down(ctx, pod_uid).await?;
    mounts::unmount_below(&dir).await?;
    image::release(ctx, pod_uid).await;
    // It may hold very much.
    tokio::task::spawn_blocking(move || cri::remove_tree(&dir)).await.map_err(std::io::Error::other)?
}
