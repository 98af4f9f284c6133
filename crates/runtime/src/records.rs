//! Records on disk: written whole or not at all, in directories only root may enter.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Replaces a record. It survives a crash of ours, not of the machine: what it describes does not either.
pub fn write<T: Serialize>(path: &Path, record: &T) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, serde_json::to_vec(record)?)?;
    std::fs::rename(&temporary, path)
}

/// Reads a record.
pub fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

/// Makes a private directory with its parents.
pub fn make_dir(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Removes a directory tree; a missing one is fine.
pub fn remove_dir(path: &Path) -> io::Result<()> {
    cri::remove_tree(path)
}

/// Unix time in nanoseconds.
pub fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64)
}
