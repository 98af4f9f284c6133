//! CPU and memory node lists.

use super::{Resources, write};
use crate::error::Result;
use std::path::Path;

pub(super) fn apply(dir: &Path, r: &Resources) -> Result<()> {
    if !r.cpuset_cpus.is_empty() {
        write(dir, "cpuset.cpus", &r.cpuset_cpus)?;
    }
    if !r.cpuset_mems.is_empty() {
        write(dir, "cpuset.mems", &r.cpuset_mems)?;
    }
    Ok(())
}

/// A new v1 cpuset is empty and takes no process: it starts as its parent is. Those below it are told to do so by
/// themselves: each write of a list makes the kernel plan its scheduling domains anew.
pub(super) fn inherit_v1(dir: &Path) -> Result<()> {
    let Some(parent) = dir.parent() else { return Ok(()) };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if list(dir, file).is_empty() {
            write(dir, file, list(parent, file))?;
            write(dir, "cgroup.clone_children", 1)?;
        }
    }
    Ok(())
}

/// Whether there is nothing to inherit: whoever made the parent did not fill it.
pub(super) fn is_below_empty(dir: &Path) -> bool {
    dir.parent().is_some_and(|parent| list(parent, "cpuset.cpus").is_empty() || list(parent, "cpuset.mems").is_empty())
}

fn list(dir: &Path, file: &str) -> String {
    std::fs::read_to_string(dir.join(file)).map(|list| list.trim().to_owned()).unwrap_or_default()
}
