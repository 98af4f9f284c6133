//! fsGroup: the group of a volume's files.
//!
//! Containers of other pods may write to the volume meanwhile. Nothing is therefore changed by its path: what is changed
//! is what was opened, and no link is followed on the way to it.

use crate::beneath;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, fstat, open};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::rc::Rc;

/// Gives a whole volume to a group: group-owned, readable and writable by it, directories setgid.
/// With `on_root_mismatch` a volume whose top already fits is left alone.
pub fn set(root: &Path, group: u32, readonly: bool, on_root_mismatch: bool) -> io::Result<()> {
    if on_root_mismatch {
        let meta = std::fs::symlink_metadata(root)?;
        if meta.gid() == group && meta.mode() & 0o2070 == 0o2070 {
            return Ok(());
        }
    }
    let bits = if readonly { 0o440 } else { 0o660 };
    walk(root, &|file, stat| give(file, stat, group, bits))
}

/// Makes the directories of a tree traversable for a group.
pub fn set_directories(root: &Path, group: u32) -> io::Result<()> {
    walk(root, &|file, stat| if is(stat, FileType::Directory) { give(file, stat, group, 0) } else { Ok(()) })
}

/// Gives a whole tree to root, links themselves and not what they lead to.
pub fn give_to_root(root: &Path) -> io::Result<()> {
    let (uid, gid) = (Some(Uid::ROOT), Some(Gid::ROOT));
    walk(root, &|file, _| Ok(chownat(file, "", uid, gid, AtFlags::EMPTY_PATH)?))
}

fn is(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}

fn give(file: &OwnedFd, stat: &Stat, group: u32, bits: u32) -> io::Result<()> {
    chownat(file, "", None, Some(Gid::from_raw(group)), AtFlags::EMPTY_PATH)?;
    if is(stat, FileType::Symlink) {
        return Ok(());
    }
    let bits = if is(stat, FileType::Directory) { bits | 0o2050 } else { bits };
    // By /proc, since a handle that was not opened for reading has no fchmod before Linux 6.6.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    std::fs::set_permissions(path, PermissionsExt::from_mode(stat.st_mode & 0o7777 | bits))
}

/// Calls for a handle of each file of a tree, last of the tree itself: a walk that broke off begins anew.
fn walk(root: &Path, act: &dyn Fn(&OwnedFd, &Stat) -> io::Result<()>) -> io::Result<()> {
    let top = open(root, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = fstat(&top)?;
    // Directories that are still to be looked into, relative to the top: however deep, one is open at a time, and however
    // many, each is a name.
    let mut left: Vec<(Rc<Path>, OsString)> = Vec::new();
    if is(&stat, FileType::Directory) {
        left.push((Path::new("").into(), ".".into()));
    }
    while let Some((parent, name)) = left.pop() {
        let directory: Rc<Path> = parent.join(name).into();
        let Some(opened) = beneath::open_directory(&top, &directory)? else { continue };
        for entry in Dir::read_from(&opened)? {
            let entry = entry?;
            let name = Path::new(OsStr::from_bytes(entry.file_name().to_bytes()));
            if name == Path::new(".") || name == Path::new("..") {
                continue;
            }
            let Some(file) = beneath::open_handle(&opened, name)? else { continue };
            let stat = fstat(&file)?;
            act(&file, &stat)?;
            if is(&stat, FileType::Directory) {
                left.push((directory.clone(), name.as_os_str().to_owned()));
            }
        }
    }
    act(&top, &stat)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).expect("stat").mode() & 0o7777
    }

    #[test]
    fn a_tree_is_given_and_links_are_not_followed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (volume, outside) = (dir.path().join("volume"), dir.path().join("outside"));
        std::fs::create_dir_all(volume.join("a/b")).expect("mkdir");
        std::fs::write(volume.join("a/b/f"), "").and_then(|()| std::fs::write(&outside, "")).expect("write");
        for path in [&outside, &volume.join("a/b/f")] {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).expect("chmod");
        }
        symlink(&outside, volume.join("link")).and_then(|()| symlink("/", volume.join("root"))).expect("symlink");
        let group = rustix::process::getgid().as_raw();
        set(&volume, group, false, false).expect("set");
        assert_eq!((mode(&outside), mode(&volume.join("a/b/f"))), (0o600, 0o660));
        for directory in ["", "a", "a/b"] {
            assert_eq!(mode(&volume.join(directory)) & 0o2070, 0o2070, "{directory}");
        }
    }

    #[test]
    fn what_is_too_deep_for_a_path_is_given_too() {
        let dir = tempfile::tempdir().expect("tempdir");
        let file = beneath::tests::deep_file(dir.path());
        set(dir.path(), rustix::process::getgid().as_raw(), false, false).expect("set");
        let top = open(dir.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).expect("open");
        let given = beneath::open_handle(&top, &file).expect("a way").expect("the file");
        assert_eq!(fstat(&given).expect("stat").st_mode & 0o777, 0o660);
        cri::remove_tree(dir.path()).expect("removed");
    }

    #[test]
    fn a_link_in_place_of_the_volume_is_not_followed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (volume, outside) = (dir.path().join("volume"), dir.path().join("outside"));
        std::fs::create_dir(&outside).and_then(|()| symlink(&outside, &volume)).expect("link");
        let before = mode(&outside);
        let _ = set(&volume, rustix::process::getgid().as_raw(), false, false);
        assert_eq!(mode(&outside), before);
    }

    /// A container of another pod exchanges a directory for a link to the node while the volume is given away.
    #[test]
    fn a_race_never_leads_outside() {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        let dir = tempfile::tempdir().expect("tempdir");
        let (volume, secret) = (dir.path().join("volume"), dir.path().join("secret"));
        std::fs::create_dir_all(volume.join("sub")).and_then(|()| std::fs::create_dir(&secret)).expect("mkdir");
        std::fs::write(secret.join("f"), "").and_then(|()| std::fs::write(volume.join("sub/f"), "")).expect("write");
        symlink(&secret, volume.join("link")).expect("symlink");
        std::fs::set_permissions(secret.join("f"), PermissionsExt::from_mode(0o600)).expect("chmod");
        let (stop, group) = (AtomicBool::new(false), rustix::process::getgid().as_raw());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (a, b) = (volume.join("sub"), volume.join("link"));
                while !stop.load(Ordering::Relaxed) {
                    renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).expect("exchange");
                }
            });
            let done: Vec<_> = (0..20_000).map(|_| set(&volume, group, false, false)).collect();
            stop.store(true, Ordering::Relaxed);
            done.into_iter().for_each(|result| result.expect("set"));
        });
        assert_eq!(mode(&secret.join("f")), 0o600);
    }
}
