//! Network namespaces kept by bind mounts, and work inside them.
#![allow(unsafe_code)] // unshare has no safe wrapper

use crate::error::{Error, Result};
use crate::netlink::{Family, Socket};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};
use std::path::{Path, PathBuf};

const NSFS_MAGIC: u64 = 0x6e73_6673;

/// Makes a network namespace that lives as long as the mount at `path`, with its loopback up; does nothing if it is there.
pub async fn create(path: &Path) -> Result<()> {
    let path = path.to_owned();
    on_thread(move || {
        if is_namespace(&path) {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(Error::io(format!("make {parent:?}")))?;
        }
        std::fs::File::create(&path).map_err(Error::io(format!("make {path:?}")))?;
        // SAFETY: this thread was made for the call and ends after it; it unshares only its network
        // namespace, which no other thread shares with it afterwards.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
            .map_err(Error::kernel("make a network namespace"))?;
        rustix::mount::mount_bind("/proc/thread-self/ns/net", &path)
            .map_err(Error::kernel(format!("mount a network namespace at {path:?}")))?;
        crate::link::Links::open()?.set_up("lo")
    })
    .await
}

/// Removes a namespace made by [`create`]; idempotent. It ends when its last process does.
pub async fn delete(path: &Path) -> Result<()> {
    let path = path.to_owned();
    on_thread(move || {
        // More than one mount only if a crash came between two calls; take all.
        loop {
            match rustix::mount::unmount(&path, UnmountFlags::DETACH) {
                Ok(()) => {}
                Err(Errno::INVAL | Errno::NOENT) => break,
                Err(e) => return Err(Error::kernel(format!("unmount {path:?}"))(e)),
            }
        }
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(format!("remove {path:?}"))(e)),
            _ => Ok(()),
        }
    })
    .await
}

/// Runs blocking work in a namespace, or in this process's own, on a thread that ends afterwards.
pub async fn run<T: Send + 'static>(
    path: Option<&Path>,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let path = path.map(Path::to_owned);
    on_thread(move || {
        if let Some(path) = path {
            enter(&path)?;
        }
        work()
    })
    .await
}

/// Opens a netlink socket that speaks to a namespace; it may then be used from anywhere.
pub async fn socket(path: Option<&Path>, family: Family) -> Result<Socket> {
    run(path, move || Socket::open(family)).await
}

/// Moves this thread, for good, into a namespace.
fn enter(path: &PathBuf) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = rustix::fs::open(path, flags, Mode::empty())
        .map_err(Error::kernel(format!("open network namespace {path:?}")))?;
    rustix::thread::move_into_link_name_space(rustix::fd::AsFd::as_fd(&namespace), Some(LinkNameSpaceType::Network))
        .map_err(Error::kernel(format!("enter network namespace {path:?}")))
}

fn is_namespace(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type as u64 == NSFS_MAGIC)
}

async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (done, result) = tokio::sync::oneshot::channel();
    let spawned =
        std::thread::Builder::new().name("netns".into()).stack_size(256 << 10).spawn(move || drop(done.send(work())));
    spawned.map_err(Error::io("start a thread for a network namespace"))?;
    result.await.map_err(|_| Error::Invalid("the thread of a network namespace panicked".into()))?
}
