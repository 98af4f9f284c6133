//! The v2 driver: one tree, controllers enabled on the way down.

use super::{
    CgroupMount, Counters, DeviceRule, Driver, Join, MemoryWatch, Resources, cpu, cpuset, devices, hugetlb, memory, pids, read_key,
    write,
};
use crate::error::{Context, Error, Result};
use rustix::fs::{Mode, OFlags};
use std::path::{Path, PathBuf};

pub(super) struct V2 {
    point: PathBuf,
    /// Below the mount point.
    root: PathBuf,
}

impl V2 {
    pub(super) fn new(point: &Path, root: &Path) -> Self {
        Self { point: point.into(), root: point.join(root) }
    }
}

impl Driver for V2 {
    fn version(&self) -> u8 {
        2
    }

    fn make(&self, path: &Path) -> Result<()> {
        let mut dir = self.point.clone();
        let target = self.root.join(path);
        // A parent that hands a controller down must have it itself: from the top, then.
        for part in target.strip_prefix(&self.point).unwrap_or(path).components() {
            enable_controllers(&dir)?;
            dir.push(part);
            match std::fs::create_dir(&dir) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).context(|| format!("mkdir {}", dir.display())),
            }
        }
        Ok(())
    }

    fn update(&self, path: &Path, r: &Resources) -> Result<()> {
        let dir = self.root.join(path);
        cpu::v2(&dir, r)?;
        cpuset::apply(&dir, r)?;
        memory::v2(&dir, r)?;
        pids::apply(&dir, r)?;
        hugetlb::v2(&dir, r)?;
        r.unified.iter().try_for_each(|(file, value)| {
            if file.contains('/') || !file.contains('.') {
                return Err(Error::Invalid(format!("invalid cgroup file {file:?}")));
            }
            write(&dir, file, value)
        })
    }

    fn restrict_devices(&self, path: &Path, rules: &[DeviceRule]) -> Result<()> {
        devices::v2(&self.root.join(path), rules)
    }

    fn join(&self, path: &Path) -> Result<Join> {
        let dir = self.root.join(path);
        let fd = rustix::fs::open(&dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .context(|| format!("open {}", dir.display()))?;
        Ok(Join { tasks: Vec::new(), directory: Some(fd) })
    }

    fn mounts(&self) -> Vec<CgroupMount> {
        vec![CgroupMount { name: String::new(), fstype: "cgroup2", options: Vec::new() }]
    }

    fn members(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }

    fn kill(&self, path: &Path) -> Option<()> {
        write(&self.root.join(path), "cgroup.kill", 1).ok()
    }

    fn oom_kills(&self, path: &Path) -> u64 {
        read_key(&self.root.join(path), "memory.events", "oom_kill").unwrap_or(0)
    }

    fn counters(&self, path: &Path) -> Result<Counters> {
        let dir = self.root.join(path);
        std::fs::metadata(&dir).context(|| dir.display().to_string())?;
        let mut counters = Counters::default();
        cpu::v2_counters(&dir, &mut counters);
        memory::v2_counters(&dir, &mut counters);
        pids::counters(&dir, &mut counters);
        counters.pressure = ["cpu", "memory", "io"]
            .map(|resource| std::fs::read_to_string(dir.join(format!("{resource}.pressure"))).ok());
        Ok(counters)
    }

    fn watch_memory(&self, path: &Path, _usage: u64) -> Result<MemoryWatch> {
        memory::v2_watch(&self.root.join(path))
    }

    fn directories(&self, path: &Path) -> Vec<PathBuf> {
        vec![self.root.join(path)]
    }
}

/// Hands every controller down. One that cannot be (threaded, or in use by v1) is left out: a limit
/// that needs it then fails by its own name.
fn enable_controllers(dir: &Path) -> Result<()> {
    let read =
        |file: &str| std::fs::read_to_string(dir.join(file)).context(|| format!("read {}", dir.join(file).display()));
    let (available, enabled) = (read("cgroup.controllers")?, read("cgroup.subtree_control")?);
    for controller in available.split_whitespace() {
        if !enabled.split_whitespace().any(|e| e == controller) {
            if let Err(error) = write(dir, "cgroup.subtree_control", format_args!("+{controller}")) {
                tracing::warn!(%error, "cgroup controller not handed down");
            }
        }
    }
    Ok(())
}
