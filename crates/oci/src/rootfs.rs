//! The root of a container: attached, pivoted into, furnished and locked.

use crate::cgroup::CgroupMount;
use crate::error::{Context, Error, Result};
use crate::mount::{self, NODEV, NOEXEC, NOSUID, Overlay, RDONLY};
use crate::path::{Kind, Root};
use crate::spec::{BindMount, ContainerSpec, Propagation};
use crate::{dev, mapped};
use rustix::fs::{FileType, Mode, OFlags, fstat, fstatfs, mkdirat, openat, symlinkat};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Paths hidden unless a pod asks for an unmasked /proc.
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Paths made read-only likewise.
pub const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

pub(crate) const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// Host resources, opened by the parent before the child exists.
pub(crate) struct Handles {
    /// The overlay.
    pub overlay: Overlay,
    /// Clones of the sources of `spec.mounts`, in their order, attributes set.
    pub mounts: Vec<OwnedFd>,
    /// Clone of the pod's shared memory.
    pub shm: OwnedFd,
    /// Clones of the standard devices where nodes cannot be made.
    pub devices: Vec<OwnedFd>,
    /// Cgroup hierarchies to show.
    pub cgroups: Vec<CgroupMount>,
}

impl Handles {
    /// Opens everything a container needs of the host.
    pub(crate) fn open(spec: &ContainerSpec, cgroups: Vec<CgroupMount>, user: Option<BorrowedFd<'_>>) -> Result<Self> {
        let rootfs = &spec.rootfs;
        Ok(Self {
            overlay: match user {
                Some(user) => mapped::overlay(rootfs, user)?,
                None => mount::overlay(&rootfs.lower, &rootfs.upper, &rootfs.work)?,
            },
            mounts: spec.mounts.iter().map(|bind| clone_source(bind, user)).collect::<Result<_>>()?,
            shm: private_clone(&spec.shm)?,
            devices: match spec.idmap {
                Some(_) => dev::STANDARD
                    .iter()
                    .map(|(name, ..)| private_clone(&Path::new("/dev").join(name)))
                    .collect::<Result<_>>()?,
                None => Vec::new(),
            },
            cgroups,
        })
    }

    pub(crate) fn raw_fds(&self) -> Vec<i32> {
        use std::os::fd::AsRawFd;
        [&self.shm]
            .into_iter()
            .chain(self.overlay.fd())
            .chain(&self.mounts)
            .chain(&self.devices)
            .map(AsRawFd::as_raw_fd)
            .collect()
    }
}

fn private_clone(path: &Path) -> Result<OwnedFd> {
    let clone = mount::clone_path(path, false)?;
    mount::set_propagation(clone.as_fd(), libc::MS_PRIVATE)?;
    Ok(clone)
}

/// Our own /dev/null, opened before a volume can lie over it, and checked: what hides a file must not be a file itself.
fn null_device(root: &Root) -> Result<OwnedFd> {
    let null = root.open(Path::new("/dev/null"), OFlags::PATH | OFlags::NOFOLLOW).context(|| "open /dev/null")?;
    let stat = fstat(&null).context(|| "stat /dev/null")?;
    let is_null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)) == (1, 3);
    if is_null { Ok(null) } else { Err(Error::Invalid("/dev/null is not the null device".into())) }
}

fn clone_source(bind: &BindMount, user: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
    if bind.propagation == Propagation::Shared {
        require_shared(&bind.source)?;
    }
    let clone = mount::clone_path(&bind.source, true)?;
    let propagation = match bind.propagation {
        Propagation::Private => libc::MS_PRIVATE,
        Propagation::Slave => libc::MS_SLAVE,
        Propagation::Shared => libc::MS_SHARED,
    };
    mount::set_propagation(clone.as_fd(), propagation)?;
    if let Some(user) = user.filter(|_| bind.idmap) {
        mapped::set(clone.as_fd(), user, &bind.source)?;
    }
    if bind.readonly || bind.recursive_readonly {
        mount::set_attrs(clone.as_fd(), bind.recursive_readonly, RDONLY)?;
    }
    Ok(clone)
}

/// Refuses a path whose mount does not pass mount events on: what the container mounts would stay unseen.
fn require_shared(path: &Path) -> Result<()> {
    let path = path.canonicalize().context(|| path.display().to_string())?;
    let info = std::fs::read_to_string("/proc/self/mountinfo").context(|| "read mountinfo")?;
    let point = |line: &str| line.split(' ').nth(4).map(str::to_string).unwrap_or_default();
    let holding = info.lines().filter(|line| path.starts_with(point(line))).max_by_key(|line| point(line).len());
    match holding {
        Some(line) if line.contains(" shared:") => Ok(()),
        holding => {
            let (path, point) = (path.display(), holding.map(point).unwrap_or_default());
            Err(Error::Invalid(format!("path \"{path}\" is mounted on \"{point}\" but it is not a shared mount")))
        }
    }
}

/// The new root, once inside.
pub(crate) struct Entered {
    /// `/` of the container.
    pub root: Root,
    /// Its /dev, ours alone so far.
    pub dev: OwnedFd,
    /// Its devpts.
    pub devpts: OwnedFd,
    /// Its /dev/null, to hide files with.
    null: OwnedFd,
    /// The root's mount.
    overlay: OwnedFd,
}

/// Goes into the new root, which has no /proc yet. Afterwards no path leads to the host.
pub(crate) fn enter(spec: &ContainerSpec, handles: &Handles) -> Result<Entered> {
    use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC).context(|| "make / a slave")?;
    // The way there may be open to the node's root only, which we still are to the file system.
    let overlay = handles.overlay.attach(&spec.rootfs.mountpoint)?;
    if spec.idmap.is_some() {
        crate::init::become_root()?;
    }
    // Made while the host's are still visible: a user namespace may mount only what it could see anyway.
    let proc = spec.idmap.is_some().then(proc_of_own).transpose()?;
    let sys = system(spec)?;
    let cgroups = cgroup_tree(spec, &handles.cgroups);
    rustix::process::fchdir(&overlay).context(|| "enter the root file system")?;
    rustix::process::pivot_root(".", ".").context(|| "pivot_root")?;
    // The old root now lies on top of the new one at the same place.
    unmount(".", UnmountFlags::DETACH).context(|| "detach the old root")?;
    rustix::process::chdir("/").context(|| "chdir /")?;
    let root = Root::open_dir(Path::new("/"))?;
    if let Some(proc) = proc {
        mount::attach(proc.as_fd(), root.ensure_own_dir("proc")?.as_fd())?;
    }
    mount::attach(sys.as_fd(), root.ensure_own_dir("sys")?.as_fd())?;
    if let Some(tree) = cgroups? {
        attach_cgroups(&root, &tree)?;
    }
    let (dev, devpts) = devices(spec, handles, &root)?;
    let null = null_device(&root)?;
    Ok(Entered { root, dev, devpts, null, overlay })
}

/// /proc of the PID namespace that the caller was born in.
fn proc_of_own() -> Result<OwnedFd> {
    mount::new("proc", &[], NOSUID | NODEV | NOEXEC)
}

fn system(spec: &ContainerSpec) -> Result<OwnedFd> {
    let readonly = if spec.privileged { 0 } else { RDONLY };
    // A user namespace that does not own the network may not mount sysfs anew: it sees the node's.
    mount::new("sysfs", &[], NOSUID | NODEV | NOEXEC | readonly).or_else(|error| match spec.idmap {
        Some(_) => mount::clone_path(Path::new("/sys"), true),
        None => Err(error),
    })
}

enum CgroupTree {
    Unified(OwnedFd),
    Hierarchies(OwnedFd, Vec<(String, OwnedFd)>),
}

fn cgroup_tree(spec: &ContainerSpec, mounts: &[CgroupMount]) -> Result<Option<CgroupTree>> {
    let attrs = NOSUID | NODEV | NOEXEC | if spec.privileged { 0 } else { RDONLY };
    match mounts {
        [] => Ok(None),
        [one] if one.name.is_empty() => Ok(Some(CgroupTree::Unified(mount::new("cgroup2", &[], attrs)?))),
        many => {
            let tmpfs = mount::new("tmpfs", &[("mode", Some("755"))], NOSUID | NODEV | NOEXEC)?;
            let mut trees = Vec::new();
            for one in many {
                let options: Vec<_> = one.options.iter().map(|(k, v)| (k.as_str(), v.as_deref())).collect();
                trees.push((one.name.clone(), mount::new(one.fstype, &options, attrs)?));
            }
            Ok(Some(CgroupTree::Hierarchies(tmpfs, trees)))
        }
    }
}

fn attach_cgroups(root: &Root, tree: &CgroupTree) -> Result<()> {
    let target = root.open(Path::new("/sys/fs/cgroup"), OFlags::PATH).context(|| "open /sys/fs/cgroup")?;
    let (tmpfs, trees) = match tree {
        CgroupTree::Unified(mount) => return mount::attach(mount.as_fd(), target.as_fd()),
        CgroupTree::Hierarchies(tmpfs, trees) => (tmpfs, trees),
    };
    mount::attach(tmpfs.as_fd(), target.as_fd())?;
    for (name, tree) in trees {
        mount::attach(tree.as_fd(), make_dir(tmpfs, name)?.as_fd())?;
        for alias in name.split(',').filter(|alias| *alias != name) {
            symlinkat(name.as_str(), tmpfs, alias).context(|| format!("symlink {alias}"))?;
        }
    }
    mount::set_attrs(tmpfs.as_fd(), false, RDONLY)
}

fn make_dir(parent: &OwnedFd, name: &str) -> Result<OwnedFd> {
    mkdirat(parent, name, Mode::from_raw_mode(0o755)).context(|| format!("mkdir {name}"))?;
    open_dir(parent, name)
}

fn open_dir(parent: &OwnedFd, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty()).context(|| format!("open {name}"))
}

fn devices(spec: &ContainerSpec, handles: &Handles, root: &Root) -> Result<(OwnedFd, OwnedFd)> {
    let dev = dev::make(spec.idmap.is_none())?;
    mount::attach(dev.as_fd(), root.ensure_own_dir("dev")?.as_fd())?;
    dev::attach_clones(root, &handles.devices)?;
    let options = [("newinstance", None), ("ptmxmode", Some("0666")), ("mode", Some("0620")), ("gid", Some("5"))];
    let options = if spec.idmap.is_some() { &options[..3] } else { &options[..] };
    let devpts = mount::new("devpts", options, NOSUID | NOEXEC)?;
    mount::attach(devpts.as_fd(), open_dir(&dev, "pts")?.as_fd())?;
    mount::attach(handles.shm.as_fd(), open_dir(&dev, "shm")?.as_fd())?;
    match mount::new("mqueue", &[], NOSUID | NODEV | NOEXEC) {
        Ok(mqueue) => mount::attach(mqueue.as_fd(), open_dir(&dev, "mqueue")?.as_fd())?,
        // The IPC namespace belongs to the node (host IPC in a user namespace): no queues.
        Err(_) if spec.idmap.is_some() => {}
        Err(error) => return Err(error),
    }
    Ok((dev, devpts))
}

/// Mounts /proc, attaches volumes, adds devices, hides and locks paths. The container's own mounts come last, so
/// that nothing of theirs lies under ours.
pub(crate) fn furnish(spec: &ContainerSpec, handles: &Handles, entered: &Entered) -> Result<()> {
    let root = &entered.root;
    if spec.idmap.is_none() {
        mount::attach(proc_of_own()?.as_fd(), root.ensure_own_dir("proc")?.as_fd())?;
    }
    for (bind, source) in spec.mounts.iter().zip(&handles.mounts) {
        attach_volume(bind, source, root)?;
    }
    dev::add(root, &spec.devices)?;
    if spec.rootfs.readonly && !spec.process.cwd.is_empty() {
        // Later it could not be made any more.
        root.ensure(Path::new(&spec.process.cwd), Kind::Dir)?;
    }
    spec.readonly_paths.iter().try_for_each(|path| make_readonly(root, path))?;
    spec.masked_paths.iter().try_for_each(|path| mask(root, path, &entered.null))?;
    if spec.rootfs.readonly {
        mount::set_attrs(entered.overlay.as_fd(), false, RDONLY)?;
    }
    Ok(())
}

fn attach_volume(bind: &BindMount, source: &OwnedFd, root: &Root) -> Result<()> {
    let shown = || format!("mount {} to {}", bind.source.display(), bind.target.display());
    let stat = fstat(source).context(shown)?;
    let kind = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory { Kind::Dir } else { Kind::File };
    let target = root.ensure(&bind.target, kind)?;
    let is_proc = |fd: &OwnedFd| fstatfs(fd).map(|s| s.f_type as u64 == PROC_SUPER_MAGIC);
    if is_proc(&target).context(shown)? && !is_proc(source).context(shown)? {
        let target = bind.target.display();
        return Err(Error::Invalid(format!("\"{target}\" cannot be mounted because it is inside /proc")));
    }
    mount::attach(source.as_fd(), target.as_fd()).map_err(|error| Error::Invalid(format!("{}: {error}", shown())))
}

/// Opens a path of ours that no symbolic link of the image may stand in for.
fn fixed(root: &Root, path: &str) -> Result<Option<OwnedFd>> {
    use rustix::fs::ResolveFlags;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(root.fd(), path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error).context(|| path.to_string()),
    }
}

fn make_readonly(root: &Root, path: &str) -> Result<()> {
    let Some(target) = fixed(root, path)? else { return Ok(()) };
    let clone = rustix::mount::open_tree(
        &target,
        "",
        rustix::mount::OpenTreeFlags::OPEN_TREE_CLONE
            | rustix::mount::OpenTreeFlags::OPEN_TREE_CLOEXEC
            | rustix::mount::OpenTreeFlags::AT_EMPTY_PATH
            | rustix::mount::OpenTreeFlags::AT_RECURSIVE,
    )
    .context(|| path.to_string())?;
    mount::set_attrs(clone.as_fd(), true, RDONLY)?;
    mount::attach(clone.as_fd(), target.as_fd())
}

fn mask(root: &Root, path: &str, null: &OwnedFd) -> Result<()> {
    let Some(target) = fixed(root, path)? else { return Ok(()) };
    let stat = fstat(&target).context(|| path.to_string())?;
    let cover = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        mount::new("tmpfs", &[("size", Some("0")), ("nr_inodes", Some("1"))], RDONLY | NOSUID | NODEV | NOEXEC)
            .or_else(|_| mount::new("tmpfs", &[], RDONLY | NOSUID | NODEV | NOEXEC))?
    } else {
        mount::clone_fd(null.as_fd())?
    };
    mount::attach(cover.as_fd(), target.as_fd())
}
