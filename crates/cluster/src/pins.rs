//! Pins: bind mounts that keep a node's namespaces when its supervisor dies.

use crate::{Doing, Layout, Result};
use rustix::fs::CWD;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Namespaces of a node in the order in which a process must enter them: the mount namespace last,
/// because the pins are not seen from inside.
const KINDS: [(&str, LinkNameSpaceType); 4] = [
    ("net", LinkNameSpaceType::Network),
    ("uts", LinkNameSpaceType::HostNameAndNISDomainName),
    ("cgroup", LinkNameSpaceType::ControlGroup),
    ("mnt", LinkNameSpaceType::Mount),
];

/// Where the pins are.
pub fn dir(layout: &Layout) -> PathBuf {
    layout.run().join("ns")
}

/// The pinned network namespace.
pub fn network(layout: &Layout) -> PathBuf {
    dir(layout).join("net")
}

/// Whether all namespaces are pinned.
pub fn exist(layout: &Layout) -> bool {
    // An unpinned file lies on the run directory's tmpfs; a pin is on the namespace file system.
    let on_nsfs = |path: &Path| rustix::fs::statfs(path).is_ok_and(|s| s.f_type == 0x6e73_6673);
    KINDS.iter().all(|(kind, _)| on_nsfs(&dir(layout).join(kind)))
}

/// Mounts the run directory's tmpfs, private so that a mount namespace can be pinned in it.
pub fn mount_run(layout: &Layout) -> Result<()> {
    let run = layout.run();
    fs::create_dir_all(&run).doing(|| format!("make {}", run.display()))?;
    if !is_tmpfs(&run) {
        rustix::mount::mount("sagong", &run, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=0700").doing(|| format!("mount {}", run.display()))?;
        rustix::mount::mount_change(&run, MountPropagationFlags::PRIVATE).doing(|| format!("make {} private", run.display()))?;
    }
    fs::create_dir_all(dir(layout)).doing(|| format!("make {}", dir(layout).display()))
}

/// Unmounts the pins and the run directory; nothing where there are none.
pub fn unmount_run(layout: &Layout) -> Result<()> {
    let run = layout.run();
    while is_tmpfs(&run) {
        for (kind, _) in KINDS {
            // Not pinned: nothing to undo.
            let _ = rustix::mount::unmount(dir(layout).join(kind), UnmountFlags::DETACH);
        }
        rustix::mount::unmount(&run, UnmountFlags::DETACH).doing(|| format!("unmount {}", run.display()))?;
    }
    Ok(())
}

fn is_tmpfs(run: &Path) -> bool {
    // Mounted when it is on another device than its parent.
    let device = |path: &Path| rustix::fs::stat(path).map(|s| s.st_dev).ok();
    run.exists() && device(run) != run.parent().and_then(device)
}

/// Pins the namespaces of process `pid`. Called from outside them.
pub fn pin(layout: &Layout, pid: u32) -> Result<()> {
    for (kind, _) in KINDS {
        let target = dir(layout).join(kind);
        File::create(&target).doing(|| format!("make {}", target.display()))?;
        rustix::mount::mount_bind(format!("/proc/{pid}/ns/{kind}"), &target).doing(|| format!("pin the {kind} namespace"))?;
    }
    Ok(())
}

/// Moves this (single-threaded) process into the pinned namespaces.
pub fn enter(layout: &Layout) -> Result<()> {
    let open = |(kind, of): &(&'static str, LinkNameSpaceType)| Ok((*kind, *of, File::open(dir(layout).join(kind))?));
    let files: std::io::Result<Vec<_>> = KINDS.iter().map(open).collect();
    for (kind, of, file) in files.doing(|| "open the node's namespaces".into())? {
        rustix::thread::move_into_link_name_space(file.as_fd(), Some(of)).doing(|| format!("enter the {kind} namespace"))?;
    }
    Ok(())
}

/// Where drivers and device plugins expect the kubelet's directory: the paths it gives them must be the same in their
/// containers, and they mount this one.
pub const KUBELET_DIR: &str = "/var/lib/kubelet";

/// Shows a directory as the kubelet's in the node's own mount namespace; nothing where it is shown already.
pub fn show_kubelet_dir(dir: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let doing = || format!("show {} as {KUBELET_DIR}", dir.display());
    for made in [dir, Path::new(KUBELET_DIR)] {
        std::fs::create_dir_all(made).doing(doing)?;
    }
    let identity = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino()));
    if identity(dir).doing(doing)? == identity(Path::new(KUBELET_DIR)).doing(doing)? {
        return Ok(());
    }
    rustix::mount::mount_bind(dir, KUBELET_DIR).doing(doing)?;
    // A group of its own: mounts below it must not appear at the other path too.
    rustix::mount::mount_change(KUBELET_DIR, MountPropagationFlags::PRIVATE).doing(doing)?;
    rustix::mount::mount_change(KUBELET_DIR, MountPropagationFlags::SHARED).doing(doing)
}

/// Gives this (single-threaded) process new namespaces and makes its mounts its own.
pub fn unshare() -> Result<()> {
    let flags = UnshareFlags::NEWNET | UnshareFlags::NEWUTS | UnshareFlags::NEWCGROUP | UnshareFlags::NEWNS;
    // The deprecation concerns CLONE_FILES, which is not among the flags.
    #[allow(deprecated)]
    rustix::thread::unshare(flags).doing(|| "make the node's namespaces".into())?;
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", slave).doing(|| "separate the node's mounts".into())?;
    // Containers may ask for mount propagation, which needs a shared root.
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", shared).doing(|| "share the node's mounts".into())
}

/// Mounts /sys and the cgroup hierarchies anew, so that they show the node's network and cgroup.
pub fn remount_sys() -> Result<()> {
    let hierarchies = crate::cgroup::hierarchies()?;
    let plain = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("sysfs", "/sys", "sysfs", plain, None).doing(|| "mount /sys".into())?;
    if !hierarchies.iter().any(|h| h.path == Path::new("/sys/fs/cgroup")) {
        rustix::mount::mount("cgroup", "/sys/fs/cgroup", "tmpfs", plain, c"mode=0755").doing(|| "mount /sys/fs/cgroup".into())?;
    }
    for hierarchy in hierarchies {
        let path = &hierarchy.path;
        let (kind, options) = match &hierarchy.v1 {
            None => ("cgroup2", String::new()),
            Some(options) => ("cgroup", options.join(",")),
        };
        let options = std::ffi::CString::new(options).map_err(std::io::Error::from).doing(|| "read the mounts".into())?;
        rustix::fs::mkdirat(CWD, path, 0o755.into()).or_else(|e| if e == rustix::io::Errno::EXIST { Ok(()) } else { Err(e) }).doing(|| format!("make {}", path.display()))?;
        rustix::mount::mount(kind, path, kind, plain, options.as_c_str()).doing(|| format!("mount {}", path.display()))?;
    }
    Ok(())
}
