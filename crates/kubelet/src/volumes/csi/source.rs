//! What a volume source says, inline and persistent alike.

use super::super::Request;
use crate::format::quote;
use crate::pod::PodExt;
use api::k8s::core::v1::{PersistentVolume, Secret, SecretReference};
use protos::csi::VolumeCapability;
use protos::csi::volume_capability::access_mode::Mode;
use protos::csi::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use sha2::Digest;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

/// A CSI volume of a pod.
pub struct Source {
    /// Name of the volume of the specification: the persistent volume's, or the pod's own.
    pub spec_name: String,
    /// Driver.
    pub driver: String,
    /// The driver's name of the volume.
    pub handle: String,
    /// File system.
    pub fs_type: String,
    /// Attributes.
    pub attributes: HashMap<String, String>,
    /// Published read-only.
    pub readonly: bool,
    /// Access modes of the persistent volume.
    pub access_modes: Vec<String>,
    /// Mount options.
    pub mount_options: Vec<String>,
    /// A raw device.
    pub block: bool,
    /// Lives as long as its pod.
    pub ephemeral: bool,
    /// Secrets of the calls.
    pub stage_secret: Option<SecretReference>,
    /// As above.
    pub publish_secret: Option<SecretReference>,
    /// As above.
    pub expand_secret: Option<SecretReference>,
}

/// Hex digits of a hash.
pub fn sha256(text: &str) -> String {
    sha2::Sha256::digest(text.as_bytes()).iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

impl Source {
    /// `volumes[].csi`
    pub fn inline(request: &Request<'_>) -> Result<Self, String> {
        let source = request.volume.csi.as_ref().ok_or("volume source not found in volume.Spec")?;
        let name = &request.volume.name;
        let secret = source.node_publish_secret_ref.as_ref().map(|s| SecretReference {
            name: Some(s.name.clone()),
            namespace: Some(request.pod.namespace().to_owned()),
        });
        Ok(Self {
            spec_name: name.clone(),
            driver: source.driver.clone(),
            handle: format!("csi-{}", sha256(&format!("{}{name}", request.pod.uid()))),
            fs_type: source.fs_type.clone().unwrap_or_default(),
            attributes: map(source.volume_attributes.as_ref()),
            readonly: source.read_only.unwrap_or(false),
            access_modes: vec!["ReadWriteOnce".into()],
            mount_options: Vec::new(),
            block: false,
            ephemeral: true,
            stage_secret: None,
            publish_secret: secret,
            expand_secret: None,
        })
    }

    /// A persistent volume's `spec.csi`.
    pub fn persistent(request: &Request<'_>, volume: &PersistentVolume) -> Result<Self, String> {
        let spec = volume.spec.as_ref().ok_or("PersistentVolume has no spec")?;
        let source = spec.csi.as_ref().ok_or("volume source not found in volume.Spec")?;
        let claim_readonly = request.volume.persistent_volume_claim.as_ref().and_then(|c| c.read_only).unwrap_or(false);
        Ok(Self {
            spec_name: volume.metadata.name.clone().unwrap_or_default(),
            driver: source.driver.clone(),
            handle: source.volume_handle.clone(),
            fs_type: source.fs_type.clone().unwrap_or_default(),
            attributes: map(source.volume_attributes.as_ref()),
            readonly: claim_readonly || source.read_only.unwrap_or(false),
            access_modes: spec.access_modes.clone().unwrap_or_default(),
            mount_options: spec.mount_options.clone().unwrap_or_default(),
            block: spec.volume_mode.as_deref() == Some("Block"),
            ephemeral: false,
            stage_secret: source.node_stage_secret_ref.clone(),
            publish_secret: source.node_publish_secret_ref.clone(),
            expand_secret: source.node_expand_secret_ref.clone(),
        })
    }

    /// `Persistent` or `Ephemeral`.
    pub fn lifecycle(&self) -> &'static str {
        if self.ephemeral { "Ephemeral" } else { "Persistent" }
    }

    /// Name of the volume's attachment to a node.
    pub fn attachment(&self, node: &str) -> String {
        attachment_name(&self.handle, &self.driver, node)
    }

    /// The capability that calls carry; `group` where the driver applies fsGroup itself.
    pub fn capability(&self, single_writer: bool, group: Option<u32>) -> VolumeCapability {
        let access_type = if self.block {
            AccessType::Block(BlockVolume {})
        } else {
            AccessType::Mount(MountVolume {
                fs_type: self.fs_type.clone(),
                mount_flags: self.mount_options.clone(),
                volume_mount_group: group.map(|g| g.to_string()).unwrap_or_default(),
            })
        };
        let mode = access_mode(self.access_modes.first().map_or("ReadWriteOnce", String::as_str), single_writer);
        VolumeCapability { access_mode: Some(AccessMode { mode: mode.into() }), access_type: Some(access_type) }
    }
}

/// `csi-` and a hash, as the attach-detach controller names attachments.
pub fn attachment_name(handle: &str, driver: &str, node: &str) -> String {
    format!("csi-{}", sha256(&format!("{handle}{driver}{node}")))
}

fn access_mode(mode: &str, single_writer: bool) -> Mode {
    match mode {
        "ReadOnlyMany" => Mode::MultiNodeReaderOnly,
        "ReadWriteMany" => Mode::MultiNodeMultiWriter,
        "ReadWriteOncePod" if single_writer => Mode::SingleNodeSingleWriter,
        "ReadWriteOnce" if single_writer => Mode::SingleNodeMultiWriter,
        _ => Mode::SingleNodeWriter,
    }
}

fn map(from: Option<&BTreeMap<String, String>>) -> HashMap<String, String> {
    from.into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Contents of a secret that a call carries.
pub async fn secret(
    request: &Request<'_>,
    field: &str,
    reference: Option<&SecretReference>,
) -> Result<HashMap<String, String>, String> {
    let Some(reference) = reference else { return Ok(HashMap::new()) };
    let (name, namespace) =
        (reference.name.clone().unwrap_or_default(), reference.namespace.clone().unwrap_or_default());
    let api: kube::Api<Secret> = kube::Api::namespaced(request.ctx.config.client.clone(), &namespace);
    let found = api
        .get(&name)
        .await
        .map_err(|e| format!("fetching {field} {namespace}/{name} failed: {}", crate::context::api_message(&e)))?;
    let text = |bytes: Vec<u8>| {
        String::from_utf8(bytes).map_err(|_| format!("fetching {field} {namespace}/{name} failed: not UTF-8"))
    };
    found.data.into_iter().flatten().map(|(k, v)| Ok((k, text(v.0)?))).collect()
}

/// The name by which the node's status and the controllers know a volume.
pub fn unique_name(driver: &str, handle: &str) -> String {
    format!("{}/{driver}^{handle}", super::PLUGIN)
}

/// `kubernetes.io/csi: why`, as upstream prefixes what it says itself.
pub fn log(why: impl std::fmt::Display) -> String {
    format!("{}: {why}", super::PLUGIN)
}

/// The operation's message of an event.
pub fn failed(operation: &str, spec_name: &str, why: impl std::fmt::Display) -> String {
    format!("{operation} failed for volume {} : {why}", quote(spec_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_modes_depend_on_the_driver() {
        let check = |mode, single, expect: Mode| assert_eq!(access_mode(mode, single), expect);
        check("ReadWriteOnce", false, Mode::SingleNodeWriter);
        check("ReadWriteOnce", true, Mode::SingleNodeMultiWriter);
        check("ReadWriteOncePod", true, Mode::SingleNodeSingleWriter);
        check("ReadOnlyMany", true, Mode::MultiNodeReaderOnly);
        check("ReadWriteMany", false, Mode::MultiNodeMultiWriter);
    }

    #[test]
    fn attachments_are_named_by_a_hash() {
        assert_eq!(attachment_name("vol", "driver", "node"), format!("csi-{}", sha256("voldrivernode")));
        assert_eq!(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
