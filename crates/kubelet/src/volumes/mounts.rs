//! Mounts the kubelet itself makes: tmpfs volumes and subPath binds.

use super::bounded;
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Command;

/// How long an unmount is waited for.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(60);

/// Makes a directory and its parents with a mode that the umask does not narrow.
pub fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o750).create(path)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode))
}

/// Whether something is mounted at a path.
pub fn is_mount_point(path: &Path) -> io::Result<bool> {
    let Some(parent) = path.parent() else { return Ok(true) };
    Ok(std::fs::metadata(path)?.dev() != std::fs::metadata(parent)?.dev())
}

/// Whether something is mounted at a path; finds binds of the same file system too. The table of mounts, which holds
/// hundreds of lines on a full node, is read only where the kernel (before 5.8) does not say it of the path itself.
pub fn is_mounted(path: &Path) -> io::Result<bool> {
    // A dead server of a network file system must not be asked.
    match statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::empty()) {
        Ok(stat) if stat.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) => {
            Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
        }
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        Ok(_) | Err(_) => {
            let exact = path.canonicalize().unwrap_or_else(|_| path.to_owned());
            Ok(mount_points(path)?.iter().any(|(point, _)| *point == exact))
        }
    }
}

/// The mode of a tmpfs' root, as the kernel gives it by itself: volumes in memory are known to have it.
pub const TMPFS_MODE: u32 = 0o1777;

/// Sees to it that a tmpfs is mounted at a path. Zero bytes: no limit of its own.
pub fn ensure_tmpfs(path: &Path, bytes: u64) -> io::Result<()> {
    make_dir(path, TMPFS_MODE)?;
    if is_mount_point(path)? {
        return Ok(());
    }
    let size = if bytes > 0 { format!(",size={bytes}") } else { String::new() };
    // Swap would put secrets on disk; the kernels that know noswap are asked first.
    let mount_with = |options: String| {
        let options = std::ffi::CString::new(options).map_err(io::Error::other)?;
        mount("tmpfs", path, "tmpfs", MountFlags::NODEV | MountFlags::NOSUID, Some(options.as_c_str()))
            .map_err(io::Error::from)
    };
    let mode = format!("mode={TMPFS_MODE:o}{size}");
    mount_with(format!("{mode},noswap")).or_else(|_| mount_with(mode.clone()))
}

/// Sees to it that a hugetlbfs is mounted at a path; whether it was not before. `size`: `2M`, `1G`.
pub fn ensure_hugetlbfs(path: &Path, size: &str, bytes: i64) -> io::Result<bool> {
    make_dir(path, 0o777)?;
    if is_mount_point(path)? {
        return Ok(false);
    }
    let options = std::ffi::CString::new(format!("pagesize={size},size={bytes}")).map_err(io::Error::other)?;
    mount("nodev", path, "hugetlbfs", MountFlags::empty(), Some(options.as_c_str()))?;
    Ok(true)
}

/// Unmounts everything at and below a directory, the deepest first. A server that does not answer is waited for a minute,
/// for what is not written yet, as upstream does; its file system is gone from here all the same.
pub async fn unmount_below(dir: &Path) -> io::Result<()> {
    for (point, kind) in deepest_first(dir)? {
        if is_remote(&kind) { unmount_remote(&point).await? } else { detach(&point)? }
    }
    nothing_left(dir)
}

/// Like [`unmount_below`], on a thread that may wait.
pub fn detach_below(dir: &Path) -> io::Result<()> {
    for (point, _) in deepest_first(dir)? {
        detach(&point)?;
    }
    nothing_left(dir)
}

fn detach(point: &Path) -> io::Result<()> {
    Ok(unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?)
}

/// Detaches a file system in a process that can be killed. Whether it is gone is looked up by the caller.
async fn unmount_remote(point: &Path) -> io::Result<()> {
    let mut command = Command::new("umount");
    // Without the helper of its type and without looking at the path: both would ask the server.
    command.args(["--internal-only", "--lazy", "--no-canonicalize", "--"]).arg(point);
    match bounded::run(command, UNMOUNT_PATIENCE).await {
        Ok(output) if output.status.success() => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(()),
        // Another `umount` than util-linux's: a thread may be lost.
        Ok(_) | Err(_) => {
            let point = point.to_owned();
            bounded::aside(move || detach(&point)).await
        }
    }
}

/// Whether a server answers for file systems of a type.
fn is_remote(kind: &str) -> bool {
    matches!(kind, "nfs" | "nfs4" | "cifs" | "smb3" | "ceph" | "9p" | "afs") || kind.starts_with("fuse")
}

fn nothing_left(dir: &Path) -> io::Result<()> {
    let left = mount_points(dir)?;
    if left.is_empty() { Ok(()) } else { Err(io::Error::other(format!("still mounted: {left:?}"))) }
}

fn deepest_first(dir: &Path) -> io::Result<Vec<(PathBuf, String)>> {
    let mut points = mount_points(dir)?;
    points.sort_by_key(|(point, _)| std::cmp::Reverse(point.as_os_str().len()));
    Ok(points)
}

/// What is mounted at and below a directory, with the type of each file system (proc_pid_mountinfo(5)).
fn mount_points(dir: &Path) -> io::Result<Vec<(PathBuf, String)>> {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let text = std::fs::read_to_string("/proc/self/mountinfo")?;
    let point = |line: &str| {
        let path = unescape(line.split(' ').nth(4)?);
        let kind = line.split_once(" - ").and_then(|(_, rest)| rest.split(' ').next()).unwrap_or_default();
        path.starts_with(&dir).then(|| (path, kind.to_owned()))
    };
    Ok(text.lines().filter_map(point).collect())
}

/// Undoes mountinfo's octal escapes (`\040` for a space).
fn unescape(text: &str) -> PathBuf {
    let (bytes, mut out, mut i) = (text.as_bytes(), Vec::new(), 0);
    while i < bytes.len() {
        let octal = text.get(i + 1..i + 4).filter(|_| bytes[i] == b'\\').and_then(|d| u8::from_str_radix(d, 8).ok());
        out.push(octal.unwrap_or(bytes[i]));
        i += if octal.is_some() { 4 } else { 1 };
    }
    std::ffi::OsString::from_vec(out).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_told_from_directories() {
        let dir = tempfile::tempdir().expect("tempdir");
        for (path, expect) in [(Path::new("/proc"), true), (Path::new("/proc/self"), false), (dir.path(), false)] {
            assert_eq!(is_mounted(path).expect("looked"), expect, "{path:?}");
        }
        assert!(!is_mounted(&dir.path().join("missing/x")).expect("looked"));
    }

    #[test]
    fn octal_escapes_are_undone() {
        assert_eq!(unescape("/a\\040b\\134"), Path::new("/a b\\"));
        assert_eq!(unescape("/a\\9"), Path::new("/a\\9"));
    }
}
