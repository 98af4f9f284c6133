//! Unpacks a layer's tar stream below a directory handle, in overlayfs' form.
//!
//! Every path is walked by the kernel with `RESOLVE_IN_ROOT`: symbolic links of the layer, absolute
//! or with `..`, stay inside. A whiteout becomes a character device 0:0, an opaque marker the
//! attribute `trusted.overlay.opaque`. Directories the layer does not name get owner and mode from
//! the layers below, because in an overlay the upper directory's would hide them.

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{self as kernel, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

const OPAQUE: &str = "trusted.overlay.opaque";
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";
const XATTR: &str = "SCHILY.xattr.";

/// Unpacks `source` into `root`; `parents` are the unpacked layers below, topmost first. Returns bytes written.
pub(crate) fn unpack(
    source: impl Read,
    root: BorrowedFd<'_>,
    parents: &[OwnedFd],
    entries: usize,
    bytes: u64,
) -> io::Result<u64> {
    let mut archive = tar::Archive::new(source);
    let mut layer = Layer {
        root,
        parents,
        cached: None,
        hidden: HashSet::new(),
        directories: Vec::new(),
        bytes: 0,
        bytes_max: bytes,
    };
    for (count, entry) in archive.entries()?.enumerate() {
        if count >= entries {
            return Err(refuse(format!("it has more than {entries} entries")));
        }
        let mut entry = entry?;
        let path = entry.path_bytes().into_owned();
        layer.entry(&mut entry).map_err(|e| named(&path, e))?;
    }
    layer.finish()?;
    Ok(layer.bytes)
}

struct Layer<'a> {
    root: BorrowedFd<'a>,
    parents: &'a [OwnedFd],
    /// The last parent directory: most entries follow their siblings.
    cached: Option<(PathBuf, OwnedFd)>,
    /// Whiteouts of this layer: what is put there again must not show the lower directory.
    hidden: HashSet<PathBuf>,
    /// Times of directories, set when nothing more changes them.
    directories: Vec<(PathBuf, i64)>,
    bytes: u64,
    bytes_max: u64,
}

impl Layer<'_> {
    fn entry<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> io::Result<()> {
        let kind = entry.header().entry_type();
        if matches!(kind, tar::EntryType::XGlobalHeader) {
            return Ok(());
        }
        let path = inside(&entry.path()?)?;
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            // The root directory itself: only its attributes count.
            return if kind.is_dir() { self.attributes(entry, self.root.try_clone_to_owned()?, &path) } else { Ok(()) };
        };
        let parent = self.parent(path.parent().unwrap_or(Path::new("")))?;
        if name.as_bytes().starts_with(WHITEOUT) {
            return self.whiteout(&parent, &path, name.as_bytes());
        }
        self.make_room(&parent, &path, &name, kind)?;
        match kind {
            tar::EntryType::Directory => self.directory(entry, &parent, &path, &name),
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                self.regular(entry, &parent, &path, &name)
            }
            tar::EntryType::Symlink => self.symlink(entry, &parent, &name),
            tar::EntryType::Link => self.link(entry, &parent, &name),
            tar::EntryType::Char | tar::EntryType::Block | tar::EntryType::Fifo => self.node(entry, &parent, &name),
            other => Err(refuse(format!("entries of type {other:?} do not belong into an image layer"))),
        }
    }

    fn directory<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        parent: &OwnedFd,
        path: &Path,
        name: &OsStr,
    ) -> io::Result<()> {
        match kernel::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let made = kernel::openat(parent, name, flags, Mode::empty())?;
        if self.hidden.contains(path) {
            set_opaque(&made)?;
        }
        self.attributes(entry, made, path)
    }

    fn regular<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        parent: &OwnedFd,
        path: &Path,
        name: &OsStr,
    ) -> io::Result<()> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = kernel::openat(parent, name, flags, Mode::from_raw_mode(0o600))?;
        let mut file = std::fs::File::from(file);
        // A sparse file's size is not bounded by what is read of the archive.
        if entry.size() > self.bytes_max.saturating_sub(self.bytes) {
            return Err(refuse("with it the layer has more bytes than a layer may have"));
        }
        self.bytes += io::copy(entry, &mut file)?;
        self.attributes(entry, file.into(), path)
    }

    fn symlink<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>, parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
        let target = entry.link_name_bytes().ok_or_else(|| refuse("a symbolic link without target"))?.into_owned();
        kernel::symlinkat(OsStr::from_bytes(&target), parent, name)?;
        let (uid, gid) = owner(entry.header())?;
        kernel::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        let at = format!("/proc/self/fd/{}", parent.as_raw_fd());
        for (key, value) in xattrs(entry)? {
            set_xattr(&key, || {
                kernel::lsetxattr(Path::new(&at).join(name), key.as_str(), &value, XattrFlags::empty())
            })?;
        }
        kernel::utimensat(parent, name, &times(entry.header().mtime()? as i64), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }

    fn link<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>, parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
        let target = inside(&entry.link_name()?.ok_or_else(|| refuse("a hard link without target"))?)?;
        let target_name = target.file_name().ok_or_else(|| refuse("a hard link to the root directory"))?;
        let gone = |_: io::Error| refuse(format!("a hard link to {target:?}, which this layer does not have"));
        let above = open_in(self.root, target.parent().unwrap_or(Path::new(""))).map_err(gone)?;
        let found = kernel::statat(&above, target_name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| gone(e.into()))?;
        if is_whiteout(&found) {
            return Err(refuse(format!("a hard link to the whiteout {target:?}")));
        }
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            return Err(refuse(format!("a hard link to the directory {target:?}")));
        }
        kernel::linkat(&above, target_name, parent, name, AtFlags::empty())?;
        Ok(())
    }

    fn node<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>, parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
        let header = entry.header();
        let (kind, device) = device(header)?;
        kernel::mknodat(parent, name, kind, Mode::from_raw_mode(0o600), device)?;
        let made = kernel::openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let (uid, gid) = owner(header)?;
        kernel::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        kernel::chmod(format!("/proc/self/fd/{}", made.as_raw_fd()), Mode::from_raw_mode(header.mode()? & 0o7777))?;
        kernel::utimensat(parent, name, &times(header.mtime()? as i64), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }

    /// Owner first (it clears set-id bits and capabilities), then mode, attributes, times.
    fn attributes<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>, made: OwnedFd, path: &Path) -> io::Result<()> {
        let (uid, gid) = owner(entry.header())?;
        kernel::fchown(&made, Some(uid), Some(gid))?;
        kernel::fchmod(&made, Mode::from_raw_mode(entry.header().mode()? & 0o7777))?;
        for (key, value) in xattrs(entry)? {
            set_xattr(&key, || kernel::fsetxattr(&made, key.as_str(), &value, XattrFlags::empty()))?;
        }
        let mtime = entry.header().mtime()? as i64;
        if entry.header().entry_type().is_dir() {
            self.directories.push((path.to_owned(), mtime));
        } else {
            kernel::futimens(&made, &times(mtime))?;
        }
        Ok(())
    }

    fn whiteout(&mut self, parent: &OwnedFd, path: &Path, name: &[u8]) -> io::Result<()> {
        if name == OPAQUE_MARKER {
            return set_opaque(parent);
        }
        // Other `.wh..wh.` names are aufs' own bookkeeping.
        if name.starts_with(b".wh..wh.") {
            return Ok(());
        }
        let hidden = OsStr::from_bytes(&name[WHITEOUT.len()..]);
        if hidden.is_empty() || hidden == "." || hidden == ".." {
            return Err(refuse("a whiteout that names no file"));
        }
        self.hidden.insert(path.with_file_name(hidden));
        match kernel::statat(parent, hidden, AtFlags::SYMLINK_NOFOLLOW) {
            // Whiteouts count for the layers below only: what this layer itself has stays.
            Ok(own) if FileType::from_raw_mode(own.st_mode) == FileType::Directory => {
                let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
                set_opaque(&kernel::openat(parent, hidden, flags, Mode::empty())?)
            }
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => {
                Ok(kernel::mknodat(parent, hidden, FileType::CharacterDevice, Mode::empty(), kernel::makedev(0, 0))?)
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Removes what an entry replaces; a directory stays where a directory comes.
    fn make_room(&mut self, parent: &OwnedFd, path: &Path, name: &OsStr, kind: tar::EntryType) -> io::Result<()> {
        match kernel::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(e.into()),
            Ok(old) => {
                let directory = FileType::from_raw_mode(old.st_mode) == FileType::Directory;
                if directory && kind.is_dir() {
                    return Ok(());
                }
                self.cached = None;
                if directory {
                    self.directories.retain(|(known, _)| !known.starts_with(path));
                }
                remove_tree(parent.as_fd(), name)
            }
        }
    }

    /// Opens the directory an entry goes to, making what is missing.
    fn parent(&mut self, path: &Path) -> io::Result<OwnedFd> {
        if let Some((known, fd)) = &self.cached
            && known == path
        {
            return fd.try_clone();
        }
        let fd = match open_in(self.root, path) {
            Ok(fd) => fd,
            Err(e) if e.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => self.make_parents(path)?,
            Err(e) => return Err(refuse(format!("its directory cannot be opened ({e})"))),
        };
        self.cached = Some((path.to_owned(), fd.try_clone()?));
        Ok(fd)
    }

    fn make_parents(&mut self, path: &Path) -> io::Result<OwnedFd> {
        let mut at = self.root.try_clone_to_owned()?;
        let mut walked = PathBuf::new();
        for part in path.components() {
            walked.push(part);
            at = match open_in(self.root, &walked) {
                Ok(next) => next,
                Err(_) => {
                    let name = part.as_os_str();
                    if let Ok(old) = kernel::statat(&at, name, AtFlags::SYMLINK_NOFOLLOW) {
                        if !is_whiteout(&old) {
                            return Err(refuse(format!("its directory {walked:?} is a dangling link or no directory")));
                        }
                        kernel::unlinkat(&at, name, AtFlags::empty())?;
                    }
                    kernel::mkdirat(&at, name, Mode::from_raw_mode(0o755))?;
                    let made = open_in(self.root, &walked)?;
                    self.inherit(&made, &walked)?;
                    made
                }
            };
        }
        Ok(at)
    }

    /// Gives a directory this layer does not name the attributes it has in the layers below.
    fn inherit(&self, made: &OwnedFd, path: &Path) -> io::Result<()> {
        if self.hidden.contains(path) {
            return set_opaque(made);
        }
        for parent in self.parents {
            let Ok(lower) = open_in(parent.as_fd(), path) else { continue };
            let found = kernel::fstat(&lower)?;
            kernel::fchown(made, Some(Uid::from_raw(found.st_uid)), Some(Gid::from_raw(found.st_gid)))?;
            kernel::fchmod(made, Mode::from_raw_mode(found.st_mode & 0o7777))?;
            break;
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        for (path, mtime) in std::mem::take(&mut self.directories).into_iter().rev() {
            kernel::futimens(&open_in(self.root, &path)?, &times(mtime))?;
        }
        Ok(())
    }
}

/// A path of the archive as one relative to the root; `..` is refused.
fn inside(path: &Path) -> io::Result<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir | Component::RootDir => {}
            _ => return Err(refuse("its path contains \"..\"")),
        }
    }
    Ok(clean)
}

fn open_in(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(kernel::openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)?)
}

/// Type and number of a device node or pipe.
fn device(header: &tar::Header) -> io::Result<(FileType, u64)> {
    let kind = match header.entry_type() {
        tar::EntryType::Fifo => return Ok((FileType::Fifo, 0)),
        tar::EntryType::Block => FileType::BlockDevice,
        _ => FileType::CharacterDevice,
    };
    let (major, minor) = (header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0));
    if kind == FileType::CharacterDevice && (major, minor) == (0, 0) {
        return Err(refuse("a character device 0:0, which overlayfs takes for a deletion"));
    }
    Ok((kind, kernel::makedev(major, minor)))
}

fn owner(header: &tar::Header) -> io::Result<(Uid, Gid)> {
    let id = |id: u64| {
        u32::try_from(id)
            .ok()
            .filter(|id| *id != u32::MAX)
            .ok_or_else(|| refuse(format!("its owner {id} is no user id")))
    };
    Ok((Uid::from_raw(id(header.uid()?)?), Gid::from_raw(id(header.gid()?)?)))
}

fn times(mtime: i64) -> Timestamps {
    let at = rustix::fs::Timespec { tv_sec: mtime, tv_nsec: 0 };
    Timestamps { last_access: at, last_modification: at }
}

fn xattrs<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        let Some(key) = extension.key().ok().and_then(|key| key.strip_prefix(XATTR)) else { continue };
        if key.starts_with("trusted.overlay.") || key.starts_with("user.overlay.") {
            return Err(refuse(format!("it sets {key}, an attribute of overlayfs itself")));
        }
        found.push((key.to_owned(), extension.value_bytes().to_vec()));
    }
    Ok(found)
}

/// Sets an attribute; those the file system or kernel does not know are left out, as in other runtimes.
fn set_xattr(key: &str, set: impl FnOnce() -> rustix::io::Result<()>) -> io::Result<()> {
    match set() {
        Err(Errno::OPNOTSUPP | Errno::PERM) if !key.starts_with("security.capability") => Ok(()),
        other => Ok(other?),
    }
}

fn set_opaque(directory: &OwnedFd) -> io::Result<()> {
    Ok(kernel::fsetxattr(directory, OPAQUE, b"y", XattrFlags::empty())?)
}

fn is_whiteout(stat: &kernel::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Removes a file or a tree below a directory handle without following links.
pub(crate) fn remove_tree(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match kernel::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(e) => return Err(e.into()),
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    let directory = kernel::openat(parent, name, flags, Mode::empty())?;
    for entry in kernel::Dir::read_from(&directory)? {
        let entry = entry?;
        let child = OsStr::from_bytes(entry.file_name().to_bytes());
        if child != "." && child != ".." {
            remove_tree(directory.as_fd(), child)?;
        }
    }
    Ok(kernel::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

fn refuse(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

fn named(path: &[u8], error: io::Error) -> io::Error {
    let path = String::from_utf8_lossy(path);
    let shown: String = path.chars().take(200).collect();
    if error.kind() == io::ErrorKind::InvalidData {
        return refuse(format!("entry {shown:?}: {error}"));
    }
    io::Error::new(error.kind(), Named { shown, error })
}

/// An entry's name before the failure of the kernel's, which stays the cause.
#[derive(Debug)]
struct Named {
    shown: String,
    error: io::Error,
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "entry {:?}", self.shown)
    }
}

impl std::error::Error for Named {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
