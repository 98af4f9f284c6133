//! Counters of containers and cgroups.

use crate::{Runtime, internal, records};
use cri::{Error, Result, Stats};
use oci::cgroup::{Cgroup, Counters};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

impl Runtime {
    pub(crate) async fn stats_of_container(&self, id: &str) -> Result<Stats> {
        let container = self.state.container(id)?;
        let sandbox = self.state.sandbox(&container.sandbox_id())?;
        let cgroup = self.container_cgroup(&sandbox, id)?;
        read(cgroup, Some(self.config.root_dir.join(id).join("upper"))).await
    }

    pub(crate) async fn stats_of_cgroup(&self, path: &str) -> Result<Stats> {
        read(self.cgroups.get(path).map_err(internal)?, None).await
    }
}

async fn read(cgroup: Cgroup, layer: Option<PathBuf>) -> Result<Stats> {
    let work = move || {
        let counters = cgroup.counters().map_err(|e| match e.raw_os_error() {
            Some(libc::ENOENT) => Error::NotFound(e.to_string()),
            _ => internal(e),
        })?;
        let (bytes, inodes) = layer.map_or((0, 0), |dir| usage(&dir));
        Ok(stats(&counters, bytes, inodes))
    };
    tokio::task::spawn_blocking(work).await.map_err(internal)?
}

fn stats(counters: &Counters, rootfs_bytes: u64, rootfs_inodes: u64) -> Stats {
    Stats {
        at: records::now(),
        cpu_usage_ns: counters.cpu_ns,
        memory_working_set: counters.memory.saturating_sub(counters.inactive_file),
        memory_usage: counters.memory,
        memory_rss: counters.anon,
        page_faults: counters.faults,
        major_page_faults: counters.major_faults,
        pids: counters.pids,
        rootfs_bytes,
        rootfs_inodes,
    }
}

/// Bytes and inodes below a directory. Entries that vanish meanwhile do not count.
fn usage(dir: &Path) -> (u64, u64) {
    let (mut bytes, mut inodes) = (0, 0);
    let mut pending = vec![dir.to_path_buf()];
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            bytes += meta.blocks() * 512;
            inodes += 1;
            if meta.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    (bytes, inodes)
}
