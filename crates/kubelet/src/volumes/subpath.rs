//! Paths inside a volume, opened so that no link in it can lead outside (`openat2` with RESOLVE_BENEATH).

use super::mounts::make_dir;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use std::io::{self, Read};
use std::path::{Component, Path};

/// Largest file that is read from a volume.
const MAX_FILE: u64 = 1 << 20;

fn open_root(volume: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, volume, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

fn beneath() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS
}

/// Reads a small file of a volume.
pub fn read_within(volume: &Path, relative: &str) -> io::Result<String> {
    let root = open_root(volume)?;
    let file = openat2(&root, relative, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty(), beneath())?;
    let mut text = String::new();
    std::fs::File::from(file).take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}

/// Makes the missing directories of a path inside a volume, with the mode of the volume itself.
fn make_within(root: &OwnedFd, volume: &Path, relative: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(volume)?.permissions().mode() & 0o7777;
    let mut here = root.try_clone()?;
    for component in relative.components() {
        let Component::Normal(name) = component else { continue };
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        here = match openat2(&here, name, flags, Mode::empty(), beneath()) {
            Ok(next) => next,
            Err(rustix::io::Errno::NOENT) => {
                mkdirat(&here, name, Mode::from_raw_mode(mode))?;
                let made = openat2(
                    &here,
                    name,
                    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                    Mode::empty(),
                    beneath(),
                )?;
                rustix::fs::fchmod(&made, Mode::from_raw_mode(mode))?;
                made
            }
            // A link in the middle of the path: the whole path is resolved by the caller's open.
            Err(error) => return Err(error.into()),
        };
    }
    Ok(())
}

/// Binds `<volume>/<relative>` to `target` by descriptor, so that what was checked is what is mounted. It may wait for the
/// volume's server.
pub fn bind(volume: &Path, relative: &str, target: &Path) -> io::Result<()> {
    let root = open_root(volume)?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let source = match openat2(&root, relative, flags, Mode::empty(), beneath()) {
        Err(rustix::io::Errno::NOENT) => {
            make_within(&root, volume, Path::new(relative))?;
            openat2(&root, relative, flags, Mode::empty(), beneath())?
        }
        other => other?,
    };
    prepare_target(&source, target)?;
    let clone = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(source.as_fd(), c"", clone)?;
    Ok(move_mount(tree.as_fd(), c"", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

fn prepare_target(source: &OwnedFd, target: &Path) -> io::Result<()> {
    let stat = rustix::fs::fstat(source)?;
    if target.exists() {
        super::mounts::detach_below(target)?;
    }
    if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
        return make_dir(target, 0o750);
    }
    make_dir(target.parent().unwrap_or(Path::new("/")), 0o750)?;
    std::fs::OpenOptions::new().create(true).append(true).open(target).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_do_not_lead_outside() {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::write(dir.path().join("f"), "x").expect("write");
        std::os::unix::fs::symlink("f", dir.path().join("inside")).expect("symlink");
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("absolute")).expect("symlink");
        std::os::unix::fs::symlink("../../../etc/passwd", dir.path().join("up")).expect("symlink");
        assert_eq!(read_within(dir.path(), "inside").expect("read"), "x");
        for path in ["absolute", "up", "../x", "/etc/passwd"] {
            assert!(read_within(dir.path(), path).is_err(), "{path}");
        }
    }

    /// CVE-2017-1002101, CVE-2021-25741: a container exchanges a directory for a link while the kubelet resolves it.
    #[test]
    fn a_race_never_leads_outside() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let dir = tempfile::tempdir().expect("tempdir");
        let (volume, secret) = (dir.path().join("volume"), dir.path().join("secret"));
        std::fs::create_dir_all(volume.join("real")).expect("mkdir");
        std::fs::create_dir(&secret).expect("mkdir");
        std::fs::write(volume.join("real/f"), "inside").expect("write");
        std::fs::write(secret.join("f"), "outside").expect("write");
        std::os::unix::fs::symlink(&secret, volume.join("link")).expect("symlink");
        std::fs::rename(volume.join("real"), volume.join("sub")).expect("rename");
        let stop = AtomicBool::new(false);
        // What a weaker kubelet does: look that no component is a link, then use the path.
        let weak = || {
            let path = volume.join("sub");
            let checked = std::fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir());
            checked.then(|| std::fs::read_to_string(path.join("f")).ok()).flatten()
        };
        let escaped = std::thread::scope(|scope| {
            scope.spawn(|| {
                use rustix::fs::{CWD, RenameFlags, renameat_with};
                let (a, b) = (volume.join("sub"), volume.join("link"));
                while !stop.load(Ordering::Relaxed) {
                    renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).expect("exchange");
                }
            });
            let mut escaped = (0, 0);
            let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
            for _ in 0..200_000 {
                escaped.0 += usize::from(weak().as_deref() == Some("outside"));
                escaped.1 += usize::from(read_within(&volume, "sub/f").is_ok_and(|text| text == "outside"));
                if escaped.0 >= 3 || std::time::Instant::now() > until {
                    break;
                }
            }
            stop.store(true, Ordering::Relaxed);
            escaped
        });
        assert!(escaped.0 > 0, "the race is one that can be won");
        assert_eq!(escaped.1, 0, "but not against us");
    }

    #[test]
    fn directories_are_made_with_the_volumes_mode() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).expect("chmod");
        let root = open_root(dir.path()).expect("open");
        make_within(&root, dir.path(), Path::new("a/b")).expect("make");
        assert_eq!(std::fs::metadata(dir.path().join("a/b")).expect("stat").permissions().mode() & 0o777, 0o777);
    }
}
