//! A directory in `tmp/` that is gone when its owner is, however that ends.

use crate::error::{Error, Result};
use crate::store::Store;
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs;
use std::path::{Path, PathBuf};

/// A locked directory; what a killed process leaves is removed by the next [`Store::open`].
pub(crate) struct Temporary {
    pub path: PathBuf,
    pub handle: OwnedFd,
}

impl Temporary {
    pub fn new(store: &Store) -> Result<Temporary> {
        // Under the lock, or another process could take it for a leftover before it is locked.
        let _lock = store.lock("lock", FlockOperation::LockExclusive)?;
        let path = store.temporary();
        let make = || -> std::io::Result<OwnedFd> {
            fs::create_dir(&path)?;
            let handle = open_dir(&path)?;
            rustix::fs::flock(&handle, FlockOperation::LockExclusive)?;
            Ok(handle)
        };
        let handle = make().map_err(Error::io(format!("make {path:?}")))?;
        Ok(Temporary { path, handle })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = cri::remove_tree(&self.path) {
            tracing::warn!(path = ?self.path, %error, "cannot remove a working directory");
        }
    }
}

/// Opens a directory itself, not what a symbolic link in its place points to.
pub(crate) fn open_dir(path: &Path) -> std::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}
