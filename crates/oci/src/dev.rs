//! `/dev` of a container: a small tmpfs with the standard nodes and links.

use crate::error::{Context, Result};
use crate::mount;
use crate::path::{Kind, Root};
use crate::spec::DeviceNode;
use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid, chmodat, chownat, makedev, mkdirat, mknodat, symlinkat};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Character devices every container has: name, major, minor.
pub(crate) const STANDARD: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: [(&str, &str); 6] = [
    ("pts/ptmx", "ptmx"),
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
];

/// Makes the tmpfs, detached, with its nodes, links and empty mount points. In a user namespace nodes
/// cannot be made: clones of the node's own, opened before, are attached once /dev is in place.
pub(crate) fn make(nodes: bool) -> Result<OwnedFd> {
    let dev = mount::new("tmpfs", &[("mode", Some("755")), ("size", Some("65536k"))], mount::NOSUID)?;
    for (name, major, minor) in STANDARD {
        if nodes {
            let mode = Mode::from_raw_mode(0o666);
            mknodat(&dev, name, FileType::CharacterDevice, mode, makedev(major, minor))
                .context(|| format!("mknod /dev/{name}"))?;
        } else {
            rustix::fs::openat(
                &dev,
                name,
                rustix::fs::OFlags::CREATE | rustix::fs::OFlags::CLOEXEC,
                Mode::from_raw_mode(0o666),
            )
            .context(|| format!("create /dev/{name}"))?;
        }
    }
    for dir in ["pts", "shm", "mqueue"] {
        mkdirat(&dev, dir, Mode::from_raw_mode(0o755)).context(|| format!("mkdir /dev/{dir}"))?;
    }
    for (target, name) in LINKS {
        symlinkat(target, &dev, name).context(|| format!("symlink /dev/{name}"))?;
    }
    Ok(dev)
}

/// Makes further device nodes below the new root.
pub(crate) fn add(root: &Root, devices: &[DeviceNode]) -> Result<()> {
    for device in devices {
        let shown = || format!("mknod {}", device.path.display());
        let (Some(parent), Some(name)) = (device.path.parent(), device.path.file_name()) else { continue };
        let dir = root.ensure(parent, Kind::Dir)?;
        let kind = if device.block { FileType::BlockDevice } else { FileType::CharacterDevice };
        match mknodat(&dir, name, kind, Mode::from_raw_mode(device.mode & 0o777), makedev(device.major, device.minor)) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => continue,
            Err(error) => return Err(error).context(shown),
        }
        chownat(
            &dir,
            name,
            Some(Uid::from_raw(device.uid)),
            Some(Gid::from_raw(device.gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .context(shown)?;
        chmodat(&dir, name, Mode::from_raw_mode(device.mode & 0o777), AtFlags::empty()).context(shown)?;
    }
    Ok(())
}

/// The device nodes below a path of the node: the path itself, or all in a directory.
pub fn host_devices(path: &Path, shown_as: &Path) -> Result<Vec<DeviceNode>> {
    const OWN: [&str; 6] = ["pts", "shm", "fd", "mqueue", "console", "ptmx"];
    let meta = std::fs::metadata(path).context(|| path.display().to_string())?;
    if !meta.is_dir() {
        return Ok(node(&meta, shown_as.to_path_buf()).into_iter().collect());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).context(|| path.display().to_string())?.flatten() {
        let name = entry.file_name();
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_symlink() || (path == Path::new("/dev") && OWN.iter().any(|own| name == *own)) {
            continue;
        }
        if meta.is_dir() {
            found.extend(host_devices(&entry.path(), &shown_as.join(&name))?);
        } else {
            found.extend(node(&meta, shown_as.join(&name)));
        }
    }
    Ok(found)
}

fn node(meta: &std::fs::Metadata, path: PathBuf) -> Option<DeviceNode> {
    let kind = meta.file_type();
    (kind.is_block_device() || kind.is_char_device()).then(|| DeviceNode {
        path,
        block: kind.is_block_device(),
        major: rustix::fs::major(meta.rdev()),
        minor: rustix::fs::minor(meta.rdev()),
        mode: meta.mode() & 0o777,
        uid: meta.uid(),
        gid: meta.gid(),
    })
}

/// Attaches clones of the node's standard devices (user namespaces).
pub(crate) fn attach_clones(root: &Root, clones: &[OwnedFd]) -> Result<()> {
    for ((name, ..), clone) in STANDARD.iter().zip(clones) {
        let target = root.ensure(&Path::new("/dev").join(name), Kind::File)?;
        mount::attach(clone.as_fd(), target.as_fd())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_found_on_the_host() {
        let found = host_devices(Path::new("/dev/null"), Path::new("/dev/nothing")).unwrap();
        assert_eq!((found[0].major, found[0].minor, found[0].path.to_str()), (1, 3, Some("/dev/nothing")));
        assert!(host_devices(Path::new("/dev/absent"), Path::new("/x")).is_err());
    }
}
