//! fsGroup: the group of a volume's files.

use rustix::fs::{AtFlags, CWD, Gid, chownat};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// Gives a whole volume to a group: group-owned, readable and writable by it, directories setgid.
/// With `on_root_mismatch` a volume whose top already fits is left alone.
pub fn set(root: &Path, group: u32, readonly: bool, on_root_mismatch: bool) -> io::Result<()> {
    if on_root_mismatch {
        let meta = std::fs::metadata(root)?;
        if meta.gid() == group && meta.mode() & 0o2070 == 0o2070 {
            return Ok(());
        }
    }
    walk(root, group, if readonly { 0o440 } else { 0o660 })
}

/// Makes the directories of a tree traversable for a group.
pub fn set_directories(root: &Path, group: u32) -> io::Result<()> {
    own(root, group, 0, true)?;
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            set_directories(&entry.path(), group)?;
        }
    }
    Ok(())
}

/// Gives a whole tree to root, links themselves and not what they lead to.
pub fn give_to_root(path: &Path) -> io::Result<()> {
    if std::fs::symlink_metadata(path)?.file_type().is_dir() {
        for entry in std::fs::read_dir(path)? {
            give_to_root(&entry?.path())?;
        }
    }
    std::os::unix::fs::lchown(path, Some(0), Some(0))
}

fn walk(path: &Path, group: u32, bits: u32) -> io::Result<()> {
    let kind = std::fs::symlink_metadata(path)?.file_type();
    if kind.is_dir() {
        for entry in std::fs::read_dir(path)? {
            walk(&entry?.path(), group, bits)?;
        }
    }
    own(path, group, bits, kind.is_dir())
}

fn own(path: &Path, group: u32, bits: u32, directory: bool) -> io::Result<()> {
    chownat(CWD, path, None, Some(Gid::from_raw(group)), AtFlags::SYMLINK_NOFOLLOW)?;
    let meta = std::fs::symlink_metadata(path)?;
    if meta.file_type().is_symlink() {
        return Ok(());
    }
    let bits = if directory { bits | 0o2050 } else { bits };
    std::fs::set_permissions(path, PermissionsExt::from_mode(meta.mode() & 0o7777 | bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_widen_for_the_group() {
        let dir = tempfile::tempdir().expect("tempdir");
        let file = dir.path().join("f");
        std::fs::write(&file, "x").expect("write");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("chmod");
        // One's own group can be set without privilege.
        let group = std::fs::metadata(&file).expect("stat").gid();
        set(dir.path(), group, false, false).expect("set");
        assert_eq!(std::fs::metadata(&file).expect("stat").mode() & 0o777, 0o660);
        assert_eq!(std::fs::metadata(dir.path()).expect("stat").mode() & 0o2070, 0o2070);
    }
}
