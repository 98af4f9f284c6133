//! `hostPath` volumes and their types.

use super::{MountedVolume, Request, VolumePlugin, bounded, mounts};
use api::k8s::core::v1::Volume;
use async_trait::async_trait;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// The plugin.
pub struct HostPathVolume;

#[async_trait]
impl VolumePlugin for HostPathVolume {
    fn name(&self) -> &'static str {
        "kubernetes.io~host-path"
    }

    fn supports(&self, volume: &Volume) -> bool {
        volume.host_path.is_some()
    }

    async fn set_up(&self, request: &Request<'_>) -> Result<MountedVolume, String> {
        let source = request.volume.host_path.as_ref().ok_or("not a hostPath volume")?;
        check(&source.path, source.type_.as_deref().unwrap_or_default()).await?;
        Ok(MountedVolume { path: (&source.path).into(), readonly: false, renew_at: None })
    }
}

/// Checks (or makes) what the type promises; the path may lie on a file server.
pub async fn check(path: &str, kind: &str) -> Result<(), String> {
    let (path, kind) = (path.to_owned(), kind.to_owned());
    bounded::aside(move || Ok(check_now(Path::new(&path), &kind))).await.map_err(|error| error.to_string())?
}

fn check_now(path: &Path, kind: &str) -> Result<(), String> {
    let shown = path.display();
    if !path.is_absolute() || path.components().any(|c| c == std::path::Component::ParentDir) {
        return Err(format!("invalid HostPath `{shown}`: must not contain '..'"));
    }
    let file_type = || std::fs::metadata(path).map(|m| m.file_type()).ok();
    let fail = |what: &str| Err(format!("hostPath type check failed: {shown} is not {what}"));
    let holds = match kind {
        "" => return Ok(()),
        "DirectoryOrCreate" if !path.exists() => return mounts::make_dir(path, 0o755).map_err(|e| e.to_string()),
        "FileOrCreate" if !path.exists() => {
            let open = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o644).open(path);
            return open.map(drop).map_err(|e| e.to_string());
        }
        "Directory" | "DirectoryOrCreate" => (file_type().is_some_and(|t| t.is_dir()), "a directory"),
        "File" | "FileOrCreate" => (file_type().is_some_and(|t| t.is_file()), "a file"),
        "Socket" => (file_type().is_some_and(|t| t.is_socket()), "a socket file"),
        "CharDevice" => (file_type().is_some_and(|t| t.is_char_device()), "a character device"),
        "BlockDevice" => (file_type().is_some_and(|t| t.is_block_device()), "a block device"),
        other => return Err(format!("{other} is an invalid volume type")),
    };
    if holds.0 { Ok(()) } else { fail(holds.1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_checked_or_made() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = |name: &str| dir.path().join(name);
        assert_eq!(check_now(&path("d"), "DirectoryOrCreate"), Ok(()));
        assert_eq!(check_now(&path("f"), "FileOrCreate"), Ok(()));
        assert_eq!(check_now(&path("d"), "Directory"), Ok(()));
        let message = format!("hostPath type check failed: {} is not a directory", path("f").display());
        assert_eq!(check_now(&path("f"), "Directory"), Err(message));
        assert!(check_now(&path("x"), "Socket").is_err());
        assert_eq!(check_now(Path::new("/dev/null"), "CharDevice"), Ok(()));
        assert!(check_now(Path::new("/a/../b"), "").is_err());
    }
}
