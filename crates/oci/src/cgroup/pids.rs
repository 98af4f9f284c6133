//! Number of processes.

use super::{Counters, Resources, read_number, write};
use crate::error::Result;
use std::path::Path;

pub(super) fn apply(dir: &Path, r: &Resources) -> Result<()> {
    match r.pids {
        0 => Ok(()),
        -1 => write(dir, "pids.max", "max"),
        limit => write(dir, "pids.max", limit),
    }
}

pub(super) fn counters(dir: &Path, counters: &mut Counters) {
    counters.pids = read_number(dir, "pids.current").unwrap_or(0);
}
