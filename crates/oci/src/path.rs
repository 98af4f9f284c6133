//! Paths inside a root that someone else controls.

use crate::error::{Context, Error, Result};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, readlinkat, statat};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Components and symbolic links followed at most when something is made.
const MAX_STEPS: usize = 256;

/// What [`Root::ensure`] makes when it is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Dir,
    /// An empty file.
    File,
}

/// A directory that no path below it can leave, whatever symbolic links it holds.
pub struct Root(OwnedFd);

impl Root {
    /// Takes a directory as the root.
    pub fn new(dir: OwnedFd) -> Self {
        Self(dir)
    }

    /// Opens a directory of ours as the root.
    pub fn open_dir(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(path, flags, Mode::empty()).context(|| format!("open {}", path.display()))?))
    }

    /// Opens a path below the root; never through `/proc/*/fd` and its like.
    pub fn open(&self, path: &Path, flags: OFlags) -> std::result::Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        rustix::io::retry_on_intr(|| {
            // EAGAIN: a rename raced with the walk; the kernel asks to try again.
            (0..16)
                .map(|_| openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve))
                .find(|opened| !matches!(opened, Err(Errno::AGAIN)))
                .unwrap_or(Err(Errno::AGAIN))
        })
    }

    /// Opens a handle on a path, making it and its parents (mode 0755, files 0644) when missing.
    pub fn ensure(&self, path: &Path, kind: Kind) -> Result<OwnedFd> {
        self.ensure_within(&Path::new("/").join(path), kind, MAX_STEPS)
    }

    fn ensure_within(&self, path: &Path, kind: Kind, steps: usize) -> Result<OwnedFd> {
        let shown = || path.display().to_string();
        match self.open(path, OFlags::PATH) {
            Err(Errno::NOENT) => {}
            opened => return opened.context(shown),
        }
        let (Some(Component::Normal(name)), Some(parent)) = (path.components().next_back(), path.parent()) else {
            return Err(Error::Invalid(format!("{}: not a path that can be made", path.display())));
        };
        let steps = steps.checked_sub(1).ok_or_else(|| Error::Invalid(format!("{}: path too deep", path.display())))?;
        let dir = self.ensure_within(parent, Kind::Dir, steps)?;
        let made = match kind {
            Kind::Dir => mkdirat(&dir, name, Mode::from_raw_mode(0o755)),
            Kind::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                openat(&dir, name, flags, Mode::from_raw_mode(0o644)).map(drop)
            }
        };
        match made {
            Ok(()) => {
                openat(&dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).context(shown)
            }
            // Made by another meanwhile, or a link to nothing (`/var/run -> /run` without /run): make what it means.
            Err(Errno::EXIST) => match self.open(path, OFlags::PATH) {
                Err(Errno::NOENT) => {
                    let link = readlinkat(&dir, name, Vec::new()).context(shown)?;
                    let link = PathBuf::from(std::ffi::OsStr::from_bytes(link.to_bytes()));
                    self.ensure_within(&parent.join(link), kind, steps)
                }
                opened => opened.context(shown),
            },
            Err(error) => Err(error).context(shown),
        }
    }

    /// Opens a directory that must be one itself, not a link to one, making it when missing.
    pub fn ensure_own_dir(&self, name: &str) -> Result<OwnedFd> {
        match mkdirat(&self.0, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST | Errno::ROFS) => {}
            Err(error) => return Err(error).context(|| format!("mkdir /{name}")),
        }
        let stat = statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW).context(|| format!("stat /{name}"))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Err(Error::Invalid(format!("/{name} of the image is not a directory")));
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(&self.0, name, flags, Mode::empty()).context(|| format!("open /{name}"))
    }

    /// Reads a small file; `None` when it is missing, an error when it is larger than `limit`.
    pub fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        use std::io::Read;
        let fd = match self.open(Path::new(path), OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(error).context(|| format!("open {path}")),
        };
        let stat = rustix::fs::fstat(&fd).context(|| format!("stat {path}"))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::Invalid(format!("{path} is not a regular file")));
        }
        let mut bytes = Vec::new();
        std::fs::File::from(fd).take(limit + 1).read_to_end(&mut bytes).context(|| format!("read {path}"))?;
        if bytes.len() as u64 > limit {
            return Err(Error::Invalid(format!("{path} is larger than {limit} bytes")));
        }
        Ok(Some(bytes))
    }

    /// The directory itself.
    pub fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("oci-path-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("root")).unwrap();
        dir
    }

    #[test]
    fn links_never_lead_out() {
        let dir = scratch("links");
        let root = dir.join("root");
        symlink("/", root.join("abs")).unwrap();
        symlink("../../../../..", root.join("up")).unwrap();
        symlink("/run", root.join("dangling")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let inside = Root::open_dir(&root).unwrap();
        for path in ["abs/x/y", "up/x/z", "dangling/secrets", "../../w"] {
            inside.ensure(Path::new(path), Kind::Dir).unwrap();
        }
        for made in ["x/y", "x/z", "run/secrets", "w"] {
            assert!(root.join(made).is_dir(), "{made}");
        }
        inside.ensure(Path::new("/dangling/file"), Kind::File).unwrap();
        assert!(root.join("run/file").is_file());
        assert!(inside.ensure(Path::new("/loop/x"), Kind::Dir).is_err());
        assert!(inside.ensure_own_dir("abs").is_err());
        assert!(!dir.join("w").exists());
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn reads_are_bounded() {
        let dir = scratch("read");
        std::fs::write(dir.join("root/f"), b"12345").unwrap();
        let inside = Root::open_dir(&dir.join("root")).unwrap();
        assert_eq!(inside.read("/f", 5).unwrap().unwrap(), b"12345");
        assert!(inside.read("/f", 4).is_err());
        assert!(inside.read("/missing", 4).unwrap().is_none());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
