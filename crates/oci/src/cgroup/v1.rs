//! The v1 driver: the same path in every mounted hierarchy.

use super::{
    CgroupMount, Counters, DeviceRule, Driver, Hierarchy, Join, MemoryWatch, Resources, cpu, cpuset, devices, hugetlb,
    memory, pids, write,
};
use crate::error::{Context, Error, Result};
use rustix::fs::{Mode, OFlags};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

pub(super) struct V1 {
    hierarchies: Vec<Hierarchy>,
    root: PathBuf,
}

impl V1 {
    pub(super) fn new(hierarchies: Vec<Hierarchy>, root: &Path) -> Self {
        Self { hierarchies, root: root.to_path_buf() }
    }

    fn dir(&self, controller: &str, path: &Path) -> Option<PathBuf> {
        let found = self.hierarchies.iter().find(|h| h.controllers.iter().any(|c| c == controller))?;
        Some(found.point.join(&self.root).join(path))
    }

    fn with(&self, controller: &str, path: &Path, apply: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        self.dir(controller, path).map_or(Ok(()), |dir| apply(&dir))
    }

    fn unified(&self, path: &Path) -> Option<PathBuf> {
        self.hierarchies.iter().find(|h| h.unified).map(|h| h.point.join(&self.root).join(path))
    }
}

impl Hierarchy {
    /// Makes a cgroup. Nearly always all on the way to it is there already.
    fn make(&self, path: &Path) -> Result<()> {
        let whole = self.point.join(path);
        if present(std::fs::create_dir(&whole)).is_ok() && !(self.is_cpuset() && cpuset::is_below_empty(&whole)) {
            return self.inherit(&whole);
        }
        let mut dir = self.point.clone();
        path.components().try_for_each(|part| {
            dir.push(part);
            present(std::fs::create_dir(&dir)).context(|| format!("mkdir {}", dir.display()))?;
            self.inherit(&dir)
        })
    }

    fn inherit(&self, dir: &Path) -> Result<()> {
        if self.is_cpuset() { cpuset::inherit_v1(dir) } else { Ok(()) }
    }

    fn is_cpuset(&self) -> bool {
        self.controllers.iter().any(|c| c == "cpuset")
    }
}

fn present(made: std::io::Result<()>) -> std::io::Result<()> {
    made.or_else(|error| if error.kind() == ErrorKind::AlreadyExists { Ok(()) } else { Err(error) })
}

impl Driver for V1 {
    fn version(&self) -> u8 {
        1
    }

    fn make(&self, path: &Path) -> Result<()> {
        let path = self.root.join(path);
        self.hierarchies.iter().try_for_each(|hierarchy| hierarchy.make(&path))
    }

    fn update(&self, path: &Path, r: &Resources) -> Result<()> {
        self.with("cpu", path, |dir| cpu::v1(dir, r))?;
        self.with("cpuset", path, |dir| cpuset::apply(dir, r))?;
        self.with("memory", path, |dir| memory::v1(dir, r))?;
        self.with("pids", path, |dir| pids::apply(dir, r))?;
        self.with("hugetlb", path, |dir| hugetlb::v1(dir, r))
    }

    fn restrict_devices(&self, path: &Path, rules: &[DeviceRule]) -> Result<()> {
        self.with("devices", path, |dir| devices::v1(dir, rules))
    }

    fn join(&self, path: &Path) -> Result<Join> {
        let mut join = Join::default();
        for hierarchy in &self.hierarchies {
            let dir = hierarchy.point.join(&self.root).join(path);
            let (file, flags) = if hierarchy.unified {
                (dir, OFlags::PATH | OFlags::DIRECTORY)
            } else {
                (dir.join("tasks"), OFlags::WRONLY)
            };
            let fd = rustix::fs::open(&file, flags | OFlags::CLOEXEC, Mode::empty())
                .context(|| format!("open {}", file.display()))?;
            if hierarchy.unified {
                join.directory = Some(fd);
            } else {
                join.tasks.push(fd);
            }
        }
        Ok(join)
    }

    fn mounts(&self) -> Vec<CgroupMount> {
        let legacy = self.hierarchies.iter().filter(|h| !h.unified).map(|h| {
            let flags = h.controllers.iter().map(|c| (c.clone(), None));
            let named = h.name.iter().flat_map(|n| [("none".to_string(), None), ("name".to_string(), Some(n.clone()))]);
            let options: Vec<_> = if h.controllers.is_empty() { named.collect() } else { flags.collect() };
            let name = h.name.clone().unwrap_or_else(|| h.controllers.join(","));
            CgroupMount { name, fstype: "cgroup", options }
        });
        legacy.collect()
    }

    fn members(&self, path: &Path) -> PathBuf {
        self.dir("pids", path).or_else(|| self.dir("memory", path)).unwrap_or_default()
    }

    fn kill(&self, path: &Path) -> Option<()> {
        write(&self.unified(path)?, "cgroup.kill", 1).ok()
    }

    fn oom_kills(&self, path: &Path) -> u64 {
        self.dir("memory", path).and_then(|dir| super::read_key(&dir, "memory.oom_control", "oom_kill")).unwrap_or(0)
    }

    fn counters(&self, path: &Path) -> Result<Counters> {
        let mut counters = Counters::default();
        let memory = self.dir("memory", path).unwrap_or_default();
        std::fs::metadata(&memory).context(|| memory.display().to_string())?;
        memory::v1_counters(&memory, &mut counters);
        self.with("cpuacct", path, |dir| Ok(cpu::v1_counters(dir, &mut counters)))?;
        self.with("pids", path, |dir| Ok(pids::counters(dir, &mut counters)))?;
        Ok(counters)
    }

    fn watch_memory(&self, path: &Path, usage: u64) -> Result<MemoryWatch> {
        let dir =
            self.dir("memory", path).ok_or_else(|| Error::Invalid("the memory controller is not mounted".into()))?;
        memory::v1_watch(&dir, usage)
    }

    fn directories(&self, path: &Path) -> Vec<PathBuf> {
        self.hierarchies.iter().map(|h| h.point.join(&self.root).join(path)).collect()
    }
}
