//! Counters of containers and cgroups.

use crate::{Runtime, internal, records};
use cri::{Error, InterfaceStats, NamespaceMode, Pressure, Pressures, Result, Stats};
use oci::cgroup::{Cgroup, Counters};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

impl Runtime {
    pub(crate) async fn stats_of_container(&self, id: &str) -> Result<Stats> {
        let container = self.state.container(id)?;
        let sandbox = self.state.sandbox(&container.sandbox_id())?;
        let cgroup = self.container_cgroup(&sandbox, id)?;
        read(cgroup, Some(self.config.root_dir.join(id).join("upper"))).await
    }

    /// Counters of a sandbox's interfaces: those that its shim, which lives in its network namespace, sees.
    pub(crate) async fn stats_of_network(&self, id: &str) -> Result<Vec<InterfaceStats>> {
        let sandbox = self.state.sandbox(id)?;
        if sandbox.record.config.namespaces.network == NamespaceMode::Node {
            return Ok(Vec::new());
        }
        let connection = crate::client::Connection::open(&sandbox.dir).await.map_err(internal)?;
        let Some(pid) = connection.peer() else { return Ok(Vec::new()) };
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).map_err(internal)?;
        Ok(text.lines().filter_map(interface).collect())
    }

    /// Has the kernel tell when memory runs low in a cgroup.
    pub(crate) fn watch_cgroup(&self, path: &str, usage: u64) -> Result<mpsc::Receiver<()>> {
        let watch = self.cgroups.get(path).map_err(internal)?.watch_memory(usage).map_err(internal)?;
        let interest = if watch.priority { Interest::PRIORITY } else { Interest::READABLE };
        #[expect(deprecated, reason = "an OwnedFd stays open and the same as long as the AsyncFd that owns it")]
        let fd = AsyncFd::with_interest(watch.fd, interest).map_err(internal)?;
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                let ready = tokio::select! {
                    ready = fd.ready(interest) => ready,
                    () = sender.closed() => return,
                };
                let Ok(mut ready) = ready else { return };
                // An eventfd counts until it is read; a pressure file forgets by itself.
                let _ = rustix::io::read(fd.get_ref(), &mut [0; 8]);
                ready.clear_ready();
                if sender.try_send(()).is_err() && sender.is_closed() {
                    return;
                }
            }
        });
        Ok(receiver)
    }

    pub(crate) async fn stats_of_cgroup(&self, path: &str) -> Result<Stats> {
        read(self.cgroups.get(path).map_err(internal)?, None).await
    }
}

/// A line of `/proc/<pid>/net/dev`.
fn interface(line: &str) -> Option<InterfaceStats> {
    let (name, rest) = line.split_once(':')?;
    let numbers: Vec<u64> = rest.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    let at = |i: usize| numbers.get(i).copied();
    Some(InterfaceStats {
        name: name.trim().into(),
        rx_bytes: at(0)?,
        rx_errors: at(2)?,
        tx_bytes: at(8)?,
        tx_errors: at(10)?,
    })
}

pub(crate) async fn read(cgroup: Cgroup, layer: Option<PathBuf>) -> Result<Stats> {
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
        swap_usage: counters.swap,
        pressure: pressures(&counters.pressure),
    }
}

fn pressures(texts: &[Option<String>; 3]) -> Pressures {
    let [cpu, memory, io] = texts.each_ref().map(|text| text.as_deref().and_then(Pressure::parse));
    Pressures { cpu, memory, io }
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
