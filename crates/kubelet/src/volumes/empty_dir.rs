//! `emptyDir` volumes: a directory of the pod, or a tmpfs.

use super::{MountedVolume, Request, VolumePlugin, mounts, ownership};
use api::k8s::core::v1::Volume;
use api::quantity::Quantity;
use async_trait::async_trait;
use std::os::unix::fs::PermissionsExt;

/// The plugin.
pub struct EmptyDirVolume;

#[async_trait]
impl VolumePlugin for EmptyDirVolume {
    fn name(&self) -> &'static str {
        "kubernetes.io~empty-dir"
    }

    fn supports(&self, volume: &Volume) -> bool {
        volume.empty_dir.is_some()
    }

    async fn set_up(&self, request: &Request<'_>) -> Result<MountedVolume, String> {
        let source = request.volume.empty_dir.as_ref().ok_or("not an emptyDir volume")?;
        let mounted = MountedVolume { path: request.dir.clone(), readonly: false, renew_at: None };
        match source.medium.as_deref().unwrap_or_default() {
            "" => {
                if request.dir.is_dir() {
                    return Ok(mounted);
                }
                mounts::make_dir(&request.dir, 0o777).map_err(|e| e.to_string())?;
            }
            "Memory" => {
                let fresh =
                    !request.dir.is_dir() || !mounts::is_mount_point(&request.dir).map_err(|e| e.to_string())?;
                mounts::ensure_tmpfs(&request.dir, tmpfs_size(request)).map_err(|e| e.to_string())?;
                if !fresh {
                    return Ok(mounted);
                }
            }
            medium if medium.starts_with("HugePages") => {
                if !huge_pages(request, medium)? {
                    return Ok(mounted);
                }
            }
            other => return Err(format!("unknown storage medium {}", crate::format::quote(other))),
        }
        let mode = if source.medium.as_deref() == Some("Memory") { mounts::TMPFS_MODE } else { 0o777 };
        std::fs::set_permissions(&request.dir, PermissionsExt::from_mode(mode)).map_err(|e| e.to_string())?;
        if let Some(group) = request.fs_group() {
            ownership::set(&request.dir, group, false, false).map_err(|e| e.to_string())?;
        }
        Ok(mounted)
    }
}

/// Mounts a hugetlbfs with pages of the size that the medium names, or the only one that the pod asks for. Whether it
/// was not there yet.
fn huge_pages(request: &Request<'_>, medium: &str) -> Result<bool, String> {
    let requests = crate::qos::pod_requests(request.pod);
    let asked: Vec<&String> = requests.keys().filter(|name| name.starts_with("hugepages-")).collect();
    let resource = match (medium.strip_prefix("HugePages-"), asked.as_slice()) {
        (Some(size), _) => format!("hugepages-{size}"),
        (None, [only]) => (*only).clone(),
        (None, []) => return Err("medium HugePages: the pod's containers request no huge pages".into()),
        (None, _) => {
            return Err(
                "medium HugePages can be used only if the pod's containers request huge pages of one size".into()
            );
        }
    };
    let bytes = requests.get(&resource).map(|q| q.value()).filter(|b| *b > 0);
    let bytes = bytes.ok_or_else(|| format!("medium {medium}: the pod's containers do not request {resource}"))?;
    mounts::ensure_hugetlbfs(&request.dir, resource.trim_start_matches("hugepages-").trim_end_matches('i'), bytes)
        .map_err(|e| e.to_string())
}

/// The smaller of sizeLimit, the pod's memory limit and the node's allocatable memory.
fn tmpfs_size(request: &Request<'_>) -> u64 {
    let limit =
        request.volume.empty_dir.as_ref().and_then(|s| s.size_limit.as_ref()).and_then(|q| Quantity::parse(&q.0).ok());
    let limit = limit.filter(|q| q.sign() > 0);
    let of_pod = crate::qos::pod_limits(request.pod).get("memory").copied();
    let of_node = request.facts.allocatable.get("memory").copied();
    limit
        .into_iter()
        .chain(of_pod)
        .chain(of_node)
        .map(|q| q.value())
        .min()
        .and_then(|v| u64::try_from(v).ok())
        .unwrap_or(0)
}
