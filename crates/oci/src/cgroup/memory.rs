//! Memory and swap.

use super::{Counters, MemoryWatch, Resources, read_key, read_number, write, write_if_present};
use crate::error::{Context, Result};
use rustix::event::EventfdFlags;
use rustix::fs::{Mode, OFlags};
use std::path::Path;

pub(super) fn v1(dir: &Path, r: &Resources) -> Result<()> {
    const MEMORY: &str = "memory.limit_in_bytes";
    const SWAP: &str = "memory.memsw.limit_in_bytes";
    // memsw may never be below memory: raising needs memsw first, lowering memory first.
    let raises = r.memory_limit > 0 && read_number(dir, SWAP).is_some_and(|now| r.memory_limit as u64 > now);
    if raises && r.memory_swap != 0 {
        write_if_present(dir, SWAP, r.memory_swap)?;
    }
    if r.memory_limit != 0 {
        write(dir, MEMORY, r.memory_limit)?;
    }
    if r.memory_swap != 0 && !raises {
        write_if_present(dir, SWAP, r.memory_swap)?;
    }
    Ok(())
}

pub(super) fn v2(dir: &Path, r: &Resources) -> Result<()> {
    if let Some(swap) = swap_v2(r) {
        write_if_present(dir, "memory.swap.max", limit(swap))?;
    }
    if r.memory_limit != 0 {
        write(dir, "memory.max", limit(r.memory_limit))?;
    }
    Ok(())
}

/// v2 counts swap alone. A total equal to the memory limit means none at all, not "unset".
fn swap_v2(r: &Resources) -> Option<i64> {
    match (r.memory_swap, r.memory_limit) {
        (0, _) => None,
        (-1, _) => Some(-1),
        (total, memory) => Some((total - memory.max(0)).max(0)),
    }
}

fn limit(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

pub(super) fn v1_counters(dir: &Path, counters: &mut Counters) {
    let stat = |key| read_key(dir, "memory.stat", key).unwrap_or(0);
    counters.memory = read_number(dir, "memory.usage_in_bytes").unwrap_or(0);
    counters.inactive_file = stat("total_inactive_file");
    counters.anon = stat("total_rss");
    counters.swap = stat("total_swap");
    counters.faults = stat("total_pgfault");
    counters.major_faults = stat("total_pgmajfault");
}

pub(super) fn v2_counters(dir: &Path, counters: &mut Counters) {
    let stat = |key| read_key(dir, "memory.stat", key).unwrap_or(0);
    counters.inactive_file = stat("inactive_file");
    counters.anon = stat("anon");
    counters.swap = read_number(dir, "memory.swap.current").unwrap_or(0);
    counters.faults = stat("pgfault");
    counters.major_faults = stat("pgmajfault");
    // The root cgroup has no memory.current.
    counters.memory =
        read_number(dir, "memory.current").unwrap_or_else(|| counters.anon + stat("file") + stat("kernel"));
}

/// A threshold on the usage of a v1 cgroup (kernel: Documentation/admin-guide/cgroup-v1/memory.rst).
pub(super) fn v1_watch(dir: &Path, usage: u64) -> Result<MemoryWatch> {
    use std::os::fd::AsRawFd;
    let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context(|| "eventfd")?;
    let counter = dir.join("memory.usage_in_bytes");
    let counter = std::fs::File::open(&counter).context(|| counter.display().to_string())?;
    let line = format!("{} {} {usage}", event.as_raw_fd(), counter.as_raw_fd());
    write(dir, "cgroup.event_control", line)?;
    Ok(MemoryWatch { fd: event, priority: false })
}

/// Pressure of a v2 cgroup: 150 ms of waiting for memory within a second (Documentation/accounting/psi.rst).
pub(super) fn v2_watch(dir: &Path) -> Result<MemoryWatch> {
    let own = dir.join("memory.pressure");
    // The real root has none of its own; there the machine's counts.
    let path = if own.exists() { own } else { "/proc/pressure/memory".into() };
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::open(&path, flags, Mode::empty()).context(|| path.display().to_string())?;
    rustix::io::write(&fd, b"some 150000 1000000\0").context(|| path.display().to_string())?;
    Ok(MemoryWatch { fd, priority: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_of_v2() {
        for (memory, total, expect) in
            [(0, 0, None), (100, 100, Some(0)), (100, 150, Some(50)), (100, -1, Some(-1)), (100, 0, None)]
        {
            let r = Resources { memory_limit: memory, memory_swap: total, ..Resources::default() };
            assert_eq!(swap_v2(&r), expect, "{memory} {total}");
        }
    }
}
