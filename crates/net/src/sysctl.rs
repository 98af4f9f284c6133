//! Sysctls of the network namespace of the thread that writes them.

use crate::error::{Error, Result};
use std::path::PathBuf;

/// Sets `net.ipv4.ip_forward` and the like, given as `ipv4/ip_forward` (names of links may contain dots).
pub fn set(key: &str, value: &str) -> Result<()> {
    let path = PathBuf::from("/proc/sys/net").join(key);
    let now = std::fs::read_to_string(&path).map_err(Error::io(format!("read {path:?}")))?;
    // Where /proc/sys is read-only, a value that is right already is no failure.
    if now.trim() == value {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(Error::io(format!("write {value:?} to {path:?}")))
}
