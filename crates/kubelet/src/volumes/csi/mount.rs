//! Volumes with a file system: staged once per node, published once per pod.

use super::driver::Driver;
use super::record::Record;
use super::source::{self, Source, failed, log, unique_name};
use crate::context::{Context, api_message, is_not_found};
use crate::plugins::rpc;
use crate::pod::PodExt;
use crate::volumes::{MountedVolume, Request, mounts, ownership};
use api::k8s::core::v1::Pod;
use api::k8s::storage::v1::{CSIDriver, CSIDriverSpec, VolumeAttachment};
use protos::csi::node_service_capability::rpc::Type as Rpc;
use protos::csi::{NodePublishVolumeRequest, NodeStageVolumeRequest};
use serde_json::{Map, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a driver that asks for it is told to publish anew, as upstream's pod resync at most.
const REPUBLISH: Duration = Duration::from_secs(90);

/// What the CSIDriver object says; a driver without one has the defaults.
pub struct Policy {
    spec: Option<CSIDriverSpec>,
}

impl Policy {
    /// Reads the object.
    pub async fn read(ctx: &Context, driver: &str) -> Result<Self, String> {
        let api: kube::Api<CSIDriver> = kube::Api::all(ctx.config.client.clone());
        match api.get(driver).await {
            Ok(object) => Ok(Self { spec: Some(object.spec) }),
            Err(error) if is_not_found(&error) => Ok(Self { spec: None }),
            Err(error) => Err(api_message(&error)),
        }
    }

    /// Whether an attachment must be waited for.
    pub fn attach_required(&self) -> bool {
        self.spec.as_ref().is_none_or(|s| s.attach_required.unwrap_or(true))
    }

    fn check_lifecycle(&self, source: &Source) -> Result<(), String> {
        let (mode, driver) = (source.lifecycle(), &source.driver);
        match &self.spec {
            None if !source.ephemeral => Ok(()),
            None => Err(format!("volume mode {mode:?} not supported by driver {driver} (no CSIDriver object)")),
            Some(spec) => {
                let modes = spec.volume_lifecycle_modes.clone().unwrap_or_else(|| vec!["Persistent".into()]);
                if modes.iter().any(|m| m == mode) {
                    return Ok(());
                }
                let quoted = modes.iter().map(|m| crate::format::quote(m)).collect::<Vec<_>>();
                let shown = crate::format::list(&quoted);
                Err(format!("volume mode {mode:?} not supported by driver {driver} (only supports {shown})"))
            }
        }
    }

    fn flag(&self, of: impl Fn(&CSIDriverSpec) -> Option<bool>) -> bool {
        self.spec.as_ref().and_then(of).unwrap_or(false)
    }

    /// Whether the kubelet itself gives the volume to the pod's group.
    fn applies_group(&self, source: &Source) -> bool {
        match self.spec.as_ref().and_then(|s| s.fs_group_policy.as_deref()) {
            Some("None") => false,
            Some("File") => true,
            _ => !source.fs_type.is_empty() && source.access_modes.iter().any(|m| m == "ReadWriteOnce"),
        }
    }
}

/// Directory of a volume's stage.
pub fn stage_dir(ctx: &Context, source_driver: &str, handle: &str) -> PathBuf {
    let name = source::sha256(handle);
    ctx.config.root_dir.join("plugins/kubernetes.io/csi").join(source_driver).join(name)
}

/// Sets a volume up; does nothing when that was done.
pub async fn set_up(request: &Request<'_>, source: &Source) -> Result<MountedVolume, String> {
    let ctx = request.ctx;
    let name = source.spec_name.replace('/', "~");
    let dir = ctx.config.pod_dir(request.pod.uid()).join("volumes/kubernetes.io~csi").join(name);
    let target = dir.join("mount");
    let done =
        |again: Option<Instant>| MountedVolume { path: target.clone(), readonly: source.readonly, renew_at: again };
    if let Some(again) = ctx.plugins.csi.is_published(&target) {
        return Ok(done(again));
    }
    let fail = |why: String| failed("MountVolume.SetUp", &source.spec_name, why);
    let driver = ctx.plugins.csi.get(&source.driver);
    let driver = driver.map_err(|why| fail(log(format!("mounter.SetUpAt failed to get CSI client: {why}"))))?;
    let policy = Policy::read(ctx, &source.driver).await.map_err(&fail)?;
    let lifecycle = |why| fail(log(format!("mounter.SetupAt failed to check volume lifecycle mode: {why}")));
    policy.check_lifecycle(source).map_err(lifecycle)?;
    let attached = (!source.ephemeral && policy.attach_required()).then(|| unique_name(&source.driver, &source.handle));
    if is_left_published(&dir, &target, source) && !policy.flag(|s| s.requires_republish) {
        // By an earlier kubelet.
        ctx.plugins.csi.set_published(&target, None, attached);
        return Ok(done(None));
    }
    let context = publish_context(request, source, attached.is_some()).await?;
    ctx.plugins.csi.set_in_use(&target, attached.as_deref());
    let group = request.fs_group();
    let mounts_group = driver.can(Rpc::VolumeMountGroup).await.map_err(&fail)?;
    let given = Given { driver: &driver, context: &context, group: group.filter(|_| mounts_group) };
    let stage = stage(request, source, &given).await?;
    publish(request, source, &given, &policy, &dir, &target, stage).await.map_err(&fail)?;
    if let Some(group) = group.filter(|_| !mounts_group && !source.readonly && policy.applies_group(source)) {
        let change = request.pod.spec().security_context.as_ref().and_then(|s| s.fs_group_change_policy.as_deref());
        let (path, on_mismatch) = (target.clone(), change == Some("OnRootMismatch"));
        let set = move || ownership::set(&path, group, false, on_mismatch);
        let owned = tokio::task::spawn_blocking(set).await.map_err(std::io::Error::other).and_then(|r| r);
        owned.map_err(|e| fail(format!("applyFSGroup failed for vol {}: {e}", source.handle)))?;
    }
    let again = policy.flag(|s| s.requires_republish).then(|| Instant::now() + REPUBLISH);
    ctx.plugins.csi.set_published(&target, again, attached);
    Ok(done(again))
}

/// What the calls of one set-up share.
pub struct Given<'a> {
    pub driver: &'a Driver,
    pub context: &'a HashMap<String, String>,
    /// Group the driver is to apply itself.
    pub group: Option<u32>,
}

fn is_left_published(dir: &Path, target: &Path, source: &Source) -> bool {
    let same = Record::load(dir).ok().flatten().is_some_and(|r| r.handle == source.handle && r.driver == source.driver);
    same && mounts::is_mounted(target).unwrap_or(false)
}

/// What the attachment says; an error while it is not attached, without words where that is only to be waited for.
pub async fn publish_context(
    request: &Request<'_>,
    source: &Source,
    attach: bool,
) -> Result<HashMap<String, String>, String> {
    if !attach {
        return Ok(HashMap::new());
    }
    let ctx = request.ctx;
    let name = source.attachment(&ctx.config.node_name);
    let api: kube::Api<VolumeAttachment> = kube::Api::all(ctx.config.client.clone());
    let fail = |why: String| failed("MountVolume.WaitForAttach", &source.spec_name, why);
    // Noted before it is read: the node's status tells of the attachment, and wakes the pod.
    ctx.plugins.csi.wait_for_attachment(request.pod.uid());
    let found = match api.get(&name).await {
        Ok(found) => found,
        // The controller has not made it yet.
        Err(error) if is_not_found(&error) => return Err(String::new()),
        Err(error) => return Err(fail(api_message(&error))),
    };
    let status = found.status.unwrap_or_default();
    if found.metadata.deletion_timestamp.is_some() {
        return Err(fail(format!("VolumeAttachment {name} is being deleted")));
    }
    if !status.attached {
        // The controller says to the pod what is wrong; waiting alone is no event.
        let error = status.attach_error.and_then(|e| e.message);
        return Err(error.map(fail).unwrap_or_default());
    }
    Ok(status.attachment_metadata.unwrap_or_default().into_iter().collect())
}

pub fn record(ctx: &Context, source: &Source) -> Record {
    Record {
        spec_name: source.spec_name.clone(),
        handle: source.handle.clone(),
        driver: source.driver.clone(),
        ephemeral: source.ephemeral,
        attachment: source.attachment(&ctx.config.node_name),
        node: ctx.config.node_name.clone(),
    }
}

/// Stages the volume where the driver wants that; the path, or an empty one.
async fn stage(request: &Request<'_>, source: &Source, given: &Given<'_>) -> Result<PathBuf, String> {
    let fail = |why: String| failed("MountVolume.MountDevice", &source.spec_name, why);
    if source.ephemeral || !given.driver.can(Rpc::StageUnstageVolume).await.map_err(&fail)? {
        return Ok(PathBuf::new());
    }
    let ctx = request.ctx;
    let dir = stage_dir(ctx, &source.driver, &source.handle);
    let path = dir.join("globalmount");
    let _turn = ctx.plugins.csi.lock(&dir).await;
    if ctx.plugins.csi.is_published(&path).is_some() || is_left_published(&dir, &path, source) {
        ctx.plugins.csi.set_published(&path, None, None);
        return Ok(path);
    }
    mounts::make_dir(&path, 0o750).map_err(|e| fail(e.to_string()))?;
    record(ctx, source).save(&dir).map_err(|e| fail(log(format!("failed to save volume info data: {e}"))))?;
    let secrets = source::secret(request, "NodeStageSecretRef", source.stage_secret.as_ref()).await.map_err(&fail)?;
    let single = given.driver.can(Rpc::SingleNodeMultiWriter).await.map_err(&fail)?;
    let call = NodeStageVolumeRequest {
        volume_id: source.handle.clone(),
        publish_context: given.context.clone(),
        staging_target_path: path.display().to_string(),
        volume_capability: Some(source.capability(single, given.group)),
        secrets,
        volume_context: source.attributes.clone(),
    };
    if let Err(status) = given.driver.node().node_stage_volume(rpc::timed(call)).await {
        if rpc::is_final(&status) && !mounts::is_mounted(&path).unwrap_or(true) {
            let _ = std::fs::remove_dir(&path);
            let _ = Record::remove(&dir);
        }
        return Err(fail(rpc::text(&status)));
    }
    ctx.plugins.csi.set_published(&path, None, None);
    Ok(path)
}

async fn publish(
    request: &Request<'_>,
    source: &Source,
    given: &Given<'_>,
    policy: &Policy,
    dir: &Path,
    target: &Path,
    stage: PathBuf,
) -> Result<(), String> {
    let ctx = request.ctx;
    mounts::make_dir(dir, 0o750)
        .map_err(|e| log(format!("mounter.SetUpAt failed to create dir {:?}:  {e}", dir.display().to_string())))?;
    let mut secrets = source::secret(request, "NodePublishSecretRef", source.publish_secret.as_ref()).await?;
    let mut attributes = source.attributes.clone();
    if policy.flag(|s| s.pod_info_on_mount) {
        attributes.extend(pod_info(request.pod, source.ephemeral));
    }
    if let Some(tokens) = tokens(request, policy).await? {
        let in_secrets = policy.flag(|s| s.service_account_token_in_secrets);
        let place = if in_secrets { &mut secrets } else { &mut attributes };
        place.insert("csi.storage.k8s.io/serviceAccount.tokens".into(), tokens);
    }
    let single = given.driver.can(Rpc::SingleNodeMultiWriter).await?;
    record(ctx, source).save(dir).map_err(|e| log(format!("mounter.SetUpAt failed to save volume info data: {e}")))?;
    let remount = target.exists();
    let call = NodePublishVolumeRequest {
        volume_id: source.handle.clone(),
        publish_context: given.context.clone(),
        staging_target_path: stage.display().to_string(),
        target_path: target.display().to_string(),
        volume_capability: Some(source.capability(single, given.group)),
        readonly: source.readonly,
        secrets,
        volume_context: attributes,
    };
    let answer = given.driver.node().node_publish_volume(rpc::timed(call)).await;
    if let Err(status) = answer {
        // A volume that was published before is in use: nothing of it is taken away.
        if rpc::is_final(&status) && !remount {
            let _ = std::fs::remove_dir(target);
            let _ = Record::remove(dir);
        }
        return Err(rpc::text(&status));
    }
    Ok(())
}

fn pod_info(pod: &Pod, ephemeral: bool) -> HashMap<String, String> {
    let of = |key: &str, value: &str| (format!("csi.storage.k8s.io/{key}"), value.to_owned());
    HashMap::from([
        of("pod.name", pod.name()),
        of("pod.namespace", pod.namespace()),
        of("pod.uid", pod.uid()),
        of("serviceAccount.name", pod.spec().service_account_name.as_deref().unwrap_or_default()),
        of("ephemeral", if ephemeral { "true" } else { "false" }),
    ])
}

/// The tokens the driver asks for, as JSON by audience.
async fn tokens(request: &Request<'_>, policy: &Policy) -> Result<Option<String>, String> {
    let wanted = policy.spec.as_ref().and_then(|s| s.token_requests.clone()).unwrap_or_default();
    if wanted.is_empty() {
        return Ok(None);
    }
    let mut out = Map::new();
    for one in wanted {
        let issued = request.ctx.tokens.get(request.pod, &one.audience, one.expiration_seconds).await;
        let issued = issued
            .map_err(|why| log(format!("mounter.SetUpAt failed to get service accoount token attributes: {why}")))?;
        let until = jiff::Timestamp::from_second(issued.expires_at).map(|t| t.to_string()).unwrap_or_default();
        out.insert(one.audience, json!({"token": issued.text, "expirationTimestamp": until}));
    }
    Ok(Some(serde_json::Value::Object(out).to_string()))
}
