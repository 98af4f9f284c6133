//! Cgroups, v1 and v2, behind one trait; a file per controller holds what the two call it.
//!
//! The driver follows what is mounted in this process's view, so that it works in a node's cgroup
//! namespace as well. All paths are relative to the node's root.

mod cpu;
mod cpuset;
mod devices;
mod hugetlb;
mod memory;
mod pids;
mod v1;
mod v2;

use crate::error::{Context, Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use devices::{DeviceRule, default_rules};

/// Limits of a cgroup; zero or empty leaves a value as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// CFS period, µs.
    pub cpu_period: i64,
    /// CFS quota, µs; -1: none.
    pub cpu_quota: i64,
    /// Weight in v1's scale.
    pub cpu_shares: i64,
    /// Bytes; -1: none.
    pub memory_limit: i64,
    /// Bytes of memory and swap; -1: none.
    pub memory_swap: i64,
    /// CPU list.
    pub cpuset_cpus: String,
    /// Memory node list.
    pub cpuset_mems: String,
    /// Processes; -1: no limit.
    pub pids: i64,
    /// `(page size, bytes)`
    pub hugepages: Vec<(String, u64)>,
    /// v2 files and values.
    pub unified: BTreeMap<String, String>,
}

/// Counters of a cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// CPU time, ns.
    pub cpu_ns: u64,
    /// All memory charged, bytes.
    pub memory: u64,
    /// File cache the kernel would reclaim first, bytes.
    pub inactive_file: u64,
    /// Anonymous memory, bytes.
    pub anon: u64,
    /// Page faults.
    pub faults: u64,
    /// Major page faults.
    pub major_faults: u64,
    /// Processes.
    pub pids: u64,
    /// Swap in use, bytes.
    pub swap: u64,
    /// Texts of `cpu.pressure`, `memory.pressure` and `io.pressure`, where there are such (v2).
    pub pressure: [Option<String>; 3],
}

/// A descriptor that becomes ready when memory runs low.
pub struct MemoryWatch {
    /// The descriptor; what it is about ends when it is closed.
    pub fd: OwnedFd,
    /// Ready means POLLPRI, not POLLIN.
    pub priority: bool,
}

/// A hierarchy that a container is shown below `/sys/fs/cgroup`.
pub struct CgroupMount {
    /// Directory name; empty: v2, at the top.
    pub name: String,
    /// File system type.
    pub fstype: &'static str,
    /// Mount options.
    pub options: Vec<(String, Option<String>)>,
}

/// The way of a new process into its cgroup.
#[derive(Default)]
pub struct Join {
    /// v1 `tasks` files: the child moves itself, which spares the global lock that moving another takes.
    tasks: Vec<OwnedFd>,
    /// v2 directory for `CLONE_INTO_CGROUP`.
    directory: Option<OwnedFd>,
}

impl Join {
    pub(crate) fn enter(&self) -> Result<()> {
        self.tasks.iter().try_for_each(|tasks| rustix::io::write(tasks, b"0").map(drop)).context(|| "join cgroup")
    }

    pub(crate) fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        self.directory.as_ref().map(AsFd::as_fd)
    }

    pub(crate) fn raw_fds(&self) -> impl Iterator<Item = i32> {
        self.tasks.iter().map(AsRawFd::as_raw_fd)
    }
}

/// What the two versions do differently.
trait Driver: Send + Sync {
    fn version(&self) -> u8;
    fn make(&self, path: &Path) -> Result<()>;
    fn update(&self, path: &Path, resources: &Resources) -> Result<()>;
    fn restrict_devices(&self, path: &Path, rules: &[DeviceRule]) -> Result<()>;
    fn join(&self, path: &Path) -> Result<Join>;
    fn mounts(&self) -> Vec<CgroupMount>;
    /// Directory whose `cgroup.procs` names the members.
    fn members(&self, path: &Path) -> PathBuf;
    /// Kills all members at once, if the kernel can.
    fn kill(&self, path: &Path) -> Option<()>;
    fn oom_kills(&self, path: &Path) -> u64;
    fn counters(&self, path: &Path) -> Result<Counters>;
    fn watch_memory(&self, path: &Path, usage: u64) -> Result<MemoryWatch>;
    /// Directories of the cgroup in all hierarchies.
    fn directories(&self, path: &Path) -> Vec<PathBuf>;
}

/// The mounted hierarchies. To find them costs a look at every mount of the machine.
#[derive(Clone)]
pub struct Hierarchies(Vec<Hierarchy>);

impl Hierarchies {
    /// Reads them out of mountinfo.
    pub fn find() -> Result<Self> {
        let info = std::fs::read_to_string("/proc/self/mountinfo").context(|| "read mountinfo")?;
        Ok(Self(hierarchies(&info)))
    }

    /// The cgroups below a node's root, which is relative to them.
    pub fn below(&self, root: &str) -> Result<Cgroups> {
        let root = relative(root)?;
        let driver: Arc<dyn Driver> = if self.0.iter().any(|h| h.controllers.iter().any(|c| c == "memory")) {
            Arc::new(v1::V1::new(self.0.clone(), &root))
        } else if let Some(unified) = self.0.iter().find(|h| h.unified) {
            Arc::new(v2::V2::new(&unified.point, &root))
        } else {
            return Err(Error::Invalid("no cgroup hierarchy is mounted".into()));
        };
        Ok(Cgroups { driver })
    }
}

/// The cgroups below a node's root.
#[derive(Clone)]
pub struct Cgroups {
    driver: Arc<dyn Driver>,
}

impl Cgroups {
    /// Finds the mounted hierarchies; `root` is the node's cgroup relative to them.
    pub fn detect(root: &str) -> Result<Self> {
        Hierarchies::find()?.below(root)
    }

    /// 1 or 2.
    pub fn version(&self) -> u8 {
        self.driver.version()
    }

    /// Names a cgroup without touching it.
    pub fn get(&self, path: &str) -> Result<Cgroup> {
        Ok(Cgroup { driver: self.driver.clone(), path: relative(path)? })
    }

    /// Makes a cgroup with all on the way to it, and sets its limits. When that fails, what was made goes.
    pub fn make(&self, path: &str, resources: &Resources) -> Result<Cgroup> {
        let cgroup = self.get(path)?;
        let existed = cgroup.exists();
        let made = self.driver.make(&cgroup.path).and_then(|()| self.driver.update(&cgroup.path, resources));
        if made.is_err() && !existed {
            // The first error is the one that counts.
            let _ = cgroup.remove();
        }
        made.map(|()| cgroup)
    }
}

/// One cgroup.
#[derive(Clone)]
pub struct Cgroup {
    driver: Arc<dyn Driver>,
    path: PathBuf,
}

impl Cgroup {
    /// Whether it is there, in any hierarchy.
    pub fn exists(&self) -> bool {
        self.driver.directories(&self.path).iter().any(|dir| dir.exists())
    }

    /// Changes limits.
    pub fn update(&self, resources: &Resources) -> Result<()> {
        self.driver.update(&self.path, resources)
    }

    /// Allows only these devices.
    pub fn restrict_devices(&self, rules: &[DeviceRule]) -> Result<()> {
        self.driver.restrict_devices(&self.path, rules)
    }

    /// Opens the way in for a new process.
    pub fn join(&self) -> Result<Join> {
        self.driver.join(&self.path)
    }

    /// Hierarchies to show in a container.
    pub fn mounts(&self) -> Vec<CgroupMount> {
        self.driver.mounts()
    }

    /// Members, not counting cgroups below.
    pub fn pids(&self) -> Vec<i32> {
        let file = self.driver.members(&self.path).join("cgroup.procs");
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Kills all members, also of cgroups below.
    pub fn kill(&self) {
        if self.driver.kill(&self.path).is_none() {
            kill_tree(&self.driver.members(&self.path));
        }
    }

    /// How many processes the kernel killed here for want of memory.
    pub fn oom_kills(&self) -> u64 {
        self.driver.oom_kills(&self.path)
    }

    /// Counters.
    pub fn counters(&self) -> Result<Counters> {
        self.driver.counters(&self.path)
    }

    /// Has the kernel tell when memory runs low here: past `usage` bytes (v1), or by its pressure (v2).
    pub fn watch_memory(&self, usage: u64) -> Result<MemoryWatch> {
        self.driver.watch_memory(&self.path, usage)
    }

    /// Removes it and all below, killing members; idempotent.
    pub fn remove(&self) -> Result<()> {
        if self.path.as_os_str().is_empty() {
            return Err(Error::Invalid("the node's root cgroup cannot be removed".into()));
        }
        let mut failed = Ok(());
        for dir in self.driver.directories(&self.path) {
            if let Err(error) = self.remove_directory(&dir) {
                failed = Err(error);
            }
        }
        failed
    }

    /// A killed member leaves when it has ended, of which v1 sends no event: hence the short retries.
    fn remove_directory(&self, dir: &Path) -> Result<()> {
        let mut wait = std::time::Duration::from_micros(200);
        loop {
            match remove_tree(dir) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && wait.as_secs() == 0 => {
                    self.kill();
                    std::thread::sleep(wait);
                    wait *= 2;
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                done => return done.context(|| format!("remove {}", dir.display())),
            }
        }
    }
}

fn remove_tree(dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir(dir) {
        // EBUSY and ENOTEMPTY: perhaps only for cgroups below.
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            for entry in std::fs::read_dir(dir)?.flatten() {
                if entry.file_type().is_ok_and(|t| t.is_dir()) {
                    remove_tree(&entry.path())?;
                }
            }
            std::fs::remove_dir(dir)
        }
        done => done,
    }
}

/// Kills members until none is left that was not killed: a fork may be faster than one round.
fn kill_tree(dir: &Path) {
    let mut killed = std::collections::HashSet::new();
    loop {
        let mut pids = Vec::new();
        collect_pids(dir, &mut pids);
        pids.retain(|pid| killed.insert(*pid));
        if pids.is_empty() {
            return;
        }
        for pid in pids {
            // Gone already is as good.
            let _ = crate::sys::kill(pid, libc::SIGKILL);
        }
    }
}

fn collect_pids(dir: &Path, pids: &mut Vec<i32>) {
    let text = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            collect_pids(&entry.path(), pids);
        }
    }
}

/// A path below a root, without `..`.
fn relative(path: &str) -> Result<PathBuf> {
    let path = Path::new(path.trim_matches('/'));
    if path.components().all(|c| matches!(c, std::path::Component::Normal(_))) {
        Ok(path.to_path_buf())
    } else {
        Err(Error::Invalid(format!("invalid cgroup path {}", path.display())))
    }
}

/// A mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    point: PathBuf,
    controllers: Vec<String>,
    name: Option<String>,
    unified: bool,
}

/// Reads the hierarchies out of mountinfo; of several mounts of one, the last below /sys/fs/cgroup counts.
fn hierarchies(mountinfo: &str) -> Vec<Hierarchy> {
    const OPTIONS: [&str; 8] =
        ["rw", "ro", "clone_children", "noprefix", "xattr", "nsdelegate", "memory_recursiveprot", "favordynmods"];
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((front, back)) = line.split_once(" - ") else { continue };
        let (Some(point), Some(fstype)) = (front.split(' ').nth(4), back.split(' ').next()) else { continue };
        let options = back.split(' ').nth(2).unwrap_or_default();
        let unified = fstype == "cgroup2";
        if !unified && fstype != "cgroup" {
            continue;
        }
        let name = options.split(',').find_map(|o| o.strip_prefix("name=")).map(String::from);
        let is_controller = |o: &&str| !unified && !OPTIONS.contains(o) && !o.contains('=');
        let controllers: Vec<String> = options.split(',').filter(is_controller).map(String::from).collect();
        let hierarchy = Hierarchy { point: point.into(), controllers, name, unified };
        let same =
            |h: &Hierarchy| (h.unified, &h.controllers, &h.name) == (unified, &hierarchy.controllers, &hierarchy.name);
        match found.iter_mut().find(|h| same(h)) {
            Some(known) if point.starts_with("/sys/fs/cgroup") => *known = hierarchy,
            Some(_) => {}
            None => found.push(hierarchy),
        }
    }
    found
}

/// Writes a control file.
fn write(dir: &Path, file: &str, value: impl std::fmt::Display) -> Result<()> {
    let path = dir.join(file);
    let value = value.to_string();
    let write = || -> std::io::Result<()> {
        use std::io::Write;
        std::fs::OpenOptions::new().write(true).open(&path)?.write_all(value.as_bytes())
    };
    write().context(|| format!("failed to write {value:?} to {}", path.display()))
}

/// Writes a control file if the kernel has it.
fn write_if_present(dir: &Path, file: &str, value: impl std::fmt::Display) -> Result<()> {
    if dir.join(file).exists() { write(dir, file, value) } else { Ok(()) }
}

/// Reads a control file that holds one number.
fn read_number(dir: &Path, file: &str) -> Option<u64> {
    std::fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok()
}

/// Reads one line `key number` of a control file.
fn read_key(dir: &Path, file: &str, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(dir.join(file)).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_mountinfo() {
        let info = "\
30 1 0:20 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
31 30 0:21 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
32 30 0:22 / /other/memory rw - cgroup cgroup rw,memory\n\
33 30 0:22 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
34 30 0:23 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
35 30 0:24 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = hierarchies(info);
        let shown: Vec<_> = found
            .iter()
            .map(|h| (h.point.to_str().unwrap(), h.controllers.join("+"), h.name.clone(), h.unified))
            .collect();
        assert_eq!(
            shown,
            [
                ("/sys/fs/cgroup/cpu,cpuacct", "cpu+cpuacct".into(), None, false),
                ("/sys/fs/cgroup/memory", "memory".into(), None, false),
                ("/sys/fs/cgroup/systemd", String::new(), Some("systemd".into()), false),
                ("/sys/fs/cgroup/unified", String::new(), None, true),
            ]
        );
    }

    #[test]
    fn paths_stay_below_the_root() {
        assert_eq!(relative("/kubepods/pod1").unwrap(), Path::new("kubepods/pod1"));
        assert_eq!(relative("/").unwrap(), Path::new(""));
        assert!(relative("/kubepods/../..").is_err());
    }
}
