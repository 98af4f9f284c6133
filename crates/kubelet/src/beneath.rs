//! Opening what is below a directory that containers may change meanwhile: no link is followed on the way, nothing outside
//! is reached, and no way is too long.

use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What is opened at a time: the kernel takes 4,095 bytes.
const PIECE: usize = 4000;

/// Opens a directory for reading; `None` where it is gone, or something else by now.
pub fn open_directory(top: &OwnedFd, path: &Path) -> io::Result<Option<OwnedFd>> {
    open(top, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK)
}

/// Opens a handle of whatever is there, of a link itself.
pub fn open_handle(top: &OwnedFd, path: &Path) -> io::Result<Option<OwnedFd>> {
    open(top, path, OFlags::PATH | OFlags::NOFOLLOW)
}

fn open(top: &OwnedFd, path: &Path, flags: OFlags) -> io::Result<Option<OwnedFd>> {
    let (mut reached, mut rest) = (None, path.as_os_str().as_bytes());
    while rest.len() > PIECE {
        let cut = rest[..PIECE].iter().rposition(|byte| *byte == b'/').ok_or(Errno::NAMETOOLONG)?;
        let next = open_piece(reached.as_ref().unwrap_or(top), &rest[..cut], OFlags::PATH | OFlags::DIRECTORY)?;
        let Some(next) = next else { return Ok(None) };
        (reached, rest) = (Some(next), &rest[cut + 1..]);
    }
    open_piece(reached.as_ref().unwrap_or(top), rest, flags)
}

fn open_piece(at: &OwnedFd, path: &[u8], flags: OFlags) -> io::Result<Option<OwnedFd>> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(at, OsStr::from_bytes(path), flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        // A rename raced with the walk of the kernel, which cannot say whether the path left the tree.
        Err(Errno::AGAIN | Errno::XDEV) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use rustix::fs::{CWD, mkdirat, openat};

    /// A file below directories whose names are together longer than a path can be; the way to it.
    pub fn deep_file(top: &Path) -> std::path::PathBuf {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let mut at = openat(CWD, top, flags, Mode::empty()).expect("open");
        let mut path = std::path::PathBuf::new();
        for _ in 0..40 {
            let name = "d".repeat(200);
            mkdirat(&at, name.as_str(), Mode::RWXU).expect("mkdir");
            at = openat(&at, name.as_str(), flags, Mode::empty()).expect("open");
            path.push(name);
        }
        openat(&at, "file", OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR).expect("file");
        path.join("file")
    }

    #[test]
    fn long_ways_are_gone_in_pieces_and_links_are_not_followed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = deep_file(dir.path());
        std::os::unix::fs::symlink("/etc", dir.path().join("link")).expect("symlink");
        let top = openat(CWD, dir.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).expect("open");
        assert!(open_handle(&top, &path).expect("a way").is_some());
        assert!(open_directory(&top, path.parent().expect("parent")).expect("a way").is_some());
        for gone in ["link", "link/passwd", "../x", "absent"] {
            assert!(open_directory(&top, Path::new(gone)).expect("no error").is_none(), "{gone}");
        }
        assert!(open_handle(&top, Path::new("link")).expect("itself").is_some());
        assert!(open_handle(&top, Path::new("link/passwd")).expect("no error").is_none());
        cri::remove_tree(dir.path()).expect("removed");
    }
}
